"""Metadata in an index: through its life, in filters and as an order."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import raydist as rd
from raydist.artefact import Output
from raydist.bow.build.append import append_to_index
from raydist.bow.build.create import build_index
from raydist.bow.build.delete import delete_from_index
from raydist.bow.build.generation import LAYOUT
from raydist.bow.build.segments import merge_segments
from raydist.bow.feedback.retriever import FeedbackRetriever
from raydist.bow.feedback.spec import Bm25Prf
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import Bm25, BowSearchSpec, F2Exp, IndexSpec, MergeSpec, Qld, QueryLikelihood
from raydist.bow.verify import verify_index
from raydist.checks import Report
from raydist.cli import main
from raydist.data.columns import Column, table_of
from raydist.data.filters import passing
from raydist.data.readers import read_run
from raydist.errors import ArtifactError, ConfigError, DataError
from raydist.kernels.bits import Bits
from raydist.manifest import read_manifest
from tests.bow.documents import contents

WORDS = [2 * letter for letter in "zbcdefgh"]
COLUMNS = (Column("year", "int64"), Column("source", "string"), Column("price", "float64"))
Row = tuple[Any, ...]


def some_rows(count: int, seed: int = 0) -> list[Row]:
    draw = random.Random(seed)
    return [
        (
            f"d{seed}-{i}",
            "",
            " ".join(draw.choices(WORDS, weights=[9, 8, 7, 5, 4, 3, 2, 1], k=draw.randint(1, 9))),
            draw.choice([None, *range(2000, 2010)]),
            draw.choice(["x", "y", "with, 'quotes'", None]),
            draw.choice([None, draw.random(), 1.0]),
        )
        for i in range(count)
    ]


def read(split: Any, rejects: object) -> Iterator[pa.Table]:
    columns = [Column(*each) for each in split["columns"]]
    for start in range(0, len(split["rows"]), 7):
        yield table_of(split["rows"][start : start + 7], columns)


def splits_of(
    rows: Sequence[Row], cuts: Sequence[int] = (), columns: Sequence[Column] = COLUMNS
) -> list[dict[str, Any]]:
    places = [0, *cuts, len(rows)]
    return [
        {"path": f"part{i}", "rows": [list(r) for r in rows[a:z]], "columns": [*map(list, columns)]}
        for i, (a, z) in enumerate(itertools.pairwise(places))
    ]


def build(
    folder: Path, rows: Sequence[Row], cuts: Sequence[int] = (), *, merge: bool = True, **more: Any
) -> BowIndex:
    output = Output.open(folder, kind="bow-index", config={}, inputs={"corpus": "x"})
    spec = IndexSpec(merge=merge)
    output.finish(**build_index(splits_of(rows, cuts, **more), read, folder, spec))
    LAYOUT.clean(folder)
    return BowIndex.open(folder)


def append(folder: Path, rows: Sequence[Row], columns: Sequence[Column] = COLUMNS) -> BowIndex:
    append_to_index(
        splits_of(rows, (), columns),
        read,
        folder,
        IndexSpec(),
        inputs={"corpus": rows[0][0]},
        columns=[each.name for each in columns],
    )
    return BowIndex.open(folder)


def live_rows(index: BowIndex) -> list[tuple[Any, ...]]:
    assert index.columns is not None
    flags = np.concatenate([each.live_N for each in index.segments])
    rows = index.columns.filter(pa.array(flags))
    return list(zip(index.doc_ids.to_pylist(), *(column.to_pylist() for column in rows.columns)))


def without_texts(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    return [(row[0], *row[3:]) for row in rows]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return some_rows(600)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> BowIndex:
    """Three segments, a tenth of whose documents are deleted."""
    folder = tmp_path_factory.mktemp("columns") / "idx"
    build(folder, rows, (200, 450), merge=False)
    delete_from_index(folder, [row[0] for row in rows[::10]])
    return BowIndex.open(folder)


def test_columns_are_those_of_the_documents_whatever_becomes_of_the_index(
    tmp_path: Path, rows: list[Row]
) -> None:
    whole = build(tmp_path / "whole", rows[:90])
    parts = build(tmp_path / "parts", rows[:90], (13, 40, 41))
    assert live_rows(whole) == without_texts(rows[:90])
    segments = (each.segments[0].folder for each in (whole, parts))
    assert len({str(contents(folder)) for folder in segments}) == 1
    more = some_rows(40, seed=1)
    folder = tmp_path / "parts"
    append(folder, more)
    delete_from_index(folder, [rows[3][0], more[7][0]])
    left = [row for row in [*rows[:90], *more] if row not in (rows[3], more[7])]
    assert live_rows(BowIndex.open(folder)) == without_texts(left)
    for segments_now in (1, 3, 1):
        merge_segments(folder, MergeSpec(segments=segments_now))
        index = BowIndex.open(folder, verify=True)
        assert len(index.segments) == segments_now
        assert live_rows(index) == without_texts(left)
    rebuilt = build(tmp_path / "rebuilt", left)
    same = (contents(each.segments[0].folder) for each in (index, rebuilt))
    assert next(same) == next(same)
    assert read_manifest(folder)["columns"] == {
        "year": "int64",
        "source": "string",
        "price": "float64",
    }


def test_an_index_without_columns_has_no_trace_of_them(tmp_path: Path, rows: list[Row]) -> None:
    index = build(tmp_path, [row[:3] for row in rows[:20]], columns=())
    assert index.columns is None
    assert "columns" not in read_manifest(tmp_path)
    assert "columns" not in index.segments[0].files.header["files"]


def test_columns_grow_from_int64_to_float64_and_else_keep_their_types(
    tmp_path: Path, rows: list[Row]
) -> None:
    build(tmp_path, [row[:4] for row in rows[:9]], columns=COLUMNS[:1])
    with pytest.raises(ConfigError, match=r"corpus\.columns"):
        append(tmp_path, [row[:3] for row in some_rows(4, 2)], ())
    words = [(f"w{i}", "", "a", "word") for i in range(3)]
    with pytest.raises(DataError, match=r"'year' has several types .*the index.*what is added"):
        append(tmp_path, words, [Column("year", "string")])
    halves = [(f"h{i}", "", "a", i / 2) for i in range(3)]
    grown = append(tmp_path, halves, [Column("year", "float64")])
    assert live_rows(grown) == [*without_texts([r[:4] for r in rows[:9]]), *without_texts(halves)]
    assert read_manifest(tmp_path)["columns"] == {"year": "float64"}
    merge_segments(tmp_path, MergeSpec())
    merged = BowIndex.open(tmp_path)
    assert live_rows(merged) == live_rows(grown)


def test_files_of_different_types_are_named(tmp_path: Path) -> None:
    splits = [
        *splits_of([("a", "", "a", 1)], columns=[Column("year", "int64")]),
        *splits_of([("b", "", "b", "x")], columns=[Column("year", "string")]),
    ]
    with pytest.raises(DataError, match=r"'year' has several types .*corpus\.columns=year:string"):
        build_index(splits, read, tmp_path, IndexSpec())


def test_damaged_columns_are_detected_and_verified(tmp_path: Path, rows: list[Row]) -> None:
    index = build(tmp_path, rows[:50])
    path = index.segments[0].folder / "columns"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="columns is corrupted"):
        BowRetriever(BowIndex.open(tmp_path), BowSearchSpec(filter="year > 1"))
    report = Report()
    verify_index(tmp_path, read_manifest(tmp_path), report)
    assert any("columns" in fault for fault in report.faults)


FILTERS = {
    "year >= 2005": lambda y, s, p: y is not None and y >= 2005,
    "2002 <= year < 2004": lambda y, s, p: y is not None and 2002 <= y < 2004,
    "year == 2003 and source == 'x'": lambda y, s, p: y == 2003 and s == "x",
    "not (year > 2001)": lambda y, s, p: y is not None and y <= 2001,
    "year is null or price < .5": lambda y, s, p: y is None or (p is not None and p < 0.5),
    "year is not null and not source in ['x', 'y']": lambda y, s, p: (
        y is not None and s is not None and s not in "xy"
    ),
    "source not in ('y', null)": lambda y, s, p: s in ("x", "with, 'quotes'"),
    "source == \"with, 'quotes'\"": lambda y, s, p: s == "with, 'quotes'",
    "year in [2001, 2002.0, 2002.5]": lambda y, s, p: y in (2001, 2002),
    "price == 1 and -1 < year": lambda y, s, p: p == 1 and y is not None,
    'column("year") != 2000': lambda y, s, p: y is not None and y != 2000,
    "year > 2000 or true": lambda y, s, p: True,
    "price > year": lambda y, s, p: False,
}


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_means_what_it_says(rows: list[Row], index: BowIndex, text: str) -> None:
    expected = [bool(FILTERS[text](*row[3:])) for row in rows]
    assert passing(text, index.columns).tolist() == expected


@pytest.mark.parametrize(
    "search",
    [
        BowSearchSpec(),
        BowSearchSpec(ties="external"),
        BowSearchSpec(scoring=Bm25(variant="bm25+")),
        BowSearchSpec(scoring=Bm25(lengths="exact")),
        BowSearchSpec(scoring=QueryLikelihood()),
        BowSearchSpec(scoring=Qld()),
        BowSearchSpec(scoring=F2Exp()),
    ],
    ids=str,
)
def test_a_filtered_search_is_an_exhaustive_one_less_what_does_not_pass(
    index: BowIndex, rows: list[Row], search: BowSearchSpec
) -> None:
    every = BowRetriever(index, search, pruned=False)
    for text in ("year >= 2005", "source == 'x'", "year == 2003 and price == 1", "year > 3000"):
        flags = passing(text, index.columns)
        filtered = BowRetriever(index, replace(search, filter=text))
        for query in ("zz", "zz hh", "cc dd ee gg", "hh hh bb"):
            docs, scores = every.rank(query, len(rows))
            for k in (1, 10, 1000):
                best, best_scores = filtered.rank(query, k)
                assert best.tolist() == docs[flags[docs]][:k].tolist()
                assert best_scores.tolist() == scores[flags[docs]][:k].tolist()


def test_filters_add_to_lists_of_ids(index: BowIndex, rows: list[Row]) -> None:
    ids = [row[0] for row in rows[1:100] if row[0] in index.doc_ids.to_pylist()]
    search = BowRetriever(index).only(ids).where("year >= 2005").where("source == 'x'")
    docs, _ = search.rank("zz bb cc", 1000)
    wanted = [i for i, r in enumerate(rows) if r[0] in ids and (r[3] or 0) >= 2005 and r[4] == "x"]
    assert sorted(docs.tolist()) == [
        i for i in wanted if set(rows[i][2].split()) & {"zz", "bb", "cc"}
    ]


def test_feedback_learns_from_documents_that_pass(index: BowIndex) -> None:
    plain = FeedbackRetriever(BowRetriever(index), Bm25Prf(docs=3, terms=5))
    filtered = plain.where("year >= 2005")
    first = BowRetriever(index, BowSearchSpec(filter="year >= 2005"))
    assert filtered.expand("zz hh") == FeedbackRetriever(first, plain.feedback).expand("zz hh")
    assert filtered.expand("zz hh") != plain.expand("zz hh")
    docs, _ = filtered.rank("zz hh", 100)
    assert passing("year >= 2005", index.columns)[docs].all()


@pytest.mark.parametrize("sort", ["year", "-year", "price", "-source"])
def test_sorting_gives_the_first_by_a_column_and_ties_by_score(
    index: BowIndex, rows: list[Row], sort: str
) -> None:
    column = {"year": 3, "source": 4, "price": 5}[sort.lstrip("-")]
    every, every_scores = BowRetriever(index).rank("zz hh", len(rows))
    score_of = dict(zip(every.tolist(), every_scores.tolist()))
    known = [doc for doc in score_of if rows[doc][column] is not None]
    unknown = [doc for doc in score_of if rows[doc][column] is None]
    for part in (known, unknown):
        part.sort(key=lambda doc: (-score_of[doc], doc))
    known.sort(key=lambda doc: rows[doc][column], reverse=sort.startswith("-"))
    docs, scores = BowRetriever(index, BowSearchSpec(sort=sort)).rank("zz hh", 1000)
    assert docs.tolist() == known + unknown
    assert scores.tolist() == list(range(len(docs), 0, -1))
    few, _ = BowRetriever(index, BowSearchSpec(sort=sort, filter="year > 2003")).rank("zz hh", 9)
    flags = passing("year > 2003", index.columns)
    assert few.tolist() == [doc for doc in docs.tolist() if flags[doc]][:9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yeer >= 2000", r"character 1: no column 'yeer'; the index has year, source, price"),
        ("year >= 2000 and scource == 1", "character 18: no column 'scource'"),
        ("year >= 'x'", "'year' is int64, which does not compare with 'x'"),
        ("source > 3", "'source' is string, which does not compare with 3"),
        ("year in 2000", r"expected a list, such as \['x', 'y'\]"),
        ("year in [2000, 'x']", "character 16: 'year' is int64"),
        ("year == null", "expected is null, or is not null"),
        ("year", "expected a condition"),
        ("year + 1 > 3", "expected a column or a value"),
        ("2020-01-01 < year", "character 6: put dates in quotes"),
        ("__import__('os').system('true')", "there are no functions"),
        ("year.real > 3", "expected a column or a value"),
        ("[year for year in []]", "expected a column or a value"),
        ("(lambda: 1)() == 1", "there are no functions"),
        ("year >= ", "invalid syntax"),
        ("", "invalid syntax"),
        ("a\0b", "null bytes|cannot be read"),
        ("(" * 300 + "year" + ")" * 300 + " > 1", "too many nested parentheses"),
        ("not " * 2000 + "year > 1", "nested too deeply|cannot be read"),
        ("year > 1 or " * 2000 + "year > 1", "expected at most 10,000"),
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused_with_its_place(
    index: BowIndex, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        passing(text, index.columns)


def test_filters_and_orders_of_an_index_without_columns_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no columns; build it with corpus\.columns=NAMES"):
        passing("year > 1", None)


def test_times_compare_with_dates_in_quotes() -> None:
    times = pa.table({"day": pa.array([0, 86_400_000_000, None], pa.timestamp("us"))})
    assert passing("day >= '1970-01-02'", times).tolist() == [False, True, False]
    assert passing("'1970-01-01T23:00-01:00' == day", times).tolist() == [False, True, False]
    assert passing("day in ['1970-01-01', '2020-01-01']", times).tolist() == [True, False, False]
    with pytest.raises(ConfigError, match="'day' is a time; expected a date"):
        passing("day > 'soon'", times)


def test_the_verbs_store_filter_and_sort(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f'{{"id": "d{i}", "text": "heron {"x" * i}", "year": {2015 + i}}}' for i in range(9)]
    Path("c.jsonl").write_text("\n".join(lines))
    Path("q.tsv").write_text("q\theron\n")
    assert main(["index", "corpus=c.jsonl", "corpus.columns=year", "out=idx"]) == 0
    assert main(["index", "corpus=c.jsonl", "corpus.columns=year", "out=idx"]) == 0  # built
    search = ["search", "index=idx", "queries=q.tsv"]
    assert main([*search, "filter=year >= 2020", "sort=-year", "k=3", "out=run.txt"]) == 0
    run = Path("run.txt").read_text().split("\n")[:-1]
    assert [line.split()[2] for line in run] == ["d8", "d7", "d6"]
    assert main([*search, "sort=-year", "k=1", "out=run.jsonl"]) == 0
    line = json.loads(Path("run.jsonl").read_text())
    assert (line["doc_id"], line["columns"]) == ("d8", {"year": 2023})
    assert next(iter(read_run("run.jsonl")))[1] == ["d8"]
    assert main([*search, "syntax=lucene", "filter=year < 2017", "sort=-year", "out=two.txt"]) == 0
    assert [each.split()[2] for each in Path("two.txt").read_text().splitlines()] == ["d1", "d0"]
    capfd.readouterr()
    assert main([*search, "sort=month"]) == 2
    assert "sort = 'month': no column 'month'; the index has year" in capfd.readouterr().err
    assert main(["index", "corpus=c.jsonl", "out=idx", "--append"]) == 2
    assert "corpus.columns" in capfd.readouterr().err


def test_python_filters_and_sorts_as_the_verb_does(tmp_path: Path) -> None:
    days = [f"d{i}\therons\t{2015 + i}\t{2015 + i}-06-01" for i in range(9)]
    (tmp_path / "c.tsv").write_text("\n".join(["id\ttext\tyear\tday", *days]))
    corpus = {"path": [str(tmp_path / "c.tsv")], "columns": ["year", "day"]}
    index = rd.index(corpus, tmp_path / "idx")
    answers = {
        "d8 d7 d6": index.search("heron", 3, filter="day >= '2020-01-01'", sort="-year"),
        "d0 d1": index.search({"q": "heron"}, 9, filter="year < 2017")["q"],
        "d1 d5": index.bm25(filter="year in [2016, 2020]").search("heron"),
        "d0": index.scored("qld", sort="day").search("heron", 1),
    }
    for wanted, hits in answers.items():
        assert " ".join(hit.id for hit in hits) == wanted


def test_allowed_documents_are_live_ones(index: BowIndex) -> None:
    search = BowRetriever(index, BowSearchSpec(filter="year > 0"))
    for segment, allowed in zip(index.segments, search._allowed):
        assert isinstance(allowed, Bits) and not (allowed.flags & ~segment.live_N).any()


def test_columns_live_on_object_stores(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, years in (("a", (2018, 2020)), ("b", (2021, 2023))):
        rows = ({"id": f"d{y}", "text": "heron", "year": y} for y in range(*years))
        Path(f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    Path("gone.txt").write_text("d2021\n")
    Path("q.tsv").write_text("q\theron\n")
    index = ["index", "corpus.columns=year", f"out={s3}/idx"]
    assert main([*index, "corpus=a.jsonl"]) == 0
    assert main([*index, "corpus=b.jsonl", "--append"]) == 0
    assert main(["index", "delete=gone.txt", f"out={s3}/idx"]) == 0
    assert main(["merge", f"out={s3}/idx"]) == 0
    assert main(["verify", f"{s3}/idx"]) == 0
    search = ["search", f"index={s3}/idx", "queries=q.tsv", "filter=year >= 2019", "sort=-year"]
    assert main([*search, "out=run.txt"]) == 0
    assert [line.split()[2] for line in Path("run.txt").read_text().splitlines()] == [
        "d2022",
        "d2019",
    ]
