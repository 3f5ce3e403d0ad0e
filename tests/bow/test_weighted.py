"""Pruned search of weighted terms against sums of products in the order of the query's terms."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydist.bow.ahead import WEIGHTED
from raydist.bow.build.delete import delete_from_index
from raydist.bow.build.segments import merge_segments
from raydist.bow.exchange.vectors import index_vectors
from raydist.bow.format.files import extend
from raydist.bow.format.segment import Segment
from raydist.bow.format.weights import NAMES, add_weights, has_weights, weights_fault
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import BowSearchSpec, MergeSpec
from raydist.bow.weighted.ranker import WeightedRanker
from raydist.cli import main
from raydist.kernels.ahead import argument_types

TERMS = 300
UNIT = 0.01
Vector = dict[str, float]


def _vectors(count: int, seed: int) -> list[tuple[str, Vector]]:
    """Returns vectors of few frequent and many rare terms, with many equal weights."""
    draw = np.random.default_rng(seed)
    popularity = (np.arange(TERMS) + 2.0) ** -1.2
    popularity /= popularity.sum()
    rows = []
    for number in range(count):
        size = int(draw.integers(0, 30))
        terms = draw.choice(TERMS, size, replace=False, p=popularity)
        weights = np.round(np.exp(draw.normal(-0.5, 0.8, size)), 1)
        rows.append((f"d{number}", {f"t{t}": float(w) for t, w in zip(terms, weights)}))
    return rows


def _queries(count: int, seed: int) -> list[Vector]:
    draw = np.random.default_rng(seed)
    return [
        {
            f"t{t}": float(w)
            for t, w in zip(
                draw.choice(TERMS + 20, int(draw.integers(1, 40)), replace=False),
                np.exp(draw.normal(0, 1, 40)),
            )
        }
        for _ in range(count)
    ]


def _expected(rows: list[tuple[str, Vector]], query: Vector, k: int) -> list[tuple[str, float]]:
    """Returns the best documents: sums in double in the query's order, ties by position."""
    scored = []
    for number, (name, vector) in enumerate(rows):
        total, matches = 0.0, False
        for term, weight in query.items():
            units = round(vector.get(term, 0) / UNIT)
            if units:
                total += weight * UNIT * units
                matches = True
        if matches:
            scored.append((-np.float32(total), number, name))
    return [(name, float(-score)) for score, _, name in sorted(scored)[:k]]


def _ranked(search: BowRetriever, query: Vector, k: int) -> list[tuple[str, float]]:
    docs, scores = search.rank_terms(query, k)
    return list(zip(search.index.pick_ids(docs).to_pylist(), scores.tolist()))


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, Vector]]:
    return _vectors(3_000, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, Vector]]) -> Path:
    folder = tmp_path_factory.mktemp("weighted")
    facts = index_vectors(iter(rows), folder, segment_documents=1_100, unit=UNIT)
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder


def _opened(folder: Path) -> BowIndex:
    return BowIndex.of(folder, json.loads((folder / "facts.json").read_text()))


@pytest.fixture
def index(folder: Path) -> BowIndex:
    return _opened(folder)


@pytest.mark.parametrize("k", [1, 10, 400, 5_000])
def test_the_exact_search_ranks_as_sums_in_the_querys_order(
    index: BowIndex, rows: list[tuple[str, Vector]], k: int
) -> None:
    search = BowRetriever(index)
    assert WeightedRanker.fits(index)
    for query in _queries(12, k):
        assert _ranked(search, query, k) == _expected(rows, query, k)


def test_kernels_that_are_compiled_ahead_are_those_that_are_called(index: BowIndex) -> None:
    """A signature that nobody calls would be compiled for nothing."""
    search = BowRetriever(index)
    assert search.is_weighted
    for k in (1, 5_000):  # of so many all documents are scored
        _ranked(search, {"t0": 1.0, "t8": 0.5}, k)
    for name, signature in WEIGHTED.items():
        file, function = name.split(":")
        called = getattr(importlib.import_module(file), function).signatures
        assert argument_types(signature) in called, name


def test_ties_are_ordered_as_without_pruning(index: BowIndex) -> None:
    for ties in ("docid", "external", "anserini"):
        spec = BowSearchSpec(ties=ties)
        pruned, full = BowRetriever(index, spec), BowRetriever(index, spec, pruned=False)
        for query in ({"t0": 1.0}, {"t3": 0.5, "t8": 0.5, "t40": 0.5}):
            assert _ranked(pruned, query, 25) == _ranked(full, query, 25)


def test_restricted_searches_rank_what_is_left(
    index: BowIndex, rows: list[tuple[str, Vector]]
) -> None:
    some = {name for number, (name, _) in enumerate(rows) if number % 7 == 0}
    left = [(name, vector if name in some else {}) for name, vector in rows]
    search = BowRetriever(index).only(some)
    for query in _queries(5, 77):
        assert _ranked(search, query, 20) == _expected(left, query, 20)


@pytest.mark.parametrize("reorder", ["false", "true"])
def test_deletions_appends_and_merges_keep_the_ranking(
    tmp_path: Path, rows: list[tuple[str, Vector]], reorder: str
) -> None:
    def written(name: str, part: list[tuple[str, Vector]]) -> str:
        lines = [json.dumps({"id": doc_id, "vector": vector}) for doc_id, vector in part]
        (tmp_path / name).write_text("\n".join(lines))
        return str(tmp_path / name)

    out = tmp_path / "index"
    source = written("a.jsonl", rows[:1_200])
    assert main(["convert", f"in={source}", f"out={out}", f"reorder={reorder}"]) == 0
    more = written("b.jsonl", rows[1_200:1_500])
    assert main(["index", f"out={out}", f"corpus={more}", "--append"]) == 0
    gone = {f"d{number}" for number in range(0, 1_500, 3)}
    delete_from_index(out, sorted(gone))
    left = [(name, {} if name in gone else vector) for name, vector in rows[:1_500]]

    def check() -> None:
        search = BowRetriever(BowIndex.open(out))
        assert WeightedRanker.fits(search.index)
        reordered = [each.order_N is not None for each in search.index.segments]
        assert set(reordered) == {reorder == "true"}
        for query in _queries(6, 5):
            assert _ranked(search, query, 30) == _expected(left, query, 30)

    check()
    merge_segments(out, MergeSpec(segments=1))
    check()
    assert main(["verify", str(out)]) == 0


def test_a_reordered_index_ranks_alike(tmp_path: Path, rows: list[tuple[str, Vector]]) -> None:
    facts = index_vectors(iter(rows), tmp_path, segment_documents=1_600, unit=UNIT, reordered=True)
    index = BowIndex.of(tmp_path, facts)
    assert all(each.order_N is not None and has_weights(each) for each in index.segments)
    assert weights_fault(index.segments[0]) is None
    some = {name for number, (name, _) in enumerate(rows) if number % 5}
    left = [(name, vector if name in some else {}) for name, vector in rows]
    search = BowRetriever(index)
    for query in _queries(8, 21):
        for k in (10, 3_000):
            assert _ranked(search, query, k) == _expected(rows, query, k)
        assert _ranked(search.only(some), query, 10) == _expected(left, query, 10)


def test_less_effort_misses_some_documents_and_changes_no_score(index: BowIndex) -> None:
    full = BowRetriever(index)
    recall = []
    for effort in (1.0, 0.9, 0.5):
        search = BowRetriever(index, BowSearchSpec(effort=effort))
        hits = 0
        for query in _queries(40, 9):
            best = dict(_ranked(full, query, 10))
            mine = dict(_ranked(search, query, 10))
            everything = dict(_ranked(full, query, 5_000))
            assert mine.items() <= everything.items()
            hits += len(best.keys() & mine.keys())
        recall.append(hits / 400)
    assert recall[0] == 1.0
    assert recall[0] >= recall[1] >= recall[2]
    assert recall[1] > 0.8


def test_the_files_depend_on_the_segment_alone(tmp_path: Path, folder: Path) -> None:
    original = _opened(folder).segments[0].folder
    copy = tmp_path / "segment"
    shutil.copytree(original, copy)
    before = {name: (copy / name).read_bytes() for name in NAMES}
    add_weights(copy, 1)
    assert {name: (copy / name).read_bytes() for name in NAMES} == before


@pytest.mark.parametrize("name", ["weights", "tops", "tops.groups", "tops.terms"])
def test_files_that_contradict_the_postings_are_found(
    tmp_path: Path, folder: Path, name: str
) -> None:
    copy = tmp_path / "segment"
    shutil.copytree(_opened(folder).segments[0].folder, copy)
    assert weights_fault(Segment.open(copy)) is None
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    extend(copy, [name])
    assert weights_fault(Segment.open(copy)) is not None


def test_weights_of_too_many_units_are_scored_exhaustively(tmp_path: Path) -> None:
    rows = [("a", {"x": 30_000_000.0, "y": 1.0}), ("b", {"y": 2.0, "x": 0.01})]
    facts = index_vectors(iter(rows), tmp_path, unit=UNIT)
    index = BowIndex.of(tmp_path, facts)
    assert not has_weights(index.segments[0])
    assert _ranked(BowRetriever(index), {"y": 1.0}, 5) == [("b", 2.0), ("a", 1.0)]


def test_any_number_of_candidates_has_room(tmp_path: Path) -> None:
    # All documents tie, so that the candidates outgrow the workspace several times.
    rows: Iterator[Any] = ((f"d{n}", {"x": 1.0}) for n in range(70_000))
    facts = index_vectors(rows, tmp_path)
    search = BowRetriever(BowIndex.of(tmp_path, facts), BowSearchSpec(ties="external"))
    docs, _ = search.rank_terms({"x": 2.0}, 3)
    assert search.index.pick_ids(docs).to_pylist() == ["d0", "d1", "d10"]
