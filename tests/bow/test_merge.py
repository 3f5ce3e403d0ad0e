"""Merging an index: the result is that of a build without the deleted documents, to the byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist import generations
from raydist.artefact import Output
from raydist.bow.build import merge
from raydist.bow.build.append import append_to_index
from raydist.bow.build.create import build_index
from raydist.bow.build.delete import delete_from_index
from raydist.bow.build.segments import merge_segments, merge_tail, purge
from raydist.bow.exchange.ciff import export_ciff, import_ciff
from raydist.bow.exchange.vectors import index_vectors
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import IndexSpec, MergeSpec
from raydist.bow.verify import verify_index
from raydist.checks import Report
from raydist.cli import main
from raydist.errors import ConfigError
from raydist.manifest import read_manifest
from tests.bow.documents import contents, read, splits_of
from tests.bow.test_delete import answers, make_index

WORDS = ["cat", "dog", "bird", "fish", "cow", "boundary", "layer"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1)
STATISTICS = ["documents", "empty", "tokens", "postings"]


def faults(folder: Path) -> list[str]:
    report = Report()
    verify_index(folder, read_manifest(folder), report)
    return report.faults


def rows_of(texts) -> list[tuple[str, str, str]]:
    return [(f"d{i}", "", text) for i, text in enumerate(texts)]


def many(count: int, prefix: str = "d") -> list[tuple[str, str, str]]:
    return [(f"{prefix}{i}", "", f"{WORDS[i % 7]} {WORDS[i % 5]} w{i}") for i in range(count)]


def built(rows, folder: Path, cuts=(), **options) -> Path:
    spec = IndexSpec(**options)
    config = {name: getattr(spec, name) for name in ("merge", "compress", "block_size", "store")}
    output = Output.open(folder, kind="bow-index", config=config, inputs={})
    output.finish(**build_index(splits_of(rows, cuts), read, folder, spec))
    return folder


def append(rows, folder: Path, **options) -> None:
    facts = append_to_index(
        splits_of(rows), read, folder, IndexSpec(**options), inputs={"corpus": rows[0][0]}
    )
    assert facts is not None


@settings(max_examples=35, deadline=None)
@given(TEXTS, st.data(), st.booleans(), st.booleans())
def test_a_merged_index_is_that_of_a_build_without_the_deleted_documents(
    tmp_path_factory, texts, data, compress, store
):
    rows = rows_of(texts)
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=4))
    deleted = data.draw(st.sets(st.sampled_from(range(len(rows))), max_size=len(rows) - 1))
    count = data.draw(st.integers(1, min(4, len(rows) - len(deleted))))
    options = {"compress": compress, "store": store, "block_size": 8}
    place = tmp_path_factory.mktemp("merge")
    index = make_index(rows, place / "index", cuts, merge=False, **options)
    if deleted:
        delete_from_index(index, [f"d{i}" for i in deleted])
    old = BowIndex.open(index)
    before = answers(index)
    merge_segments(index, MergeSpec(segments=count))
    rest = [row for i, row in enumerate(rows) if i not in deleted]
    fresh = make_index(rest, place / "fresh", **options)
    manifest, new = read_manifest(index), read_manifest(fresh)
    assert answers(index) == answers(fresh) == before
    assert len(manifest["segments"]) == count
    assert {name: manifest[name] for name in STATISTICS} == {name: new[name] for name in STATISTICS}
    if count == 1:
        assert contents(index / manifest["segments"][0]) == contents(fresh / "segments/00000")
    assert faults(index) == []
    named = {"manifest.json", "segments", *([manifest["store"]] if store else [])}
    assert {Path(name).parts[0] for name in contents(index)} == named
    assert old.doc_ids.to_pylist() == [row[0] for row in rest]  # its files are gone, not its maps
    assert merge_segments(index, MergeSpec(segments=count)) is None


def test_a_split_index_has_segments_of_about_the_same_number_of_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "_LEAST", 300)
    rows = [(f"d{i}", "", " ".join(WORDS) if i < 100 else "cat") for i in range(800)]
    index = make_index(rows, tmp_path / "index", block_size=8)
    fresh = answers(index)
    whole = contents(index / "segments/00000")
    merge_segments(index, MergeSpec(segments=3, memory_per_worker=0))
    tokens = [segment.tokens for segment in BowIndex.open(index).segments]
    assert sum(tokens) == 1400 and max(tokens) - min(tokens) < 150
    assert answers(index) == fresh and faults(index) == []
    merge_segments(index, MergeSpec(segments=1, workers=3, memory_per_worker=0))  # threads
    assert contents(index / read_manifest(index)["segments"][0]) == whole
    with pytest.raises(ConfigError, match=r"segments = 801: expected at most 800"):
        merge_segments(index, MergeSpec(segments=801))


def test_only_what_holds_deleted_documents_is_purged(tmp_path):
    index = built(many(60), tmp_path / "index", [20, 40], merge=False)
    append(many(5, "new"), index, merge=False)
    assert purge(index, MergeSpec()) is None
    names = read_manifest(index)["segments"]
    delete_from_index(index, ["d25", *(f"new{i}" for i in range(5))])
    purge(index, MergeSpec())
    manifest = read_manifest(index)
    assert manifest["segments"][0] == names[0] and manifest["segments"][2:] == names[2:3]
    assert manifest["segments"][1] not in names
    assert (manifest["documents"], manifest["deleted"], manifest["deletions"]) == (59, 0, {})
    rest = [row for row in many(60) if row[0] != "d25"]
    assert answers(index) == answers(make_index(rest, tmp_path / "fresh"))
    texts = b"".join(contents(index).values())
    assert b"new3" not in texts and faults(index) == []


def test_appends_keep_few_segments_each_larger_than_all_behind_it(tmp_path):
    index = built(many(40), tmp_path / "index")
    rows, written = many(40), 0
    for number in range(45):
        more = many(1 + number % 3, f"a{number}-")
        rows += more
        append(more, index)
        before = {*read_manifest(index)["segments"]}
        merged = merge_tail(index, MergeSpec())
        opened = BowIndex.open(index)
        new = [
            s for n, s in zip(read_manifest(index)["segments"], opened.segments) if n not in before
        ]
        written += sum(segment.documents for segment in new)
        assert (
            len(opened.segments) <= generations.MANY
            and len(opened.store.pieces) <= generations.MANY
        )
        sizes = [segment.live_postings + segment.documents for segment in opened.segments]
        assert merged is None or all(a > sum(sizes[i + 1 :]) for i, a in enumerate(sizes))
    assert written < 4 * len(rows)
    assert answers(index) == answers(make_index(rows, tmp_path / "fresh"))
    assert faults(index) == []


def test_segments_that_a_build_left_apart_or_that_are_large_stay(tmp_path, monkeypatch):
    apart = built(many(60), tmp_path / "apart", range(5, 60, 5), merge=False)
    assert merge_tail(apart, MergeSpec()) is None
    index = make_index(many(60), tmp_path / "index", range(5, 60, 5), merge=False)
    monkeypatch.setattr(generations, "LARGEST", 12)
    merge_tail(index, MergeSpec())
    assert [s.documents for s in BowIndex.open(index).segments] == [5] * 10 + [10]


@pytest.mark.parametrize("kind", ["weighted", "ciff"])
def test_indexes_of_every_kind_are_merged(tmp_path, kind):
    vectors = [(f"d{i}", {WORDS[i % 7]: 1.5, WORDS[i % 5]: 0.25 * (i % 3)}) for i in range(30)]

    def make(chosen, name: str) -> Path:
        folder = tmp_path / name
        output = Output.open(folder, kind="bow-index", config={}, inputs={})
        facts = index_vectors(iter(chosen), folder, segment_documents=8)
        if kind == "ciff":
            output.finish(**facts)
            export_ciff(BowIndex.open(folder), tmp_path / f"{name}.ciff")
            folder = tmp_path / f"{name}-ciff"
            output = Output.open(folder, kind="bow-index", config={}, inputs={"ciff": "x"})
            facts = import_ciff(tmp_path / f"{name}.ciff", folder)
        output.finish(duplicates=0, **facts)
        return folder

    def ranked(folder: Path) -> list:
        index = BowIndex.open(folder)
        hits = [BowRetriever(index).rank_terms({word: 1.0}, 30) for word in WORDS]
        return [(index.pick_ids(docs).to_pylist(), scores.tolist()) for docs, scores in hits]

    index = make(vectors, "index")
    delete_from_index(index, ["d3", "d11", "d29"])
    assert faults(index) == []
    merge_segments(index, MergeSpec(segments=2))
    rest = [each for i, each in enumerate(vectors) if i not in (3, 11, 29)]
    assert ranked(index) == ranked(make(rest, "fresh"))
    assert len(read_manifest(index)["segments"]) == 2 and faults(index) == []


class Documents:
    """A source of so many documents, for plans."""

    postings = 0

    def __init__(self, count: int) -> None:
        self.documents = count

    def lengths(self):
        return np.ones(self.documents if self.documents < 1000 else 0, np.uint32)


def test_more_documents_than_a_segment_can_number_are_refused_before_work_begins():
    sources = [Documents(1 << 31), Documents(1 << 31)]
    with pytest.raises(ConfigError, match=r"4,294,967,296 documents.*segments=3 or more"):
        merge.plan_cuts(sources, 1)
    assert merge.plan_cuts([sources[0], Documents(100)], 1) == [0, (1 << 31) + 100]
    assert merge.plan_cuts([Documents(7), Documents(0), Documents(2)], 3) == [0, 3, 6, 9]


def test_a_killed_merge_leaves_the_index_as_it_was_and_the_next_one_nothing_of_it(tmp_path):
    index = make_index(many(3000), tmp_path / "index", [1000, 2000], merge=False)
    delete_from_index(index, ["d5", "d1500"])
    before = answers(index)
    code = (
        "import sys; from raydist.bow.build import merge, segments; from pathlib import Path\n"
        "from raydist.bow.spec import MergeSpec\n"
        "merge._LEAST = 50; original = merge._joined\n"
        "def slow(pieces):\n"
        "    import time; print('merging', flush=True); time.sleep(.05); return original(pieces)\n"
        "merge._joined = slow\n"
        "segments.merge_segments(Path(sys.argv[1]), MergeSpec(memory_per_worker=0))\n"
    )
    words = [sys.executable, "-c", code, str(index)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline() == b"merging\n"
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGKILL)
    assert answers(index) == before and len(list(index.glob("segments/*"))) == 2
    merge_segments(index, MergeSpec())
    rest = [row for row in many(3000) if row[0] not in ("d5", "d1500")]
    fresh = make_index(rest, tmp_path / "fresh")
    manifest = read_manifest(index)
    assert contents(index / manifest["segments"][0]) == contents(fresh / "segments/00000")
    entries = {path.relative_to(index).parts[:2] for path in index.rglob("*") if path.is_file()}
    assert {parts[0] for parts in entries} == {"manifest.json", "segments", manifest["store"]}
    assert len(list(index.glob("segments/*"))) == 1


def test_an_index_is_merged_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, rows in (("a", many(30)), ("b", many(10, "x"))):
        lines = [json.dumps({"id": row[0], "text": row[2]}) + "\n" for row in rows]
        Path(f"{name}.jsonl").write_text("".join(lines))
    Path("ids.txt").write_text("d3\nx4\n")
    assert main(["index", "corpus=a.jsonl", "out=IDX"]) == 0
    assert main(["merge", "out=IDX"]) == 0
    assert "1 segment, 0 deleted documents: nothing to merge" in capsys.readouterr().err
    assert main(["index", "corpus=b.jsonl", "out=IDX", "--append"]) == 0
    assert main(["index", "delete=ids.txt", "out=IDX"]) == 0
    assert main(["merge", "out=IDX", "--dry-run"]) == 0
    assert "would merge IDX (2 segments, 2 deleted documents)" in capsys.readouterr().err
    assert main(["verify", "IDX"]) == 0
    assert "raydist merge out=IDX removes 2 deleted documents" in capsys.readouterr().err
    assert main(["merge", "IDX", "segments=1"]) == 0
    assert "2 -> 1" in capsys.readouterr().err
    assert read_manifest("IDX")["documents"] == 38
    assert main(["verify", "IDX"]) == 0
    messages = capsys.readouterr().err
    assert "IDX: intact" in messages and "removes" not in messages
    assert main(["merge", "out=IDX", "segments=0"]) == 2
    assert main(["index", "corpus=a.jsonl", "out=IDX"]) == 0
    assert "already built" in capsys.readouterr().err


def test_appends_merge_by_themselves_and_a_purge_leaves_no_byte(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def index(number: int, *words: str) -> None:
        row = {"id": f"n{number}", "text": f"cat word{number}"}
        Path("c.jsonl").write_text(json.dumps(row) + "\n")
        more = ["--append"] if Path("IDX").exists() else []
        assert main(["index", "corpus=c.jsonl", "out=IDX", *more, *words]) == 0

    for number in range(11):
        index(number, "auto_merge=false")
    assert len(read_manifest("IDX")["segments"]) == 11
    index(11)
    assert "merged into 1 segment" in capsys.readouterr().err
    assert len(read_manifest("IDX")["segments"]) == 1
    Path("ids.txt").write_text("n4\n")
    assert main(["index", "delete=ids.txt", "out=IDX", "purge=true"]) == 0
    assert b"word4" not in b"".join(contents(Path("IDX")).values())
    assert read_manifest("IDX")["documents"] == 11 and faults(Path("IDX")) == []
    assert main(["index", "corpus=c.jsonl", "out=IDX", "purge=true"]) == 2
    assert "purge: give delete= too" in capsys.readouterr().err
