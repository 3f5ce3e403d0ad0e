"""Sparse models and their indexes in the service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raydist.build import open_retriever
from raydist.cli import main
from raydist.models.biencoder import BiEncoder
from raydist.models.encode import encode_terms
from raydist.records import Query
from raydist.serving.search import Searcher
from tests.serving.local import client

TEXTS = ["retrieval of a document", "rank"]


@pytest.fixture(scope="module")
def encoder(sparse_model: Path) -> BiEncoder:
    return BiEncoder.load(sparse_model, device="cpu")


def test_terms_are_weighed_in_the_form_of_tei(encoder: BiEncoder) -> None:
    serving = client(embedder=encoder)
    answer = serving.post("/embed_sparse", json={"inputs": TEXTS, "prompt_name": "query"})
    assert answer.status_code == 200
    expected = encode_terms(encoder, TEXTS, "query")
    for number, terms in enumerate(answer.json()):
        own, weights = expected[number]
        assert [term["index"] for term in terms] == own.tolist()
        np.testing.assert_allclose([term["value"] for term in terms], weights, atol=2e-6)


def test_a_model_of_vectors_weighs_no_terms(tiny_bert: Path) -> None:
    serving = client(embedder=BiEncoder.load(tiny_bert, device="cpu"))
    answer = serving.post("/embed_sparse", json={"inputs": TEXTS})
    assert answer.status_code == 422 and "weighs no terms" in answer.json()["error"]


def test_search_requests_are_texts(
    sparse_model: Path, corpus: Path, tmp_path: Path, encoder: BiEncoder
) -> None:
    out = tmp_path / "SIDX"
    command = ["embed", f"corpus={corpus}", f"model={sparse_model}", f"out={out}"]
    assert main(command) == 0
    retriever = open_retriever(str(out))
    serving = client(searcher=Searcher({"sparse": retriever}))
    answer = serving.post("/v1/search", json={"query": TEXTS[0], "k": 3})
    assert answer.status_code == 200
    run = retriever.search([Query("q", TEXTS[0])], 3)
    assert [hit["id"] for hit in answer.json()["results"]] == run.table["doc_id"].to_pylist()
