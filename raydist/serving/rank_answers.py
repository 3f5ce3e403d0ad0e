"""Answers to reranking and scoring: thousands of entries, built as dictionaries, written once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from raydist.serving.answers import RerankResponse, RerankResult, ScoreResponse, TeiRank
from raydist.serving.schema import RerankRequest

_LISTS = {"results", "data", "scores"}


def ranked(
    request: RerankRequest,
    texts: Sequence[str],
    scores: Sequence[float],
    truncated: Sequence[bool],
    chunks: Sequence[int],
) -> list[RerankResult]:
    """Returns the first results, best first; equal scores in the request's order.

    Args:
        request: how many, and in which form.
        texts: the documents'.
        scores: theirs; larger is better.
        truncated: whether a part of each was not read.
        chunks: in how many pieces each was read.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")[: request.limit].tolist()
    results: list[RerankResult] = [
        {
            "index": index,
            "relevance_score": scores[index],
            "truncated": truncated[index],
            "chunks": chunks[index],
        }
        for index in order
    ]
    if request.has_ids:
        for result, own_id in zip(results, map(request.ids().__getitem__, order)):
            if own_id is not None:
                result["id"] = own_id
    if request.with_texts:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    if request.input is not None:  # mixedbread's names
        for result in results:
            result["score"] = result["relevance_score"]
            if request.with_texts:
                result["input"] = texts[result["index"]]
    return results


def rerank_json(answer: RerankResponse) -> bytes:
    """Returns the bytes of an answer to a rerank request."""
    results = orjson.dumps(answer.results)
    return b'{"results":%b,"data":%b,%b' % (results, results, _rest(answer))


def tei_json(answer: RerankResponse) -> bytes:
    """Returns the bytes of an answer in TEI's form: its bare list."""
    ranks: list[TeiRank] = []
    for result in answer.results:
        rank: TeiRank = {"index": result["index"], "score": result["relevance_score"]}
        if (document := result.get("document")) is not None:
            rank["text"] = document["text"]
        ranks.append(rank)
    return orjson.dumps(ranks)


def score_json(answer: ScoreResponse) -> bytes:
    """Returns the bytes of an answer to a score request."""
    scores, data = orjson.dumps(answer.scores), orjson.dumps(answer.data)
    return b'{"scores":%b,"data":%b,%b' % (scores, data, _rest(answer))


def _rest(answer: RerankResponse | ScoreResponse) -> bytes:
    """Returns the answer's other fields, up to the closing brace."""
    return orjson.dumps(answer.model_dump(exclude=_LISTS, exclude_none=True))[1:]
