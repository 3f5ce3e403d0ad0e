"""Indexes whose postings and lengths have the first layout answer, and live on, as new ones do.

`tests/golden/bow/layout-1.tar.gz` holds texts, vectors and what the last version before the second
layout made of them: IDX, with an appended segment; REORDERED, with positions and a forward index;
and WEIGHTED.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from raydist.bow.format import files
from raydist.bow.format.segment import Segment, concatenate
from raydist.bow.index import BowIndex
from raydist.cli import main
from raydist.errors import ArtifactError
from raydist.manifest import read_manifest
from tests.bow.answers import answers

GOLDEN = Path(__file__).parent.parent / "golden" / "bow" / "layout-1.tar.gz"
APART = ["store=false", "merge=false"]
REORDERED = ["store=false", "reorder=true", "positions=true", "forward=true"]
APPEND = ["index", "corpus=more.jsonl", "--append"]
BUILDS = {
    "IDX": [["index", "corpus=corpus.jsonl", *APART], [*APPEND, *APART]],
    "REORDERED": [["index", "corpus=corpus.jsonl", *REORDERED]],
    "WEIGHTED": [["convert", "in=vectors.jsonl"]],
}
WEIGHTED_QUERIES = ["w0 w1 w5", "w0", "w2 w3 w4 w30", "unheard w7"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layouts")
    with tarfile.open(GOLDEN) as packed:
        packed.extractall(folder, filter="data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, commands in BUILDS.items():
            for words in commands:
                assert main([*words, f"out=new-{name}"]) == 0
    return folder


@pytest.fixture
def outputs(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def segments_of(folder: Path) -> list[Segment]:
    return [Segment.open(folder / name) for name in read_manifest(folder)["segments"]]


def asked(folder: Path) -> dict[str, object]:
    return answers(folder, WEIGHTED_QUERIES) if "WEIGHTED" in folder.name else answers(folder)


@pytest.mark.parametrize("name", BUILDS)
def test_answers_are_the_same(outputs: Path, name: str) -> None:
    first, second = outputs / name, outputs / f"new-{name}"
    assert {each.layout for each in segments_of(first)} == {1}
    assert {each.layout for each in segments_of(second)} == {2}
    assert asked(first) == asked(second)
    assert main(["verify", name, f"new-{name}"]) == 0


def test_postings_and_lengths_are_smaller(outputs: Path) -> None:
    for name in ("IDX", "REORDERED"):
        for first, second in zip(segments_of(outputs / name), segments_of(outputs / f"new-{name}")):
            was, now = (each.files.header["files"] for each in (first, second))
            assert now["postings"]["bytes"] < 0.97 * was["postings"]["bytes"]
            assert now["lengths"]["bytes"] < 0.5 * was["lengths"]["bytes"]


@pytest.mark.parametrize("name", ["IDX", "REORDERED"])
def test_an_index_of_the_first_layout_lives_on(outputs: Path, name: str) -> None:
    Path("gone.txt").write_text("d3\nd77\nd201\n")
    for folder in (name, f"new-{name}"):
        if name == "REORDERED":
            assert main([*APPEND, *REORDERED, f"out={folder}"]) == 0
        assert main(["index", "delete=gone.txt", f"out={folder}"]) == 0
        assert main(["verify", folder]) == 0
    assert segments_of(outputs / name)[0].layout == 1
    before = asked(outputs / name)
    assert before == asked(outputs / f"new-{name}")
    for folder in (name, f"new-{name}"):
        assert main(["merge", f"out={folder}"]) == 0
    (merged,), (other,) = segments_of(outputs / name), segments_of(outputs / f"new-{name}")
    assert merged.files.header["version"] == 3
    assert merged.files.header == other.files.header  # with the checksums of all files
    assert asked(outputs / name)["rankings"] == before["rankings"]


def test_an_earlier_version_refuses_the_second_layout(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "VERSION", 2)
    assert len(BowIndex.open("IDX")) == 500
    with pytest.raises(ArtifactError, match="format version 3, this raydist reads up to 2"):
        BowIndex.open("new-IDX")


def test_parts_of_both_layouts_are_not_joined(outputs: Path) -> None:
    parts = [segments_of(outputs / name)[0].folder for name in ("IDX", "new-IDX")]
    with pytest.raises(ArtifactError, match="different versions of raydist"):
        concatenate(parts, outputs / "joined")
