"""Reordered indexes: postings are smaller, every answer is that of an index in its own order."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raydist.bow.build import bisection
from raydist.bow.build import reorder as reordering
from raydist.bow.build.append import append_to_index
from raydist.bow.build.bisection import Forward, bisected
from raydist.bow.build.delete import delete_from_index
from raydist.bow.build.segments import merge_segments
from raydist.bow.format.files import seal
from raydist.bow.format.segment import Segment
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import BowSearchSpec, IndexSpec, MergeSpec
from raydist.bow.structured.retriever import StructuredRetriever
from raydist.bow.verify import verify_index
from raydist.checks import Report
from raydist.cli import main
from raydist.errors import ConfigError
from raydist.manifest import read_manifest
from tests.bow.answers import WORDS, answers, make_index
from tests.bow.documents import Row, contents, postings_of, read, splits_of

TOPICS = 8
WAYS = [
    ["k=20", "scoring.kind=qld"],
    ["k=9", "scoring.lengths=exact", "ties=anserini"],
    ["k=1000"],
    ["k=40", "ties=external", "threads=2"],
    ["k=30", "feedback=rm3"],
    ["k=30", "feedback=axiom"],
    ["k=30", "scoring.sdm=true"],
    ["k=30", "filter=year >= 2004 and source == 'x'"],
    ["k=30", "sort=-year"],
]
STRUCTURED = ['"t1x1 t1x2"~3 cat', "+cow -bird", "cat AND (t2x1 OR t3x1^2)", '"cat dog"']


def rows_of(count: int, seed: int = 0) -> list[Row]:
    """Documents of a few topics in random order, many of them alike, some without terms."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        topic = draw.randrange(TOPICS)
        words = [f"t{topic}x{int(draw.paretovariate(1)) % 30}" for _ in range(draw.randint(0, 12))]
        words += draw.choices(WORDS, k=draw.randint(0, 3) if i % 9 else 0)
        rows.append((f"d{i}", "", " ".join(words if i % 40 else [])))
    return rows


def of(folder: Path) -> Segment:
    (name,) = read_manifest(folder)["segments"]
    return Segment.open(folder / name)


def faults(folder: Path) -> list[str]:
    report = Report()
    verify_index(folder, read_manifest(folder), report)
    return report.faults


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An index with all that one can have, in its own order and reordered."""
    folder = tmp_path_factory.mktemp("pair")
    lines = []
    for i, (doc_id, _, text) in enumerate(rows_of(1500)):
        record = {"id": doc_id, "text": text, "year": 2000 + i * 7 % 10, "source": "xyz"[i % 3]}
        lines.append(json.dumps(record) + "\n")
    (folder / "corpus.jsonl").write_text("".join(lines))
    words = ["index", f"corpus={folder}/corpus.jsonl", "corpus.columns=year,source", "forward=true"]
    words += ["positions=true", "block_size=16"]
    assert main([*words, f"out={folder}/plain"]) == 0
    assert main([*words, f"out={folder}/reordered", "reorder=true"]) == 0
    return folder / "plain", folder / "reordered"


def test_postings_are_smaller_and_all_else_is_the_same(pair: tuple[Path, Path]) -> None:
    plain, reordered = map(of, pair)
    assert plain.order_N is None and reordered.order_N is not None
    assert sorted(reordered.order_N.tolist()) == list(range(1500)) != reordered.order_N.tolist()
    was, now = (each.files.header["files"] for each in (plain, reordered))
    assert now["postings"]["bytes"] < 0.95 * was["postings"]["bytes"]
    assert now.keys() - was.keys() == {"order"} and was.keys() <= now.keys()
    same = was.keys() - {"postings", "positions", "positions.groups", "positions.sizes", "norms"}
    same -= {"terms", "terms.groups"}  # they have the postings' sizes
    assert {name: was[name] for name in same} == {name: now[name] for name in same}
    assert [plain.files.header["version"], reordered.files.header["version"]] == [3, 3]
    assert not faults(pair[1])


def test_everything_that_is_asked_has_the_same_answer(pair: tuple[Path, Path]) -> None:
    queries = [*WORDS, "cat dog", "t1x1 t1x2", "t2x1 cat t3x2 t3x2", "t5x7 bird unheard"]
    assert answers(pair[1], queries) == answers(pair[0], queries)


@pytest.mark.parametrize("words", WAYS, ids=" ".join)
def test_runs_are_the_same(pair: tuple[Path, Path], tmp_path: Path, words: list[str]) -> None:
    queries = tmp_path / "queries.tsv"
    queries.write_text("1\tt1x1 t2x1 cat\n2\tt3x1 t3x2 bird\n3\tcow\n4\tnothing\n")
    runs = []
    for folder in pair:
        out = tmp_path / f"{folder.name}.txt"
        assert main(["search", f"index={folder}", f"queries={queries}", *words, f"out={out}"]) == 0
        runs.append(out.read_bytes())
    assert runs[0] == runs[1] != b""


def test_structured_queries_and_explanations_are_the_same(pair: tuple[Path, Path]) -> None:
    plain, reordered = (
        StructuredRetriever(BowRetriever(BowIndex.open(each), BowSearchSpec())) for each in pair
    )
    for text in STRUCTURED:
        docs, scores = plain.rank(text, 50)
        others, same = reordered.rank(text, 50)
        assert len(docs) and docs.tolist() == others.tolist() and scores.tolist() == same.tolist()
        (doc_id,) = plain.index.pick_ids(docs[:1]).to_pylist()
        assert plain.explain(text, doc_id) == reordered.explain(text, doc_id)
        words = text.replace('"', "")
        both = (BowRetriever(each.index).explain(words, doc_id) for each in (plain, reordered))
        assert next(both) == next(both)


def test_what_is_written_for_other_programs_is_the_same(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in ("ciff", "bmp"):
        for folder in pair:
            out = tmp_path / f"{folder.name}.{name}"
            assert main(["convert", f"in={folder}", f"out={out}"]) == 0
        files = [(tmp_path / f"{folder.name}.{name}").read_bytes() for folder in pair]
        assert files[0] == files[1]


@pytest.mark.parametrize("options", [{}, {"compress": False, "positions": True}, {"merge": False}])
def test_appended_deleted_and_merged_it_is_the_reordered_index_of_the_rest(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    rows, more = rows_of(200), rows_of(90, seed=1)
    more = [(f"more-{name}", title, text) for name, title, text in more]
    options = {"reorder": True, "block_size": 8, **options}
    index = make_index(rows, tmp_path / "index", [60], **options)
    spec = IndexSpec(**options)
    assert append_to_index(splits_of(more), read, index, spec, inputs={"more": "1"})
    gone = [f"d{i}" for i in range(0, 200, 3)] + ["more-d7"]
    delete_from_index(index, gone)
    left = [row for row in rows + more if row[0] not in gone]
    plain = make_index(left, tmp_path / "plain", **{**options, "reorder": False, "merge": True})
    assert answers(index) == answers(plain)
    merge_segments(index, MergeSpec())
    fresh = make_index(left, tmp_path / "fresh", **{**options, "merge": True})
    mine, new = (contents(folder / "segments") for folder in (index, fresh))
    assert list(mine.values()) == list(new.values()) and len(mine) > 5
    assert answers(index) == answers(plain) and not faults(index)


def test_an_append_in_another_order_is_refused(tmp_path: Path) -> None:
    index = make_index(rows_of(20), tmp_path / "index", reorder=True)
    with pytest.raises(ConfigError, match=r"reorder: true -> false"):
        append_to_index(splits_of(rows_of(5, 1)), read, index, IndexSpec(), inputs={"more": "1"})


def test_the_bytes_are_the_same_for_any_splits_memory_and_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(700)
    monkeypatch.setattr(bisection, "LARGE", 100)
    one = make_index(rows, tmp_path / "one", reorder=True, forward=True)
    threads = {"workers": 0, "memory_per_worker": 128 << 20}
    two = make_index(rows, tmp_path / "two", [100, 350], reorder=True, forward=True, **threads)
    assert contents(one / "segments") == contents(two / "segments")
    monkeypatch.undo()
    three = make_index(rows, tmp_path / "three", [7], reorder=True, forward=True)
    assert contents(one / "segments") == contents(three / "segments")


def forward_of(lists: list[list[int]]) -> Forward:
    starts_N1 = np.cumsum([0, *map(len, lists)])
    terms_P = np.array([term for each in lists for term in each], np.uint32)
    return Forward(starts_N1, terms_P, int(terms_P.max(initial=0)) + 1)


def test_documents_of_one_topic_become_neighbours() -> None:
    draw = random.Random(3)
    topics = [draw.randrange(4) for _ in range(1024)]
    lists = [sorted(draw.sample(range(20 * t, 20 * t + 20), 8)) for t in topics]
    order_N = bisected(forward_of(lists), 1)
    assert sorted(order_N.tolist()) == list(range(1024))
    changes = sum(topics[a] != topics[b] for a, b in itertools.pairwise(order_N))
    assert changes <= 20  # of 1,023; about 768 before


def test_an_order_does_not_depend_on_threads_nor_on_where_it_was_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bisection, "LARGE", 64)
    draw = random.Random(4)
    lists = [sorted({int(draw.paretovariate(0.5)) % 300 for _ in range(9)}) for _ in range(1000)]
    kept: list[tuple[int, list[int]]] = []
    keep: Callable[..., None] = lambda level, order_N: kept.append((level, order_N.tolist()))  # noqa: E731
    whole = bisected(forward_of(lists), 1, keep=keep).tolist()
    assert [level for level, _ in kept] == [1, 2, 3, 4]
    assert bisected(forward_of(lists), 3).tolist() == whole
    for level, order in kept:
        order_N = np.array(order, np.uint32)
        assert bisected(forward_of(lists), 2, order_N=order_N, levels=level).tolist() == whole
    monkeypatch.undo()
    assert bisected(forward_of(lists), 1).tolist() == whole


def test_a_restart_continues_the_order_of_its_segment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bisection, "LARGE", 64)
    rows = rows_of(300)
    wanted = of(make_index(rows, tmp_path / "wanted", reorder=True)).folder

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    folder, other = (
        of(make_index(each, tmp_path / name)).folder
        for name, each in (
            ("index", rows),
            ("other", rows_of(300, seed=9)),
        )
    )
    kept = tmp_path / "kept"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(bisection._Work, "finish", kill)
        reordering.reorder(folder, kept=kept)
    levels = np.fromfile(kept, np.uint32)[1]
    assert levels == 3 and Segment.open(folder).order_N is None
    begun: list[int] = []
    original = bisected

    def watched(*args: Any, levels: int, **options: Any) -> Any:
        begun.append(levels)
        return original(*args, levels=levels, **options)

    monkeypatch.setattr(reordering, "bisected", watched)
    reordering.reorder(other, kept=kept)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(bisection._Work, "finish", kill)
        reordering.reorder(folder, kept=kept)
    reordering.reorder(folder, kept=kept)
    assert begun == [0, 0, 3]
    assert contents(folder) == contents(wanted)


def test_few_documents_without_terms_and_one_alone_can_be_reordered(tmp_path: Path) -> None:
    for rows in ([("a", "", "")], [("a", "", "cat")], [("a", "", ""), ("b", "", "cat dog")]):
        folder = make_index(rows, tmp_path / f"{len(rows)}{rows[-1][2]}", reorder=True)
        assert not faults(folder)
        assert BowIndex.open(folder).doc_ids.to_pylist() == [row[0] for row in rows]


def test_a_wrong_order_is_a_fault(tmp_path: Path) -> None:
    folder = make_index(rows_of(300), tmp_path / "index", reorder=True, forward=True)
    segment = of(folder)
    assert segment.order_N is not None
    order_N = segment.order_N.copy()
    wrong = {
        "leaves some out": order_N[[0, *range(299)]],
        "has other terms in the forward": order_N[::-1],
    }
    header = segment.files.header
    about = {k: v for k, v in header.items() if k not in ("files", "crc32", "format", "version")}
    for message, values in wrong.items():
        values.tofile(segment.folder / "order")
        seal(segment.folder, list(header["files"]), about)
        assert any(message in fault for fault in faults(folder)), message


def test_postings_of_raw_and_packed_segments_come_in_the_documents_own_order(
    tmp_path: Path,
) -> None:
    rows = rows_of(150)
    for compress in (True, False):
        folders = [
            make_index(rows, tmp_path / f"{compress}{each}", compress=compress, reorder=each)
            for each in (True, False)
        ]
        reordered, plain = (postings_of([of(folder).folder]) for folder in folders)
        assert reordered == plain
        assert isinstance(of(folders[0]).terms, pa.LargeBinaryArray)
