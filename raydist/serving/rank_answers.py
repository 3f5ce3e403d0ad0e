"""Answers to reranking and scoring: thousands of entries, built as dictionaries, written once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from raydist.reranking.highlights import Match
from raydist.serving.answers import Highlight, RerankResponse, RerankResult, ScoreResponse, TeiRank
from raydist.serving.backend import ScoreAnswer
from raydist.serving.schema import RerankRequest

_LISTS = {"results", "data", "scores"}


def best_first(scores: Sequence[float] | np.ndarray, most: int | None) -> list[int]:
    """Returns the numbers of the documents of most score; equal scores in the request's order."""
    order: list[int] = np.argsort(-np.asarray(scores, np.float64), kind="stable")[:most].tolist()
    return order


def ranked(request: RerankRequest, texts: Sequence[str], answer: ScoreAnswer) -> list[RerankResult]:
    """Returns the first results, best first.

    Args:
        request: how many, and in which form.
        texts: the documents'.
        answer: of the model.
    """
    scores, truncated, chunks = answer.scores, answer.truncated, answer.chunks
    order = best_first(scores, request.limit)
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
    if request.return_highlights:
        for result in results:
            result["highlights"] = list(map(_highlight, answer.highlights[result["index"]]))
    if request.input is not None:  # mixedbread's names
        for result in results:
            result["score"] = result["relevance_score"]
            if request.with_texts:
                result["input"] = texts[result["index"]]
    return results


def _highlight(match: Match) -> Highlight:
    return {
        "query": list(match.query),
        "document": None if match.document is None else list(match.document),
        "similarity": round(match.similarity, 6),
    }


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
