"""Training data in Parquet and Arrow, against the same samples in lines of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydist.data.samples.prepare import prepare
from raydist.data.samples.sample_set import SampleSet
from raydist.errors import DataError
from raydist.records import Sample

FLAG: list[dict[str, Any]] = [
    {"query": "q one", "pos": ["p"], "neg": ["n", "m"], "pos_scores": [2.0], "neg_scores": [1, 0]},
    {"query": "q zwölf", "pos": ["p", "o"], "neg": ["n"], "pos_scores": [2, 1], "neg_scores": [0]},
]
TRIPLETS = [{"anchor": f"q{i}", "positive": f"p{i}", "negative": f"n{i}"} for i in range(3)]
SEVERAL = [
    {"query": "q", "positive": "p", "negatives": ["n", "m"]},
    {"query": "r", "positive": "o", "negatives": ["l"]},
]
NUMBERED = [{"anchor": "q", "positive": "p", "negative_1": "n", "negative_2": "m"}]
PASSAGES = [
    {
        "query_id": "1",
        "query": "q",
        "positive_passages": [{"docid": "d1", "title": "t", "text": "x"}],
        "negative_passages": [{"docid": "d2", "title": "", "text": "y"}],
    }
]


def samples(path: Path, folder: Path) -> list[Sample]:
    prepare(path, folder)
    read = SampleSet(folder)
    return [read[row] for row in range(len(read))]


def lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("records", [FLAG, TRIPLETS, SEVERAL, NUMBERED, PASSAGES])
def test_rows_of_tables_are_the_samples_of_the_same_lines(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    table = pa.Table.from_pylist(records)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as out:
        out.write_table(table)
    expected = samples(lines(tmp_path / "a.jsonl", records), tmp_path / "lines")
    assert len(expected) == len(records)
    for name in ("a.parquet", "a.arrow"):
        assert samples(tmp_path / name, tmp_path / f"of {name}") == expected


def test_columns_of_sentence_transformers_are_query_positive_and_negatives(tmp_path: Path) -> None:
    (sample,) = samples(lines(tmp_path / "a.jsonl", NUMBERED), tmp_path / "d")
    assert (sample.query, sample.documents, sample.positives) == ("q", ("p", "n", "m"), 1)
    first, _ = samples(lines(tmp_path / "b.jsonl", SEVERAL), tmp_path / "e")
    assert (first.query, first.documents, first.positives) == ("q", ("p", "n", "m"), 1)


def test_a_folder_that_datasets_saved_is_training_data(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(TRIPLETS).save_to_disk(tmp_path / "saved")
    read = samples(tmp_path / "saved", tmp_path / "d")
    assert [s.query for s in read] == ["q0", "q1", "q2"]
    assert read[2].documents == ("p2", "n2")


def test_a_table_of_no_training_data_is_named_with_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["1"], "text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet.*line 1.*found the keys id, text") as caught:
        prepare(tmp_path / "a.parquet", tmp_path / "d")
    assert "UTF-8" not in str(caught.value)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"b\.parquet: not a Parquet file, or damaged"):
        prepare(tmp_path / "b.parquet", tmp_path / "e")
