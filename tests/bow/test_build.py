"""Building: the same bytes however the work was cut, and the postings of plain Python."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.bow.build import merge, splits
from raydist.bow.build.create import build_index
from raydist.bow.build.sources import SpillSource
from raydist.bow.build.spills import byte_order, write_spill
from raydist.bow.build.splits import Inverter
from raydist.bow.format.segment import Segment
from raydist.bow.spec import IndexSpec
from raydist.data.store.reader import DocumentStore
from raydist.disk import remove
from raydist.errors import ConfigError, DataError
from raydist.generations import WORK
from raydist.text.analyzer import Analyzer
from tests.bow.documents import contents, expected, postings_of, read, splits_of

WORDS = [
    "a",
    "the",
    "of",
    "retrieval",
    "retrieved",
    "index",
    "indexes",
    "café",
    "日本",
    "x1",
    "internationalization",
    "data",
]
TEXT = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
ROWS = st.lists(st.tuples(st.just(""), st.one_of(st.just(""), TEXT), TEXT), min_size=1, max_size=12)


def numbered(rows):
    return [(f"doc-{i}", title, text) for i, (_, title, text) in enumerate(rows)]


def build(rows, folder, cuts=(), **spec):
    folder.mkdir(parents=True, exist_ok=True)
    return build_index(splits_of(rows, cuts), read, folder, IndexSpec(**spec))


@settings(max_examples=40, deadline=None)
@given(ROWS, st.lists(st.integers(0, 12), max_size=4), st.sampled_from([1, 2, 10_000]))
def test_the_bytes_do_not_depend_on_splits_or_batches_and_hold_every_posting(rows, cuts, batch):
    rows = numbered(rows)
    with tempfile.TemporaryDirectory() as name:
        one, other = Path(name) / "one", Path(name) / "other"
        facts = build(rows, one)
        cuts = [min(cut, len(rows)) for cut in cuts]
        again = build(rows, other, cuts, batch_size=batch)
        assert contents(one / "segments") == contents(other / "segments")
        postings = expected(rows, Analyzer())
        assert postings_of([one / facts["segments"][0]]) == postings
        assert facts["postings"] == again["postings"] == sum(map(len, postings.values()))
        assert facts["tokens"] == sum(tf for pairs in postings.values() for _, tf in pairs)
        segment = Segment.open(one / "segments" / "00000")
        assert segment.doc_ids.to_pylist() == [row[0] for row in rows]
        assert int((segment.lengths_N == 0).sum()) == facts["empty"]


@settings(max_examples=25, deadline=None)
@given(ROWS, st.lists(st.integers(0, 12), max_size=3), st.booleans())
def test_unmerged_segments_hold_the_same_postings(rows, cuts, compress):
    rows = numbered(rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cuts = [min(cut, len(rows)) for cut in cuts]
        facts = build(rows, folder, cuts, merge=False, compress=compress, store=False)
        places = [folder / each for each in facts["segments"]]
        remove(folder / WORK)
        assert postings_of(places) == expected(rows, Analyzer())
        assert all(Segment.open(place).compress == compress for place in places)


def many_rows(count=400):
    rng = np.random.default_rng(5)
    vocabulary = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in ("x", "stuvwz" * 3)]
    weights = 1 / np.arange(1, len(vocabulary) + 1)
    weights /= weights.sum()
    return [
        (f"id{i}", "", " ".join(rng.choice(vocabulary, rng.integers(0, 40), p=weights)))
        for i in range(count)
    ]


def test_a_split_that_fills_the_memory_is_spilled_and_the_bytes_stay_the_same(
    tmp_path, monkeypatch
):
    rows = many_rows()
    facts = build(rows, tmp_path / "whole")
    assert len(list((tmp_path / "whole/.work/splits/00000").glob("0*"))) == 1
    monkeypatch.setattr(splits, "_BASE_MEMORY", (1 << 30) - (1 << 20) - 300_000)
    small = build(rows, tmp_path / "small", batch_size=7)
    assert len(list((tmp_path / "small/.work/splits/00000").glob("0*"))) > 3
    assert contents(tmp_path / "whole/segments") == contents(tmp_path / "small/segments")
    assert facts["postings"] == small["postings"]
    unmerged = build(rows, tmp_path / "apart", batch_size=7, merge=False)
    assert len(unmerged["segments"]) > 3
    places = [tmp_path / "apart" / each for each in unmerged["segments"]]
    assert postings_of(places) == postings_of([tmp_path / "whole/segments/00000"])


@pytest.mark.parametrize("compress", [True, False])
def test_ranges_of_terms_written_apart_join_to_the_same_bytes(tmp_path, monkeypatch, compress):
    rows = many_rows()
    runs = []
    for number, start in enumerate(range(0, len(rows), 130)):
        inverter = Inverter(Analyzer())
        part = rows[start : start + 130]
        inverter.add(pa.array([row[0] for row in part]), pa.array([row[2] for row in part]))
        write_spill(tmp_path / f"run{number}", inverter.postings())
        runs.append(tmp_path / f"run{number}")
    format_options = {"compress": compress, "block_size": 16}
    merge.merge_spills(
        runs, tmp_path / "whole", work=tmp_path / "w", memory=1 << 30, **format_options
    )
    ranges = merge.plan_ranges([SpillSource(run) for run in runs], 500)
    assert len(ranges) > 5
    assert ranges[0]["first"] is None and ranges[-1]["last"] is None
    sources = partial(merge._open_spills, runs)
    worker = merge._MergeWorker(sources, [0, len(rows)], format_options)
    parts = []
    for number, each in enumerate(ranges):
        parts.append(tmp_path / f"part{number}" / "00000")
        worker(each, parts[-1].parent)
    merge.concatenate(parts, tmp_path / "joined")
    assert contents(tmp_path / "whole") == contents(tmp_path / "joined")
    monkeypatch.setattr(merge, "_LEAST", 300)
    for threads in (0, 2, 3):
        out = tmp_path / f"tight-{threads}"
        merge.merge_spills(
            runs, out, work=tmp_path / "w", memory=0, workers=threads, **format_options
        )
        assert contents(tmp_path / "whole") == contents(out)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab\0", max_size=30).map(str.encode), max_size=60))
def test_byte_order_is_pythons_and_marks_equal_strings(strings):
    array = pa.array(strings, pa.large_binary())
    order, new = byte_order(array, distinct=False)
    assert order.tolist() == sorted(range(len(strings)), key=lambda i: (strings[i], i))
    ordered = sorted(strings)
    assert new.tolist() == [i == 0 or s != ordered[i - 1] for i, s in enumerate(ordered)]
    unique = sorted(set(strings), key=lambda s: s[::-1])
    order, new = byte_order(pa.array(unique, pa.large_binary()), distinct=True)
    assert [unique[i] for i in order] == sorted(unique) and new.all()


def test_a_title_is_indexed_before_the_text_and_parts_words(tmp_path):
    rows = [("1", "Neural nets", "learn"), ("2", "", "alone"), ("3", "title-", "-text")]
    facts = build(rows, tmp_path)
    assert postings_of([tmp_path / facts["segments"][0]]) == expected(rows, Analyzer())
    with DocumentStore.open(tmp_path / "store") as store:
        documents = store.get(["1", "2"])
    assert [(d.title, d.text) for d in documents] == [("Neural nets", "learn"), ("", "alone")]


@pytest.mark.parametrize("limit", [1, 4, 5, 9, 10, 99])
def test_max_docs_takes_the_first_documents_whatever_the_splits(tmp_path, limit):
    rows = numbered([("", "", f"word{i}") for i in range(10)])
    facts = build(rows, tmp_path / "some", cuts=[0, 4, 5, 5], max_docs=limit)
    build(rows[:limit], tmp_path / "those")
    assert facts["documents"] == min(limit, 10)
    assert contents(tmp_path / "some/segments") == contents(tmp_path / "those/segments")


def test_documents_without_terms_are_reported_and_do_not_count(tmp_path, capsys):
    rows = [("a", "", "word"), ("b", "", "the of"), ("c", "", ""), ("d", "", "…")]
    facts = build(rows, tmp_path, cuts=[1])
    assert facts["documents"] == 4 and facts["empty"] == 3
    assert "3 documents without terms, the first is 'b'" in capsys.readouterr().err
    assert Segment.open(tmp_path / "segments/00000").nonempty == 1


def test_a_corpus_without_documents_is_an_error(tmp_path):
    with pytest.raises(DataError, match="the corpus has no documents"):
        build([], tmp_path)


def test_only_empty_documents_still_make_an_index(tmp_path):
    facts = build([("a", "", ""), ("b", "", "the")], tmp_path)
    assert (facts["terms"], facts["postings"], facts["empty"]) == (0, 0, 2)
    assert Segment.open(tmp_path / "segments/00000").doc_ids.to_pylist() == ["a", "b"]


def test_too_little_memory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="memory_per_worker = 1000: at least"):
        build([("a", "", "x")], tmp_path, memory_per_worker=1000)


def failing(split, rejects):
    if split["number"] == 2:
        raise KeyboardInterrupt
    yield from read(split, rejects)


def test_an_interrupted_build_continues_and_leaves_the_same_bytes(tmp_path):
    rows = numbered([("", "", f"some words {i}") for i in range(8)])
    cut = splits_of(rows, [2, 4, 6])
    whole, other = tmp_path / "whole", tmp_path / "other"
    build(rows, whole, [2, 4, 6])
    other.mkdir()
    with pytest.raises(KeyboardInterrupt):
        build_index(cut, failing, other)
    done = sorted(path.name for path in (other / ".work/splits").glob("*.done"))
    assert done == ["00000.done", "00001.done"]
    before = (other / ".work/splits/00000/00000/run.bin").stat().st_mtime_ns
    build_index(cut, read, other)
    assert (other / ".work/splits/00000/00000/run.bin").stat().st_mtime_ns == before
    remove(whole / WORK)
    remove(other / WORK)
    assert contents(whole) == contents(other)


def test_a_build_continues_after_a_crash_while_merging(tmp_path, monkeypatch):
    rows = many_rows(60)
    build(rows, tmp_path / "whole", [20, 40])
    original = merge._merge_range
    with monkeypatch.context() as patch:
        patch.setattr(merge, "_merge_range", lambda *a: (original(*a), 1 / 0))
        with pytest.raises(ZeroDivisionError):
            build(rows, tmp_path / "other", [20, 40])
    build(rows, tmp_path / "other", [20, 40])
    for folder in (tmp_path / "whole", tmp_path / "other"):
        shutil.rmtree(folder / ".work")
    assert contents(tmp_path / "whole") == contents(tmp_path / "other")
