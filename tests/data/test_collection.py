"""Collections of the layouts in use: BEIR's, the hub's, one folder a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raydist as rd
from raydist.data.collection import find_collection
from raydist.errors import ConfigError, DataError
from raydist.records import Query

DOCUMENTS = '{"_id": "d1", "title": "", "text": "a heron"}\n{"_id": "d2", "text": "a canal"}\n'
QUERIES = '{"_id": "q1", "text": "herons"}\n{"_id": "q2", "text": "canals"}\n'
HEADER = "query-id\tcorpus-id\tscore\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A folder of two documents, two queries, and a judged query in each of two splits."""
    write(tmp_path / "corpus.jsonl", DOCUMENTS)
    write(tmp_path / "queries.jsonl", QUERIES)
    write(tmp_path / "qrels/test.tsv", f"{HEADER}q1\td1\t1\n")
    write(tmp_path / "qrels/train.tsv", f"{HEADER}q2\td2\t2\n")
    return tmp_path


def test_a_split_has_the_queries_that_it_judges(beir: Path) -> None:
    queries, qrels = find_collection(beir).judged()
    assert (queries, qrels) == ([Query("q1", "herons")], {"q1": {"d1": 1}})
    train = rd.collection(beir, "train")
    assert train.corpus == str(beir / "corpus.jsonl")
    assert (train.queries, train.qrels) == ({"q2": "canals"}, {"q2": {"d2": 2}})
    assert repr(train) == f"Collection('{beir} (train)': 1 query, 1 judgement)"


def test_folders_of_the_hub_are_shards_of_parquet(tmp_path: Path) -> None:
    ids = pa.table({"_id": ["d1", "d2"], "title": ["", ""], "text": ["a heron", "a canal"]})
    queries = pa.table({"_id": ["q1"], "text": ["herons"]})
    grades = pa.table({"query-id": ["q1", "q1"], "corpus-id": ["d1", "d2"], "score": [1, 0]})
    shards = {
        "corpus/corpus-00000-of-00002": ids.slice(0, 1),
        "corpus/corpus-00001-of-00002": ids.slice(1),
        "queries/queries-00000-of-00001": queries,
        "data/test-00000-of-00001": grades,
        "data/train-00000-of-00001": grades,
    }
    for name, table in shards.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / f"{name}.parquet")
    collection = rd.collection(tmp_path)
    assert [Path(each).name[:12] for each in collection.corpus] == ["corpus-00000", "corpus-00001"]
    assert collection.qrels == {"q1": {"d1": 1, "d2": 0}}
    assert len(rd.index(collection.corpus, tmp_path / "idx")) == 2


def test_a_folder_of_a_split_may_have_its_queries_and_qrels(beir: Path) -> None:
    write(beir / "dev/queries.jsonl", '{"_id": "q9", "text": "boats"}\n')
    write(beir / "dev/qrels.txt", "q9 0 d2 1\n")
    assert rd.collection(beir, "dev").queries == {"q9": "boats"}


def test_qrels_of_no_split_are_those_of_the_test_split_alone(beir: Path) -> None:
    (beir / "qrels/test.tsv").unlink()
    write(beir / "qrels.txt", "q2 0 d1 1\n")
    assert rd.collection(beir).qrels == {"q2": {"d1": 1}}
    with pytest.raises(DataError, match=r"no qrels/dev.tsv; split = 'dev': expected one of train$"):
        rd.collection(beir, "dev")


def test_other_file_systems_and_packed_files_are_read(beir: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        memory.pipe_file(f"/beir/{name}", (beir / name).read_bytes())
    collection = rd.collection("memory://beir")
    assert collection.corpus == "memory://beir/corpus.jsonl"
    assert collection.queries == {"q1": "herons"}


def test_a_part_that_is_missing_is_named(beir: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder; a collection is a folder with"):
        rd.collection(beir / "nowhere")
    write(beir / "qrels/test.tsv", f"{HEADER}q7\td1\t1\n")
    with pytest.raises(DataError, match="no query is judged"):
        rd.collection(beir)
    (beir / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"no queries\.jsonl"):
        rd.collection(beir)


@pytest.mark.parametrize("place", [None, 3, "", ["a", "b"]])
def test_what_is_no_place_is_named(place: Any) -> None:
    with pytest.raises(ConfigError, match=r"place = .*: expected a folder, its URI"):
        rd.collection(place)


@pytest.mark.parametrize("split", [3, ""])
def test_what_is_no_split_is_named(beir: Path, split: Any) -> None:
    with pytest.raises(ConfigError, match=r"split = .*: expected a name, such as test"):
        rd.collection(beir, split)


@pytest.mark.collections
def test_real_collections_have_the_counts_of_their_sources(collections: Path) -> None:
    assert repr(rd.collection(collections / "nfcorpus")).endswith(
        "nfcorpus (test)': 323 queries, 12,334 judgements)"
    )
    assert len(rd.collection(collections / "nfcorpus", "dev").queries) == 324
    assert len(rd.collection(collections / "cacm").queries) == 52
