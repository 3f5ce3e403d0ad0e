"""MTEB's own evaluation of models of raydist, against that of raydist on the same task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import mteb
import numpy as np
import pytest
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType

import raydist as rd
from raydist.integrations.mteb import RaydistEncoder, RaydistReranker, RaydistSearch, collection

MEASURES = {
    "ndcg_at_10": "nDCG@10",
    "map_at_1000": "AP@1000",
    "mrr_at_10": "RR@10",
    "recall_at_100": "R@100",
    "precision_at_5": "P@5",
}


def task_of(name: str, folder: Path, top_ranked: Any = None) -> AbsTaskRetrieval:
    """A task of MTEB over the files of a collection."""
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    source = rd.collection(folder)

    class Local(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=name,
            description=f"{name}, from a folder",
            dataset={"path": f"local/{name}", "revision": "1"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, *_: Any, **__: Any) -> None:
            documents = [{"title": "", **row} for row in rows]
            queries = [{"id": query, "text": text} for query, text in source.queries.items()]
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": datasets.Dataset.from_list(documents),
                        "queries": datasets.Dataset.from_list(queries),
                        "relevant_docs": {q: dict(judged) for q, judged in source.qrels.items()},
                        "top_ranked": top_ranked,
                    }
                }
            }
            self.data_loaded = True

    return Local()


def scores_of(model: Any, task: AbsTaskRetrieval) -> dict[str, float]:
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    values = result.task_results[0].scores["test"][0]
    return {name: values[name] for name in MEASURES}


def ours(stage: Any, source: rd.Collection) -> dict[str, float]:
    result = rd.compare(
        {"run": stage}, source.queries, source.qrels, list(MEASURES.values()), tracking="none"
    )
    return {name: result["run", own] for name, own in MEASURES.items()}


@pytest.fixture(scope="module")
def small(cacm: rd.Collection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five queries of CACM, and 40 of its documents: those that are relevant, and others."""
    folder = tmp_path_factory.mktemp("small")
    queries = dict(list(cacm.queries.items())[:5])
    qrels = {query: cacm.qrels[query] for query in queries}
    wanted = {doc for judged in qrels.values() for doc in judged}
    lines = Path(cacm.corpus).read_text().splitlines()
    chosen = sorted(lines, key=lambda line: json.loads(line)["id"] not in wanted)[:40]
    (folder / "corpus.jsonl").write_text("\n".join(chosen))
    rows = [json.dumps({"id": query, "text": text}) for query, text in queries.items()]
    (folder / "queries.jsonl").write_text("\n".join(rows))
    grades = [
        f"{q} 0 {doc} {grade}" for q, judged in qrels.items() for doc, grade in judged.items()
    ]
    (folder / "qrels.txt").write_text("\n".join(grades))
    return folder


@pytest.mark.collections
def test_mteb_measures_bm25_as_raydist_does(
    collections: Path, cacm: rd.Collection, cacm_index: rd.Index
) -> None:
    measured = scores_of(RaydistSearch(), task_of("Cacm", collections / "cacm"))
    assert measured == pytest.approx(ours(cacm_index, cacm), abs=6e-6)  # MTEB rounds to five digits
    assert measured["ndcg_at_10"] == 0.46052


@pytest.mark.collections
def test_mteb_measures_an_encoder_as_raydist_does(
    small: Path, minilm: Path, tmp_path: Path
) -> None:
    task = task_of("Small", small)
    measured = scores_of(RaydistEncoder(rd.Encoder(minilm, device="cpu")), task)
    source = collection(task)
    assert source.queries == rd.collection(small).queries
    assert source.qrels == rd.collection(small).qrels
    vectors = rd.embed(source.corpus, tmp_path / "vec", model=minilm)
    assert measured == pytest.approx(ours(vectors, source), abs=6e-6)
    assert measured["ndcg_at_10"] > 0.5


@pytest.mark.collections
def test_mteb_measures_a_reranker_of_earlier_results_as_raydist_does(small: Path) -> None:
    source = rd.collection(small)
    index = rd.index(source.corpus, small / "idx")
    run = index.search(source.queries, k=20)
    candidates = {query: docs for query, docs, _ in run}
    english = {"kind": "bm25", "analyzer": "english"}
    task = task_of("Ranked", small, candidates)
    measured = scores_of(RaydistReranker(english), task)
    assert measured == pytest.approx(
        ours(index.bm25() % 20 >> rd.rerank(english), source), abs=6e-6
    )
    among = scores_of(RaydistSearch(), task_of("Ranked", small, candidates))
    assert among == pytest.approx(ours(index.bm25() % 20, source), abs=6e-6)


def test_queries_get_the_instruction_for_queries_and_titles_stand_before_texts(
    tiny_bert: Path,
) -> None:
    encoder = rd.Encoder(tiny_bert, query_instruction="query: ", device="cpu")
    model = RaydistEncoder(encoder, name="raydist/tiny")
    batches: list[dict[str, list[str]]] = [
        {"text": ["Index a corpus"], "title": ["Index"], "body": ["a corpus"]},
        {"text": ["a score"], "title": [""], "body": ["a score"]},
    ]
    queries = model.encode(batches, prompt_type=PromptType.query)
    documents = model.encode(batches, prompt_type=PromptType.document)
    others = model.encode([{"text": ["a score"]}])
    assert np.array_equal(queries, encoder.encode_queries(["Index a corpus", "a score"]))
    assert np.array_equal(documents, encoder.encode_documents(["Index\na corpus", "a score"]))
    assert np.allclose(others, documents[1:], atol=1e-6)
    assert not np.allclose(queries, documents, atol=1e-3)
    assert np.allclose(model.similarity(queries, documents), queries @ documents.T, atol=1e-5)
    pairs = model.similarity_pairwise(queries, documents)
    assert np.allclose(pairs, (queries * documents).sum(axis=1), atol=1e-5)


def test_results_are_kept_by_what_makes_them(tiny_bert: Path) -> None:
    def revision(**keys: Any) -> str:
        encoder = rd.Encoder(tiny_bert, device="cpu", **keys)
        return str(RaydistEncoder(encoder).mteb_model_meta.revision)

    assert revision() == revision() != revision(pooling="mean")
    bm25 = RaydistSearch().mteb_model_meta
    assert bm25.revision != RaydistSearch(k1=1.2).mteb_model_meta.revision
    assert (bm25.name, bm25.model_type) == ("raydist/bm25", ["sparse"])
    with pytest.raises(rd.ConfigError, match="revision: required with stages"):
        RaydistSearch(lambda index: index.ql())


def test_instructions_follow_queries_and_conversations_are_refused() -> None:
    model = RaydistSearch(lambda index: index.bm25() % 1, name="raydist/first", revision="1")
    rows = [{"id": "a", "text": "a heron", "url": "x"}, {"id": "b", "text": "a boat", "url": "y"}]
    queries = [{"id": "q", "text": "canal", "instruction": "boats"}]
    with pytest.raises(rd.ConfigError, match="build the index first"):
        model.search(datasets.Dataset.from_list(queries), top_k=5)
    model.index(datasets.Dataset.from_list(rows))
    found = model.search(datasets.Dataset.from_list(queries), top_k=5)
    assert list(found) == ["q"] and list(found["q"]) == ["b"]
    assert model.search(datasets.Dataset.from_list([{"id": "q", "text": "none"}]), top_k=5) == {
        "q": {}
    }
    talk = datasets.Dataset.from_list([{"id": "q", "text": ["a heron", "a boat"]}])
    with pytest.raises(rd.DataError, match="query 'q': is a conversation"):
        model.search(talk, top_k=5)


@pytest.fixture
def herons(tmp_path: Path) -> Iterator[Path]:
    """Two documents, two judged queries."""
    (tmp_path / "corpus.jsonl").write_text(
        '{"id": "a", "text": "heron"}\n{"id": "b", "text": "boat"}'
    )
    (tmp_path / "queries.jsonl").write_text(
        '{"id": "p", "text": "heron"}\n{"id": "q", "text": "boat"}'
    )
    (tmp_path / "qrels.txt").write_text("p 0 a 1\nq 0 a 0\nq 0 b 2\n")
    yield tmp_path


def test_a_task_is_a_collection(herons: Path) -> None:
    task = task_of("Herons", herons)
    source = collection(task)
    assert repr(source) == "Collection('Herons (test)': 2 queries, 3 judgements)"
    assert len(rd.index(source.corpus, herons / "idx")) == 2
    with pytest.raises(rd.ConfigError, match="split = 'dev': expected one of test"):
        collection(task, "dev")
    with pytest.raises(rd.ConfigError, match="subset = 'german': expected one of default"):
        collection(task, subset="german")
    with pytest.raises(rd.ConfigError, match="expected a retrieval task of MTEB"):
        collection(mteb.get_task("STS12"))
    with pytest.raises(rd.ConfigError, match="int: expected a retrieval task of MTEB"):
        collection(3)


def test_what_is_no_encoder_or_reranker_is_named() -> None:
    with pytest.raises(rd.ConfigError, match=r"str: expected an rd\.Encoder"):
        RaydistEncoder("minilm")  # type: ignore[arg-type]
    with pytest.raises(rd.ConfigError, match=r"int: expected an rd\.Reranker"):
        RaydistReranker(3)
    with pytest.raises(rd.ConfigError, match="str: expected stages=, a function"):
        RaydistSearch("bm25", revision="1")  # type: ignore[arg-type]
