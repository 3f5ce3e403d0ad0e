"""A Dataset of Ray is indexed and embedded as the file of the same rows is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydist import datasets
from raydist.cli import main
from raydist.data import materialise
from raydist.errors import ConfigError, DataError
from raydist.manifest import read_manifest
from tests.outputs import results

pytestmark = pytest.mark.ray

ROWS = [
    {"docno": f"d{i:03}", "text": f"word{i % 7} common {i}", "title": f"t{i}", "other": i}
    for i in range(100)
]


@pytest.fixture
def dataset(ray_cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Rows in seven blocks, which become files of thirty rows."""
    import ray.data

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(materialise, "_ROWS", 30)
    return ray.data.from_items(ROWS, override_num_blocks=7)


def write_corpus(rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), "corpus.parquet", row_group_size=30)


FILE = ["corpus=corpus.parquet", "corpus.fields.id=docno", "out=file"]


def test_an_index_of_a_dataset_is_that_of_the_file(
    dataset: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(ROWS)
    assert main(["index", *FILE]) == 0
    datasets.index(dataset, "rows", corpus={"fields": {"id": "docno"}})
    assert results(Path("rows")) == results(Path("file"))
    assert read_manifest("rows")["documents"] == 100
    assert not list(Path().glob(".rows*"))
    capsys.readouterr()
    datasets.index(dataset.repartition(3), "rows", corpus={"fields": {"id": "docno"}})
    assert "already built" in capsys.readouterr().err
    datasets.index(
        dataset.map(lambda row: {**row, "docno": f"new-{row['docno']}"}),
        "rows",
        append=True,
        corpus={"fields": {"id": "docno"}},
    )
    assert read_manifest("rows")["documents"] == 200


def test_vectors_of_a_dataset_are_those_of_the_file(dataset: Any, tiny_bert: Path) -> None:
    write_corpus(ROWS[:40])
    assert main(["embed", *FILE, f"model={tiny_bert}"]) == 0
    rows = dataset.limit(40).select_columns(["docno", "title", "text"])
    datasets.embed(rows, "rows", model=str(tiny_bert), corpus={"fields": {"id": "docno"}})
    from raydist.dense.retriever import DenseRetriever
    from raydist.records import Query

    queries = [Query("q", "word3 common")]
    found = [DenseRetriever.open(Path(out)).search(queries, 40) for out in ("file", "rows")]
    assert found[0].table.equals(found[1].table)


def test_mistakes_are_said_before_and_leave_nothing(dataset: Any) -> None:
    with pytest.raises(ConfigError, match="block_sise: unknown key"):
        datasets.index(dataset, "rows", block_sise=3)
    with pytest.raises(DataError, match=r"the Dataset: no .*body"):
        datasets.index(dataset, "rows", corpus={"fields": {"text": "body"}})
    with pytest.raises(DataError, match="the Dataset has no rows"):
        datasets.index(dataset.limit(0), "rows")
    assert list(Path().iterdir()) == []


def test_rows_of_an_object_store_go_there_and_back(dataset: Any, s3: str) -> None:
    datasets.index(dataset, f"{s3}/idx", corpus={"fields": {"id": "docno"}})
    from raydist.stores.objects import Objects

    names = Objects(s3).names()
    assert "idx/manifest.json" in names and not [n for n in names if n.startswith(".idx.dataset")]
