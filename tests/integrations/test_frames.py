"""Polars, pandas and datasets as inputs, and runs as their frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raydist as rd

FRAMES: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "polars, lazy": lambda columns: pl.DataFrame(columns).lazy(),
    "datasets": datasets.Dataset.from_dict,
    "datasets, streamed": lambda columns: datasets.Dataset.from_dict(columns).to_iterable_dataset(),
}
DOCUMENTS = {"id": ["d1", "d2"], "title": ["", "Canals"], "text": ["a heron", "boats and herons"]}
NAMES = [("query_id", "doc_id"), ("qid", "docno"), ("q_id", "doc_id"), ("query-id", "corpus-id")]


@pytest.mark.parametrize("form", FRAMES)
def test_a_frame_is_each_input_of_a_search_and_its_evaluation(form: str, tmp_path: Path) -> None:
    frame = FRAMES[form]
    index = rd.index(frame(DOCUMENTS), tmp_path / "idx")
    assert index["d2"].title == "Canals" and len(index) == 2
    run = index.search(frame({"qid": ["q1"], "query": ["boats"]}), k=5)
    assert run["q1"][0].id == "d2"
    for query, document in NAMES:
        qrels = frame({query: ["q1"], document: ["d2"], "score": [1]})
        rows = frame({query: ["q1"] * 2, document: ["d1", "d2"], "score": [2.0, 1.0]})
        result = rd.evaluate(rows, qrels, measures=["RR"], tracking="none")
        assert result["run", "RR"] == 0.5


def test_categories_are_the_texts_that_they_stand_for(tmp_path: Path) -> None:
    frame = pl.DataFrame(DOCUMENTS).with_columns(
        pl.col("id").cast(pl.Categorical), pl.col("title").cast(pl.Enum(["", "Canals"]))
    )
    pandas = pd.DataFrame(DOCUMENTS).astype({"id": "category", "title": "category"})
    for number, each in enumerate((frame, pandas)):
        index = rd.index(each, tmp_path / f"idx{number}")
        assert index["d2"].title == "Canals" and index["d1"].text == "a heron"


def test_a_series_and_a_dictionary_of_splits_are_named(tmp_path: Path) -> None:
    with pytest.raises(rd.DataError, match=r"^corpus \(Series\): is a single column; give a Data"):
        rd.index(pl.Series("text", ["a heron"]), tmp_path / "idx")
    splits = datasets.DatasetDict(train=datasets.Dataset.from_dict(DOCUMENTS))
    with pytest.raises(rd.ConfigError, match="DatasetDict: give one of its splits: train"):
        rd.index(splits, tmp_path / "idx")


@pytest.mark.parametrize("form", ["polars", "datasets"])
def test_samples_train_from_a_frame(form: str, tiny_bert: Path, tmp_path: Path) -> None:
    samples = {
        "query": ["the query", "the vector"],
        "pos": [["a query of an index"], ["a vector of a model"]],
        "neg": [["the index", "score"], ["the model"]],
    }
    keys = {"model": str(tiny_bert), "steps": 1, "batch_size": 2, "tracking": "none"}
    run = rd.train(FRAMES[form](samples), out=tmp_path / "run", **keys)
    assert run.metrics["step"].to_list() == [1]


def test_runs_hits_and_comparisons_are_frames_of_both_libraries(index: rd.Index) -> None:
    run = index.search({"q1": "fish", "q2": "boats"}, k=5)
    result = rd.evaluate(run, {"q1": {"d1": 1}}, measures=["RR"], tracking="none")
    for each in (run, run["q1"], index.search("fish"), result):
        assert_frame_equal(each.to_polars(), pl.from_pandas(each.to_pandas()))
    assert run.to_polars().schema == {
        "query_id": pl.String,
        "doc_id": pl.String,
        "score": pl.Float32,
    }
    back = rd.evaluate(run.to_polars(), {"q1": {"d1": 1}}, measures=["RR"], tracking="none")
    assert back["run", "RR"] == result["run", "RR"]
