"""Metadata columns of documents, in every format."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydist.data.columns import common_schema, named_schema
from raydist.data.readers import read_documents
from raydist.data.rejects import Rejects
from raydist.data.spec import CorpusSource
from raydist.errors import DataError

ROWS: list[dict[str, Any]] = [
    {
        "id": f"d{i}",
        "text": f"the text of {i}",
        "year": None if i % 7 == 0 else 1990 + i,
        "source": ["x", "two words", "ü"][i % 3],
        "price": i / 2,
        "day": f"2020-01-{i + 1:02d}",
        "free": i % 2 == 0,
    }
    for i in range(30)
]
COLUMNS = ("year", "source", "price", "day:timestamp", "free")


def table(path: Path, *columns: str, **options: Any) -> pa.Table:
    source = CorpusSource(path=(str(path),), columns=columns, **options)
    read = pa.concat_tables(read_documents(source))
    names = [name.removeprefix("column:") for name in read.column_names]
    return read.rename_columns(names)


def lines(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "corpus.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write(path: Path) -> None:
    cells = [{k: "" if v is None else str(v) for k, v in row.items()} for row in ROWS]
    if path.suffix == ".jsonl":
        lines(path.parent, *ROWS)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    elif path.suffix == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as out:
            rows = csv.DictWriter(out, list(ROWS[0]))
            rows.writeheader()
            rows.writerows(cells)
    elif path.suffix == ".tsv":
        whole = ["\t".join(ROWS[0]), *("\t".join(row.values()) for row in cells)]
        path.write_text("\n".join(whole) + "\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        whole_table = pa.Table.from_pylist(ROWS)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, whole_table.schema) as out:
            out.write_table(whole_table)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet", "arrow"])
def test_all_formats_give_the_same_columns_of_the_same_types(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"corpus.{suffix}"
    write(path)
    read = table(path, *COLUMNS)
    kinds = [pa.int64(), pa.large_string(), pa.float64(), pa.timestamp("us"), pa.bool_()]
    assert read.schema.types[3:] == kinds
    assert read["doc_id"].to_pylist() == [row["id"] for row in ROWS]
    for name in ("year", "source", "price", "free"):
        assert read[name].to_pylist() == [row[name] for row in ROWS]
    assert read["day"].to_pylist() == [datetime.fromisoformat(row["day"]) for row in ROWS]


def test_columns_may_be_what_is_read_anyway(tmp_path: Path) -> None:
    path = lines(tmp_path, {"id": 7, "title": "a", "text": "b"}, {"id": 8, "text": "c"})
    read = table(path, "id", "title", "text")
    assert read.to_pydict()["id"] == [7, 8]
    rows = pa.table(read.columns[3:], ["id", "title", "text"]).to_pylist()
    assert rows == [{"id": 7, "title": "a", "text": "b"}, {"id": 8, "title": None, "text": "c"}]


def test_numbers_of_both_kinds_are_floats_and_other_mixtures_texts(tmp_path: Path) -> None:
    values = [(1, 1), (2.5, "b"), (None, True), (3, 2.50)]
    rows = ({"id": f"d{i}", "text": "t", "n": n, "m": m} for i, (n, m) in enumerate(values))
    read = table(lines(tmp_path, *rows), "n", "m")
    assert read["n"].to_pylist() == [1.0, 2.5, None, 3.0]
    assert read["m"].to_pylist() == ["1", "b", "true", "2.5"]


def test_a_value_that_spells_one_of_the_type_is_read_as_it(tmp_path: Path) -> None:
    rows = ({"id": f"d{i}", "text": "t", "n": n} for i, n in enumerate(["7", 8, "-9"]))
    assert table(lines(tmp_path, *rows), "n:int64")["n"].to_pylist() == [7, 8, -9]


def test_a_value_of_another_type_names_file_line_column_and_remedy(tmp_path: Path) -> None:
    first = [{"id": f"d{i}", "text": "t", "year": i} for i in range(9000)]
    path = lines(tmp_path, *first, {"id": "odd", "text": "t", "year": "unknown"})
    with pytest.raises(DataError, match=r"line 9001.*int64 in the column 'year', not 'unknown'"):
        table(path, "year")
    with pytest.raises(DataError, match=r"corpus\.columns=year:string"):
        table(path, "year")
    assert table(path, "year:string")["year"].to_pylist()[-2:] == ["8999", "unknown"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_rows_whose_values_do_not_fit_can_be_skipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"corpus.{suffix}"
    write(path)
    path.write_text(path.read_text("utf-8").replace("2000", "late"), encoding="utf-8")
    rejects = Rejects()
    source = CorpusSource(path=(str(path),), columns=("year:int64", "source"), on_bad="skip")
    if suffix == "jsonl":
        path.write_text(path.read_text("utf-8").replace(": late", ': "late"'), encoding="utf-8")
    read = pa.concat_tables(read_documents(source, rejects=rejects))
    assert "d10" not in read["doc_id"].to_pylist() and read.num_rows == 29
    assert rejects.count == 1 and "'year', not 'late'" in rejects.first
    assert read["column:year"].to_pylist() == [r["year"] for r in ROWS if r["year"] != 2000]


def test_texts_of_tables_that_look_like_codes_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_text("id,text,zip,on\n1,a,01234,2020-01-01T10:00:00+02:00\n2,b,99,\n")
    read = table(path, "zip", "on")
    assert read["zip"].to_pylist() == ["01234", "99"]
    assert read["on"].to_pylist() == [datetime(2020, 1, 1, 8), None]


def test_parquet_times_become_utc_and_categories_texts(tmp_path: Path) -> None:
    time = datetime(2020, 5, 1, 12, tzinfo=UTC)
    columns = {
        "id": ["a", "b"],
        "text": ["t", "u"],
        "when": pa.array([time, None], pa.timestamp("ns", "America/New_York")),
        "kind": pa.array(["x", "y"]).dictionary_encode(),
        "small": pa.array([1, None], pa.uint8()),
    }
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    read = table(tmp_path / "c.parquet", "when", "kind", "small")
    assert read["when"].to_pylist() == [datetime(2020, 5, 1, 12), None]
    assert read["kind"].to_pylist() == ["x", "y"] and read["small"].to_pylist() == [1, None]


def test_columns_that_are_missing_or_no_values_are_named(tmp_path: Path) -> None:
    path = lines(tmp_path, {"id": "a", "text": "t", "tags": ["x"]})
    with pytest.raises(DataError, match=r"no column 'year'; it has id, text, tags"):
        table(path, "year")
    with pytest.raises(DataError, match=r"string in the column 'tags', not 'a list'"):
        table(path, "tags")
    assert table(path, "year:int64")["year"].to_pylist() == [None]
    (tmp_path / "c.tsv").write_text("1\ta\n")
    with pytest.raises(DataError, match="without a header"):
        table(tmp_path / "c.tsv", "year")
    (tmp_path / "c.trec").write_text("<DOC><DOCNO>1</DOCNO><TEXT>a</TEXT></DOC>\n")
    with pytest.raises(DataError, match="TREC documents have none"):
        table(tmp_path / "c.trec", "year")


def test_a_name_is_set_once() -> None:
    with pytest.raises(ValueError, match="a name occurs twice"):
        CorpusSource(path=("c.jsonl",), columns=("year", "year:int64"))


def test_parts_have_a_common_type_or_are_named() -> None:
    whole, real, text = ({"year": kind} for kind in ("int64", "float64", "string"))
    assert common_schema([named_schema(whole), named_schema(real)]) == named_schema(real)
    with pytest.raises(DataError, match=r"'year' has several types \(int64 in a; string in b\)"):
        common_schema([named_schema(whole), named_schema(text)], ["a", "b"])
