"""The data room in a few lines: read, keep texts, mine, and load samples by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydist.data.readers import read_documents, read_qrels, read_queries, read_split
from raydist.data.samples.mining import mine, record
from raydist.data.samples.prepare import prepare
from raydist.data.samples.sample_set import SampleSet
from raydist.data.spec import CorpusSource, MiningSpec
from raydist.data.splits import plan_splits
from raydist.data.store.reader import DocumentStore
from raydist.records import Query, Run


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A BEIR folder of four documents and one judged query."""
    documents = [{"_id": f"d{i}", "title": "", "text": f"text {i}"} for i in range(4)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "a question"}')
    (tmp_path / "qrels.txt").write_text("q 0 d1 1\n")
    return tmp_path


def test_a_corpus_is_read_as_tables_whole_or_split_by_split(collection: Path) -> None:
    corpus = collection / "corpus.jsonl"
    (table,) = read_documents(corpus)
    assert table.column_names == ["doc_id", "title", "text"] and table.num_rows == 4
    splits = plan_splits(corpus, split_bytes=100)
    assert sum(part.num_rows for split in splits for part in read_split(split)) == 4
    assert read_queries(collection) == [Query("q", "a question")]
    assert read_qrels(collection) == {"q": {"d1": 1}}


def test_what_can_be_set_of_a_source_is_its_spec(collection: Path) -> None:
    corpus = collection / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + "\nnot JSON\n")
    (table,) = read_documents(CorpusSource(path=corpus, on_bad="skip"))
    assert table.num_rows == 4


def test_texts_are_found_by_id_in_a_store(collection: Path) -> None:
    tables = read_documents(collection / "corpus.jsonl")
    with DocumentStore.create(tables, collection / "store") as store:
        document, absent = store.get(["d2", "d9"])
    assert document is not None and document.text == "text 2" and absent is None


def test_a_run_and_judgements_become_training_samples(collection: Path) -> None:
    store = DocumentStore.create(read_documents(collection / "corpus.jsonl"), collection / "store")
    run = Run.from_lists([("q", ["d0", "d1", "d2"], [3.0, 2.0, 1.0])])
    (mined,) = mine(
        run,
        {query.query_id: query.text for query in read_queries(collection)},
        read_qrels(collection),
        lambda ids: [document and document.contents for document in store.get(ids)],
        MiningSpec(negatives=2),
    )
    assert mined.positive_ids == ["d1"] and mined.negative_ids == ["d0", "d2"]

    (collection / "train.jsonl").write_text(json.dumps(record(mined, teacher=False)))
    facts = prepare(collection / "train.jsonl", collection / "prepared")
    assert facts.rows == 1 and not facts.scores
    sample = SampleSet(collection / "prepared")[0]
    assert sample.query == "a question" and sample.documents == ("text 1", "text 0", "text 2")
