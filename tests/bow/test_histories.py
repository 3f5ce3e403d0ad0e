"""Whatever was appended, deleted, replaced and merged: an index is that of its live documents.

A history is a list of steps on one index; a plain list of rows says what is live after each.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raydist import generations
from raydist.artefact import Output
from raydist.bow.build.append import append_to_index, append_vectors
from raydist.bow.build.delete import delete_from_index
from raydist.bow.build.segments import merge_segments, merge_tail, purge
from raydist.bow.exchange.vectors import index_vectors
from raydist.bow.index import BowIndex
from raydist.bow.spec import IndexSpec, MergeSpec
from raydist.manifest import read_manifest
from tests.bow.answers import WORDS, answers, make_index
from tests.bow.documents import read, splits_of

KINDS = {
    "texts": {},
    "unmerged": {"merge": False, "block_size": 8},
    "lists": {"store": False, "compress": False},
    "forward": {"store": False, "forward": True},
    "reordered": {"positions": True, "forward": True, "reorder": True, "block_size": 8},
}
"""Settings of indexes of texts; another kind is `vectors`."""

IDS = [f"d{number}" for number in range(9)]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
ROWS = st.lists(st.tuples(st.sampled_from(IDS), TEXTS), min_size=1, max_size=7)
STEP = st.one_of(
    st.tuples(st.sampled_from(["first", "last"]), ROWS),
    st.tuples(st.just("delete"), st.sets(st.sampled_from(IDS), min_size=1, max_size=4)),
    st.tuples(st.sampled_from(["merge", "purge", "tail"]), st.integers(1, 3)),
)


class History:
    """An index, and the rows that are live in it, in order."""

    def __init__(self, folder: Path, kind: str, rows: list[tuple[str, str]]) -> None:
        self.folder = folder
        self.kind = kind
        self.rows: dict[str, str] = dict(rows)
        self.steps = 0
        self.build(folder / "index")

    def build(self, folder: Path) -> Path:
        """Builds an index of the live rows."""
        rows = list(self.rows.items())
        if self.kind != "vectors":
            return make_index(_texts(rows), folder, [2], **KINDS[self.kind])
        output = Output.open(folder, kind="bow-index", config={}, inputs={})
        output.finish(**index_vectors(_vectors(rows), folder, segment_documents=3))
        return folder

    def take(self, step) -> None:
        """Does a step on the index and on the rows."""
        self.steps += 1
        index, (name, what) = self.folder / "index", step
        if name in ("merge", "purge", "tail"):
            spec = MergeSpec(segments=min(what, len(self.rows)))
            {"merge": merge_segments, "purge": purge, "tail": merge_tail}[name](index, spec)
            return
        if name == "delete":
            known = [each for each in what if each in self.rows]
            if not known or len(known) == len(self.rows):
                return
            self.rows = {key: text for key, text in self.rows.items() if key not in known}
            delete_from_index(index, known)
            return
        if self.kind == "vectors":  # a file has an id once
            what = list(dict(what).items())
        for doc_id, text in what:
            if name == "last":
                self.rows.pop(doc_id, None)
            self.rows.setdefault(doc_id, text)
        inputs = {"step": str(self.steps)}
        if self.kind == "vectors":
            append_vectors(_vectors(what), index, inputs=inputs, duplicates=name)
        else:
            spec = IndexSpec(**KINDS[self.kind], duplicates=name)
            append_to_index(splits_of(_texts(what)), read, index, spec, inputs=inputs)

    def check(self) -> None:
        """Compares the index with one that is built of the live rows."""
        index = self.folder / "index"
        fresh = self.build(self.folder / f"fresh{self.steps}")
        assert answers(index) == answers(fresh)
        mine, new = read_manifest(index), read_manifest(fresh)
        names = ["documents", "empty", "tokens", "postings"]
        assert {name: mine[name] for name in names} == {name: new[name] for name in names}
        rows = sum(segment.documents for segment in BowIndex.open(index).segments)
        assert mine.get("deleted", 0) == rows - len(self.rows)


def _texts(rows):
    return [(doc_id, "", text) for doc_id, text in rows]


def _vectors(rows):
    return [(each, {word: 0.25 * text.count(word) for word in text.split()}) for each, text in rows]


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch):
    monkeypatch.setattr(generations, "MANY", 2)


def run(place: Path, kind: str, rows, steps, *, every_step: bool) -> None:
    history = History(place, kind, [(doc_id, text) for doc_id, text in rows])
    for step in steps:
        history.take(step)
        if every_step:
            history.check()
    history.check()


HEALTH = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
QUICK = settings(max_examples=5, suppress_health_check=HEALTH)


@pytest.mark.parametrize("kind", [*KINDS, "vectors"])
@QUICK
@given(rows=ROWS, steps=st.lists(STEP, min_size=2, max_size=5))
def test_an_index_equals_one_that_is_built_of_its_live_documents(
    tmp_path_factory, kind, rows, steps
):
    run(tmp_path_factory.mktemp("history"), kind, rows, steps, every_step=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "vectors"])
@settings(max_examples=30, suppress_health_check=HEALTH)
@given(rows=ROWS, steps=st.lists(STEP, min_size=4, max_size=12))
def test_after_each_step_of_a_long_history_too(tmp_path_factory, kind, rows, steps):
    run(tmp_path_factory.mktemp("history"), kind, rows, steps, every_step=True)
