"""How rerankers are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raydist.models.crossencoder import CrossEncoderModel
from raydist.records import Run
from raydist.reranking.apply import rerank
from raydist.reranking.cross_encoder import CrossEncoder
from raydist.reranking.engine import Engine
from raydist.reranking.load import load_reranker
from raydist.reranking.rows import EncodedDocuments, Options, Row
from raydist.reranking.spec import Bm25Spec, CrossEncoderSpec

TEXTS = {"a": "bread is baked", "b": "rain falls from clouds", "c": "ice"}


def test_a_run_is_reranked_by_what_a_spec_describes() -> None:
    run = Run.from_lists([("q", ["a", "b", "c"], [3.0, 2.0, 1.0])])
    reranked = rerank(run, load_reranker(Bm25Spec()), TEXTS, {"q": "rain clouds"})
    assert [doc_ids for _, doc_ids, _ in reranked] == [["b", "a", "c"]]


def test_requests_share_the_micro_batches_of_a_model(tiny_bert: Path, tmp_path: Path) -> None:
    CrossEncoderModel.load(tiny_bert, fresh_head=True, device="cpu").save(tmp_path / "model")
    reranker = CrossEncoder(CrossEncoderSpec(model=str(tmp_path / "model"), device="cpu"))
    queries = ["rain", "bread"]
    futures = [reranker.engine.submit(query, list(TEXTS.values())) for query in queries]
    served = [future.result().scores.tolist() for future in futures]
    offline = reranker.score([(query, list(TEXTS.values())) for query in queries])
    np.testing.assert_allclose(served, offline, atol=1e-6)


class WordOverlap:
    """A scorer: rows are word numbers after the query's, the logit counts those in both."""

    name, sigmoid, packed = "overlap", False, True

    def encode(self, query: str, documents: Sequence[str], options: Options) -> EncodedDocuments:
        prefix = tuple(map(hash, query.split()))
        rows = [[Row([*map(hash, text.split())], prefix=prefix)] for text in documents]
        return EncodedDocuments(rows, [False] * len(rows))

    def forward(self, rows: Sequence[Row]) -> np.ndarray:
        return np.array([len({*row.tokens} & {*row.prefix}) for row in rows], np.float32)


def test_any_model_that_makes_rows_and_logits_has_an_engine() -> None:
    with Engine(WordOverlap()) as engine:
        assert engine.score([("rain clouds", ["rain", "rain in clouds"])]) == [[1.0, 2.0]]
