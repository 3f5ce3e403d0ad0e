"""Outputs of earlier versions are read, and live on.

`tests/golden/outputs/VERSION.tar.gz` holds what that version wrote: IDX, an index with an appended
segment; PART, segments that were left apart, raw and without texts; WEIGHTED, of vectors; FROMCIFF;
VEC, vectors; and runs.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.cli import main
from raydist.dense.vectors import VectorShards
from raydist.manifest import read_manifest

GOLDEN = Path(__file__).parent / "golden" / "outputs"
FOLDERS = ["IDX", "PART", "WEIGHTED", "FROMCIFF", "VEC"]
MORE = [{"_id": "e", "title": "", "text": "The bird ate a fish."}]


@pytest.fixture(params=sorted(path.name.removesuffix(".tar.gz") for path in GOLDEN.iterdir()))
def outputs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    with tarfile.open(GOLDEN / f"{request.param}.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    Path("q.tsv").write_text("q1\tcat bird\nq2\tfish dog\n")
    Path("more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MORE))
    Path("ids.txt").write_text("b\n")
    return tmp_path


def search(index: str) -> str:
    assert main(["search", f"index={index}", "queries=q.tsv", "k=5", "out=new.txt"]) == 0
    return Path("new.txt").read_text()


def test_an_index_answers_as_it_did(outputs: Path) -> None:
    assert search("IDX") == Path("run.txt").read_text()


def test_everything_is_verified(outputs: Path) -> None:
    assert main(["verify", *FOLDERS, "run.txt", "reranked.txt"]) == 0


@pytest.mark.parametrize("folder", ["IDX", "FROMCIFF", "PART"])
def test_an_index_lives_on(outputs: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = search(folder)
    settings = {"PART": ["store=false", "compress=false"], "FROMCIFF": ["store=false"]}
    words = [f"out={folder}", *settings.get(folder, [])]
    if folder != "FROMCIFF":
        assert main(["index", "corpus=more.jsonl", "--append", *words]) == 0
    assert main(["index", "delete=ids.txt", f"out={folder}"]) == 0
    assert main(["verify", folder]) == 0
    after = search(folder)
    assert after != before and " b " not in after
    assert main(["merge", f"out={folder}"]) == 0
    assert main(["verify", folder]) == 0
    assert search(folder) == after
    manifest = read_manifest(folder)
    assert len(manifest["segments"]) == 1 and manifest["deleted"] == 0


def test_weighted_terms_and_vectors_are_read(outputs: Path) -> None:
    index = BowIndex.open("WEIGHTED")
    docs, scores = BowRetriever(index).rank_terms({"cat": 1.0, "dog": 2.0, "bird": 0.5}, 5)
    assert index.pick_ids(docs).to_pylist() == ["v1", "v2"] and scores.tolist() == [2.0, 1.0]
    Path("ids.txt").write_text("v1\n")
    assert main(["index", "delete=ids.txt", "out=WEIGHTED"]) == 0
    assert main(["merge", "out=WEIGHTED"]) == 0
    assert main(["verify", "WEIGHTED"]) == 0
    vectors = VectorShards.open("VEC")
    assert vectors.doc_ids.to_pylist() == ["a", "b", "c"] and vectors.dimension == 8
