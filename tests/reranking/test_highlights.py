"""Which tokens met, against naive computations from the tokenizer's offsets and the raw vectors."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from raydist.models.biencoder import BiEncoder
from raydist.reranking.biencoder import BiEncoderReranker, BiEncoderScorer
from raydist.reranking.rows import Options
from raydist.reranking.spec import BiEncoderSpec
from tests.serving.local import client

QUERY = "the 𝛼 model of a vector?"
DOCUMENTS = [
    "A vector, said the corpus: is not the answer!",
    "queryscore 🌧 passage model",
    "",
    "...",
]
BEFORE = {"query": "search: ", "document": "passage: "}
Found = list[tuple[tuple[int, int], tuple[int, int] | None, float]]


@pytest.fixture(scope="module")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("highlights") / "model"
    model = BiEncoder.load(
        tiny_bert,
        kind="multivector",
        projection=16,
        query_instruction=BEFORE["query"],
        document_instruction=BEFORE["document"],
        skip=list(string.punctuation),
        expansion=24,
        query_max_length=24,
        device="cpu",
    )
    model.save(place)
    return place


def naive(folder: Path, query: str, document: str) -> Found:
    """The matches by transformers' offsets and one text's vectors at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), BiEncoder.load(folder, device="cpu")

    def tokens(role: Any, text: str) -> tuple[list[Any], np.ndarray]:
        whole = BEFORE[role] + text
        told = tokenizer(whole, return_offsets_mapping=True, return_special_tokens_mask=True)
        ids, spans = list(told["input_ids"]), []
        for (start, end), special in zip(told["offset_mapping"], told["special_tokens_mask"]):
            own = not special and start >= len(BEFORE[role])
            spans.append((start - len(BEFORE[role]), end - len(BEFORE[role])) if own else None)
        if role == "query":
            spans += [None] * (24 - len(ids))
            ids += [tokenizer.mask_token_id] * (24 - len(ids))
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}
        with torch.no_grad():
            vectors = model(inputs, role)[0].numpy()
        words = tokenizer.convert_ids_to_tokens(ids)
        kept = [i for i, w in enumerate(words) if role == "query" or w not in string.punctuation]
        return [spans[i] for i in kept], vectors[kept]

    (query_spans, query_qD), (spans, document_tD) = (
        tokens("query", query),
        tokens("document", document),
    )
    found = []
    for span, vector in zip(query_spans, query_qD):
        products = [float(vector @ each) for each in document_tD]
        best = int(np.argmax(products))
        if span is not None:
            found.append((span, spans[best], products[best]))
    return found


def assert_same(actual: Sequence[Any], expected: Found) -> None:
    assert [(a[0], a[1]) for a in actual] == [(b[0], b[1]) for b in expected]
    assert [a[2] for a in actual] == pytest.approx([b[2] for b in expected], abs=1e-5)


def test_matches_are_those_of_a_naive_computation(folder: Path) -> None:
    scorer = BiEncoderScorer(BiEncoder.load(folder, device="cpu"))
    for text, own in zip(DOCUMENTS, scorer.matches(QUERY, DOCUMENTS, Options())):
        assert_same([(m.query, m.document, m.similarity) for m in own], naive(folder, QUERY, text))
    words = {QUERY[slice(*m.query)] for m in scorer.matches(QUERY, DOCUMENTS[:1], Options())[0]}
    assert {"model", "vector", "𝛼", "?"} <= words


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_best_piece_of_a_long_document_has_offsets_of_the_whole(
    folder: Path, side: str
) -> None:
    model = BiEncoder.load(folder, device="cpu", document_max_length=9, replace_contract=True)
    model.tokenizer.truncation_side = side
    scorer = BiEncoderScorer(model)
    text = "is not the answer of a corpus said the vector of a model index passage"
    for options in (Options("chunk_max"), Options(max_tokens_per_document=4)):
        (own,) = scorer.matches("vector model", [text], options)
        (rows,) = scorer.encode("vector model", [text], options).rows
        pieces = [model.tokenizer.decode(row.tokens, skip_special_tokens=True) for row in rows]
        met = [text[slice(*match.document)] for match in own if match.document]
        assert met and any(all(word in piece for word in met) for piece in pieces)


def test_the_service_answers_with_them_and_refuses_other_models(folder: Path) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "return_highlights": True, "top_n": 2}
    reranker = BiEncoderReranker(BiEncoderSpec(model=str(folder), device="cpu"))
    with client({"late": reranker}) as http:
        results = http.post("/v1/rerank", json=body).json()["results"]
        plain = http.post("/v1/rerank", json={**body, "return_highlights": False}).json()
    assert [each["index"] for each in results] == [each["index"] for each in plain["results"]]
    assert not any("highlights" in each for each in plain["results"])
    for each in results:
        own = [
            (tuple(m["query"]), m["document"] and tuple(m["document"]), m["similarity"])
            for m in each["highlights"]
        ]
        assert_same(own, naive(folder, QUERY, DOCUMENTS[each["index"]]))
    with client() as http:
        answer = http.post("/v1/rerank", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "return_highlights"
