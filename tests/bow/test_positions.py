"""Positions of terms: as the analyzer counts words, whatever way the index was written."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydist.bow.build import merge
from raydist.bow.build.append import append_to_index
from raydist.bow.build.create import build_index
from raydist.bow.build.delete import delete_from_index
from raydist.bow.build.segments import merge_segments
from raydist.bow.format.positions import FILES
from raydist.bow.format.segment import Segment, concatenate
from raydist.bow.format.writing import SegmentWriter
from raydist.bow.spec import IndexSpec, MergeSpec
from raydist.bow.verify import verify_index
from raydist.checks import Report
from raydist.errors import ConfigError
from raydist.manifest import read_manifest
from raydist.text.analyzer import Analyzer
from tests.bow.answers import make_index
from tests.bow.documents import Row, contents, read, splits_of

WORDS = ["heron", "the", "fish", "of", "canal", "lock", "boat", "and", "reed"]
ROWS: list[Row] = [
    (f"d{i}", "", " ".join(WORDS[i * j % 7 + (i + j) % 3] for j in range(i % 23)))
    for i in range(90)
]
CUTS = [20, 21, 50]
Positions = dict[tuple[str, str], list[int]]


def expected(rows: list[Row]) -> Positions:
    """The places of the words of each document by term, counted one by one."""
    places: Positions = {}
    analyzer = Analyzer()
    for doc_id, _, text in rows:
        for at, word in enumerate(text.split()):
            for term in analyzer.tokens(word):
                places.setdefault((doc_id, term), []).append(at)
    return places


def stored(folder: Path) -> Positions:
    """The live documents' positions in an index."""
    manifest = read_manifest(folder)
    places: Positions = {}
    for name in manifest["segments"]:
        deletions = manifest.get("deletions", {}).get(name)
        segment = Segment.open(folder / name, deletions and folder / deletions)
        indptr, docs, tfs = segment.postings(0, segment.size)
        positions = segment.positions.decode(0, indptr, tfs).tolist()
        ids, live = segment.doc_ids.to_pylist(), segment.live_N
        ends = np.cumsum(tfs, dtype=np.int64).tolist()
        spans = list(pairwise([0, *ends]))
        for t, term in enumerate(segment.terms.to_pylist()):
            for p in range(indptr[t], indptr[t + 1]):
                if live[docs[p]]:
                    places[ids[docs[p]], term.decode()] = positions[slice(*spans[p])]
    return places


def faults(folder: Path) -> list[str]:
    report = Report()
    verify_index(folder, read_manifest(folder), report)
    return report.faults


def append(rows: list[Row], folder: Path, **options) -> None:
    append_to_index(
        splits_of(rows), read, folder, IndexSpec(**options), inputs={"corpus": rows[0][0]}
    )


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("block_size", [8, 128])
@pytest.mark.parametrize("merged", [True, False])
def test_positions_are_those_of_the_words(tmp_path, compress, block_size, merged) -> None:
    options = {"compress": compress, "block_size": block_size, "merge": merged}
    folder = make_index(ROWS, tmp_path / "index", CUTS, positions=True, **options)
    assert stored(folder) == expected(ROWS)
    assert not faults(folder)


def test_all_other_files_are_those_of_an_index_without_positions(tmp_path) -> None:
    written = []
    for positions in (True, False):
        folder = tmp_path / str(positions)
        build_index(splits_of(ROWS, CUTS), read, folder, IndexSpec(positions=positions))
        written.append(contents(folder / "segments"))
    added = {f"00000/{name}" for name in FILES}
    assert written[0].keys() - written[1].keys() == added
    same = {name: data for name, data in written[0].items() if name not in added}
    header = same.pop("00000/segment.json")
    assert header != written[1].pop("00000/segment.json")
    assert same == written[1]


def test_positions_survive_deletions_appends_and_merges(tmp_path, monkeypatch) -> None:
    folder = make_index(ROWS[:60], tmp_path / "index", CUTS, positions=True, merge=False)
    delete_from_index(folder, ["d7", "d22", "d45", "d59"])
    append(ROWS[60:], folder, positions=True)
    rows = [row for row in ROWS if row[0] not in ("d7", "d22", "d45", "d59")]
    assert stored(folder) == expected(rows)
    monkeypatch.setattr(merge, "_LEAST", 40)  # several ranges of terms
    for segments in (3, 1):
        merge_segments(folder, MergeSpec(segments=segments, memory_per_worker=0))
        assert stored(folder) == expected(rows)
        assert not faults(folder)
    fresh = make_index(rows, tmp_path / "fresh", positions=True)
    one, other = (read_manifest(each)["segments"][0] for each in (folder, fresh))
    assert contents(folder / one) == contents(fresh / other)


def test_an_append_without_positions_to_an_index_with_them_is_refused(tmp_path) -> None:
    folder = make_index(ROWS[:10], tmp_path / "index", positions=True)
    with pytest.raises(ConfigError, match=r"positions: true -> false"):
        append(ROWS[10:], folder)


def segment(folder: Path, terms: slice, ids: bool) -> None:
    """Writes some of four terms over 300 documents; the k-th is in every (k + 1)-th document."""
    documents = [np.arange(0, 300, step) for step in (1, 2, 3, 4)][terms]
    tfs = [docs % 5 + 1 for docs in documents]
    flat = np.concatenate(tfs)
    positions = np.concatenate([np.arange(tf) * 200 + tf for tf in flat])
    names = pa.array([b"a", b"b", b"c", b"d"][terms], pa.large_binary())
    writer = SegmentWriter(
        folder,
        lengths_N=np.full(300, 20, np.uint32),
        doc_ids=pa.array([f"d{i}" for i in range(300)]) if ids else None,
        block_size=16,
        with_positions=True,
    )
    indptr = np.cumsum([0, *map(len, documents)])
    writer.append(names, indptr, np.concatenate(documents), flat, positions)
    writer.close()


def test_joined_ranges_of_terms_are_what_one_writer_writes(tmp_path) -> None:
    segment(tmp_path / "whole", slice(0, 4), True)
    segment(tmp_path / "first", slice(0, 1), True)
    segment(tmp_path / "rest", slice(1, 4), False)
    concatenate([tmp_path / "first", tmp_path / "rest"], tmp_path / "joined")
    assert contents(tmp_path / "joined") == contents(tmp_path / "whole")


def test_positions_of_a_few_documents_are_read_alone(tmp_path) -> None:
    segment(tmp_path / "segment", slice(0, 4), True)
    opened = Segment.open(tmp_path / "segment")
    indptr, _, tfs = opened.postings(0, 4)
    for term, which in [(0, [0, 15, 16, 17, 250, 299]), (1, [149]), (3, [74]), (2, [])]:
        own = tfs[indptr[term] : indptr[term + 1]]
        starts, positions = opened.positions.pick(term, own, np.array(which, np.int64))
        parts = [positions[a:z].tolist() for a, z in pairwise(starts.tolist())]
        assert parts == [(np.arange(own[i]) * 200 + own[i]).tolist() for i in which]


def test_positions_that_do_not_ascend_are_not_written(tmp_path) -> None:
    with pytest.raises(AssertionError, match="ascend"):
        writer = SegmentWriter(
            tmp_path, lengths_N=np.full(1, 2, np.uint32), doc_ids=None, with_positions=True
        )
        names = pa.array([b"a"], pa.large_binary())
        writer.append(names, *map(np.array, ([0, 1], [0], [2], [5, 5])))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The heron of the canal's lock", [("heron", 1), ("canal", 4), ("lock", 5)]),
        ("of the", []),
        ("", []),
        ("x" * 300, [("x" * 255, 0), ("x" * 45, 1)]),
    ],
)
def test_words_that_are_dropped_leave_gaps(text: str, tokens: list[tuple[str, int]]) -> None:
    assert Analyzer().positioned_tokens(text) == tokens


def test_bigrams_are_counted_one_after_another() -> None:
    tokens = Analyzer("chinese").positioned_tokens("東京都 heron")
    assert tokens == [("東京", 0), ("京都", 1), ("heron", 2)]
