"""Whatever was appended, deleted, replaced and merged: answers are those of the live documents.

A history is a list of steps on one index; a plain dictionary says what is live after each. The
index that it is compared with was built at once, by the same centroids.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raydist import generations
from raydist.artefact import Output
from raydist.checks import Report
from raydist.dense.changes import merge_into, merge_tail
from raydist.errors import DataError, JobError
from raydist.generations import purge_runs
from raydist.late.build import build_addition
from raydist.late.changes import LATE
from raydist.late.format import LAYOUT, Codec, Segment
from raydist.late.search import LateIndex
from raydist.late.spec import LateSearchSpec
from raydist.late.verify import verify_late
from raydist.manifest import read_manifest
from tests.late.tokens import build, documents, queries_of, splits_of, worker

DOCS = documents(60)
IDS = [f"d{number}" for number in range(14)]
ROWS = st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 59)), min_size=1, max_size=9)
STEP = st.one_of(
    st.tuples(st.sampled_from(["first", "last"]), ROWS),
    st.tuples(st.just("delete"), st.sets(st.sampled_from(IDS), min_size=1, max_size=4)),
    st.tuples(st.sampled_from(["merge", "purge", "tail"]), st.integers(1, 3)),
)
QUERIES = queries_of(DOCS, 4)
SPECS = (
    LateSearchSpec(exact=True),
    LateSearchSpec(probes=1000, candidates=5),
    LateSearchSpec(probes=2, candidates=3),
)
Row = tuple[str, int]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of d0 to d3."""
    folder = tmp_path_factory.mktemp("late") / "index"
    output = Output.open(folder, kind="multivector-index", config={}, inputs={})
    facts = build(DOCS[:4], folder, centroids=32)
    shutil.rmtree(folder / ".work")
    output.finish(**facts, rejected=0, blank_id=None)
    return folder


def segment(rows: list[Row], index: Path, side: Path) -> dict[str, Any]:
    docs, names = [DOCS[seed] for _, seed in rows], [name for name, _ in rows]
    facts = build_addition(splits_of(docs, 3), partial(worker, docs, names), index, side)
    return {**facts, "rejected": 0, "blank_id": None}


def append(rows: list[Row], folder: Path, key: str, duplicates: str = "error") -> Any:
    build = partial(segment, rows, folder)
    return LATE.append(
        build, folder, key=[key], inputs={"corpus": key}, duplicates=duplicates, work=[key]
    )


def answers(index: LateIndex) -> list[Any]:
    found = []
    for spec in SPECS:
        for scores, numbers in index.search(QUERIES, 4, spec):
            found.append((scores.tobytes(), index.documents.pick_ids(numbers).to_pylist()))
    live = index.documents.at_numbers(np.arange(len(index.documents)))
    return [*found, [index.vectors(int(number)).tobytes() for number in live]]


def opened(folder: Path) -> LateIndex:
    return LateIndex.open(folder, read_manifest(folder))


def fresh(live: dict[str, int], folder: Path, side: Path) -> LateIndex:
    side.mkdir()
    segment(list(live.items()), folder, side)
    return LateIndex(Codec.open(folder), [Segment.open(side)])


def check(folder: Path) -> list[str]:
    report = Report()
    verify_late(folder, read_manifest(folder), report)
    assert report.faults == []
    return report.pending


@settings(max_examples=12, suppress_health_check=[*HealthCheck], deadline=None)
@given(steps=st.lists(STEP, min_size=2, max_size=6))
def test_answers_equal_those_of_the_live_documents_indexed_at_once(base, tmp_path_factory, steps):
    place = tmp_path_factory.mktemp("history")
    folder = place / "index"
    shutil.copytree(base, folder)
    live = {f"d{number}": number for number in range(4)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generations, "MANY", 2)
        for number, (name, what) in enumerate(steps):
            if name in ("merge", "purge", "tail"):
                into = merge_into(min(what, len(live)))
                LATE.merge(folder, {"merge": into, "purge": purge_runs, "tail": merge_tail}[name])
            elif name == "delete":
                known = [each for each in what if each in live]
                if known and len(known) < len(live):
                    live = {key: seed for key, seed in live.items() if key not in known}
                    LATE.delete(folder, known)
            else:
                for doc_id, seed in what:
                    if name == "last":
                        live.pop(doc_id, None)
                    live.setdefault(doc_id, seed)
                append(what, folder, str(number), duplicates=name)
    expected = answers(fresh(live, folder, place / "fresh"))
    assert answers(opened(folder)) == expected
    assert read_manifest(folder)["documents"] == len(live)
    check(folder)
    LATE.merge(folder, merge_into(1))
    assert answers(opened(folder)) == expected and check(folder) == []
    assert LAYOUT.leftovers(folder) == []


def test_a_killed_append_leaves_the_old_index_and_is_continued(base, tmp_path, monkeypatch):
    folder = tmp_path / "index"
    shutil.copytree(base, folder)
    before, rows = answers(opened(folder)), [("e1", 7), ("e2", 8), ("e3", 9), ("e4", 10)]

    def killed(*_: object) -> None:
        raise JobError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("raydist.late.build.assemble", killed)
        with pytest.raises(JobError, match="killed"):
            append(rows, folder, "e")
    assert answers(opened(folder)) == before
    assert [line for line in check(folder) if "leftover" in line]
    (side,) = folder.glob(".append-*")
    assert len(sorted(side.rglob("*.done"))) == 4  # two splits, embedded and coded
    monkeypatch.setattr("tests.late.tokens.TokenWriter", killed)  # nothing is embedded again
    assert append(rows, folder, "e")["documents"] == 8
    assert append(rows, folder, "e") is None
    assert check(folder) == []


def test_ids_that_are_there_are_refused_and_unknown_ones_named(base, tmp_path):
    folder = tmp_path / "index"
    shutil.copytree(base, folder)
    with pytest.raises(DataError, match="'d2'"):
        append([("d2", 5)], folder, "again")
    with pytest.raises(DataError, match="'nobody'"):
        LATE.delete(folder, ["d1", "nobody"])
    with pytest.raises(DataError, match="no document would be left"):
        LATE.delete(folder, ["d0", "d1", "d2", "d3"])
    assert read_manifest(folder)["documents"] == 4
    assert LATE.delete(folder, ["d1"])["deleted"] == 1
    assert LATE.delete(folder, ["d1"]) is None
    assert [line for line in check(folder) if "removes 1 deleted document" in line]
