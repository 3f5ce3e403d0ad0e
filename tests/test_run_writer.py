"""Run files that are written part by part; pyarrow, gzip and ir_measures read them back."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydist import run_writer
from raydist.data.readers import read_run
from raydist.errors import DataError
from raydist.records import RUN, Document, Run
from raydist.run_writer import first_blank, group_starts, open_run, trec_lines

PARTS = [
    Run.from_lists([("q1", ["a", "b", "c"], [3, 2, 1]), ("q2", ["a"], [1])]).table,
    Run.from_lists([]).table,
    Run.from_lists([("q2", ["b"], [0.5]), ("q3", ["a", "b"], [2, 1])]).table,
]
LINES = (
    "q1 Q0 a 1 3 t\nq1 Q0 b 2 2 t\nq1 Q0 c 3 1 t\nq2 Q0 a 1 1 t\nq2 Q0 b 2 0.5 t\n"
    "q3 Q0 a 1 2 t\nq3 Q0 b 2 1 t\n"
)


@pytest.mark.parametrize("rows", [1, 2, 3, 1 << 16])
def test_ranks_go_on_where_a_query_is_cut(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(run_writer, "_ROWS", rows)
    out = io.StringIO()
    write = trec_lines(out.write, "t")
    for part in PARTS:
        write(part)
    assert out.getvalue() == LINES


@pytest.mark.parametrize("name", ["run.txt", "run.txt.gz", "run.parquet"])
def test_parts_make_one_file_that_appears_when_it_is_whole(tmp_path: Path, name: str) -> None:
    file = tmp_path / "new" / name
    with open_run(file, RUN, "t") as write:
        for part in PARTS:
            write(part)
            assert not file.exists()
    if name.endswith(".parquet"):
        table = pq.read_table(file)
        assert table.schema.metadata[b"tag"] == b"t"
        assert table.replace_schema_metadata(None).equals(pa.concat_tables(PARTS))
        return
    data = file.read_bytes()
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    assert text == LINES
    scored = [row.doc_id for row in ir_measures.read_trec_run(text)]
    assert scored == pa.concat_tables(PARTS)["doc_id"].to_pylist()


def test_the_same_run_makes_the_same_bytes(tmp_path: Path) -> None:
    run = Run(pa.concat_tables(PARTS), "t")
    for name in ("a.txt.gz", "b.txt.gz"):
        run.write(tmp_path / name)
    assert (tmp_path / "a.txt.gz").read_bytes() == (tmp_path / "b.txt.gz").read_bytes()


def test_a_part_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "run.txt"
    file.write_text("old")
    bad = Run.from_lists([("q9", ["a\vb"], [1])]).table
    with pytest.raises(DataError, match="cannot carry"), open_run(file, RUN, "t") as write:
        write(PARTS[0])
        write(bad)
    assert file.read_text() == "old" and [each.name for each in tmp_path.iterdir()] == ["run.txt"]


def test_groups_are_those_of_the_rows_whatever_the_chunks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = np.sort(rng.integers(0, 5, rng.integers(0, 12))).astype(str)
        cuts = np.sort(rng.integers(0, len(values) + 1, 3))
        column = pa.chunked_array([pa.array(p, pa.string()) for p in np.split(values, cuts)])
        changed = [i for i in range(len(values)) if i == 0 or values[i] != values[i - 1]]
        assert group_starts(column).tolist() == changed


def test_a_run_of_many_small_tables_is_searched_like_one() -> None:
    many = [(f"q{i}", [f"d{j}" for j in range(3)], [3, 2, 1]) for i in range(300)]
    whole = Run.from_lists(many)
    parts = Run(pa.concat_tables([Run.from_lists([each]).table for each in many]))
    assert parts.table["doc_id"].num_chunks == 1
    assert [(q, d) for q, d, _ in parts] == [(q, d) for q, d, _ in whole]
    assert parts.top(2).table.equals(whole.top(2).table)


def test_blank_ids_are_found_in_slices_and_in_both_kinds_of_strings() -> None:
    for kind in (pa.string(), pa.large_string()):
        column = pa.array(["a b", "c", "dé", "e\u00a0f", "g\vh", "i", ""], kind)
        assert first_blank(column) == "a b"
        assert first_blank(column.slice(1, 3)) is None  # a blank of Unicode separates nothing
        assert first_blank(pa.chunked_array([column.slice(1, 2), column.slice(3, 2)])) == "g\vh"
        assert first_blank(column.slice(5)) == ""
        assert first_blank(column.slice(0, 0)) is None


# --- Forms ----------------------------------------------------------------------------------------

ODD = Run.from_lists(
    [
        ('q "1", one', ["a b", 'c,"d"', "e\tf"], [1e-5, 1e-5, -3.25]),
        ("é", ["\n", "0"], [np.float32(0.1), 0]),
    ]
)


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.jsonl", "r.parquet", "r.pq", "r.csv.gz"])
def test_a_run_of_any_form_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    ODD.write(tmp_path / name)
    assert read_run(tmp_path / name).table.equals(ODD.table)


def test_tables_and_objects_have_ranks_and_the_texts_that_are_known(tmp_path: Path) -> None:
    class Texts:
        def get(self, doc_ids: Sequence[str], /) -> list[Document | None]:
            known = {"a": Document("a", 'a "heron"\n', "Birds"), "b": Document("b", "fish")}
            return [known.get(doc_id) for doc_id in doc_ids]

    run = Run(pa.concat_tables(PARTS))
    run.write(tmp_path / "r.jsonl", Texts())
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    first = {"query_id": "q1", "doc_id": "a", "rank": 1, "score": 3, "title": "Birds"}
    assert rows[0] == first | {"text": 'a "heron"\n'}
    assert rows[2] == {"query_id": "q1", "doc_id": "c", "rank": 3, "score": 1}
    assert [row["rank"] for row in rows] == [1, 2, 3, 1, 2, 1, 2]
    run.write(tmp_path / "r.tsv")
    with open(tmp_path / "r.tsv", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert table[3] == {"query_id": "q2", "doc_id": "a", "rank": "1", "score": "1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qid,docno,score\nq,d\n", "line 2: 2 columns, expected 3"),
        ("qid,docno,score\nq,d,inf\n", "line 2: expected a finite number as score, not 'inf'"),
        ("qid,docno,score\nq,,1\n", "line 2: expected ids"),
        ("qid,docno,score\nq,d,1\nq,e,2\n", "sort=true orders a run"),
        ('qid,docno,score\nq,"d\n', "line 2: unexpected end of data"),
    ],
)
def test_a_bad_line_of_a_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_run(tmp_path / "r.csv")
