"""What a search found, on its way through the reranker into the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raydist.serving.admission import estimate_tokens
from raydist.serving.answers import SearchResult
from raydist.serving.limits import Limits

Hit = dict[str, Any]


@dataclass(slots=True)
class Reading:
    """What a reranker reads of the hits.

    Attributes:
        places: of the hits it reads.
        texts: their texts.
        tokens: an estimate, with the query in every pair.
        warnings: which hits it does not read, and why.
    """

    places: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    warnings: list[str] = field(default_factory=list)


def readable(hits: Sequence[Hit], query: str, limits: Limits) -> Reading:
    """Returns what a reranker reads: of the hits that have texts as many as a request may hold."""
    reading = Reading()
    without = beyond = 0
    for place, hit in enumerate(hits):
        if hit["contents"] is None:
            without += 1
            continue
        text = hit["contents"][: limits.max_text_chars]
        tokens = reading.tokens + estimate_tokens(query, [text])
        if len(reading.places) == limits.max_documents or tokens > limits.max_tokens:
            beyond += 1
            continue
        reading.places.append(place)
        reading.texts.append(text)
        reading.tokens = tokens
    for count, why in (
        (without, "no served index has their texts"),
        (beyond, "limits.max_documents or limits.max_tokens is reached"),
    ):
        if count:
            reading.warnings.append(f"{count} of {len(hits)} hits were not reranked: {why}")
    return reading


def reordered(hits: Sequence[Hit], reading: Reading, scores: Sequence[float]) -> list[Hit]:
    """Returns the hits that were read by their scores, the others after them as they were."""
    for place, value in zip(reading.places, scores):
        hits[place]["scores"]["rerank"] = value
    read = [hits[place] for place in reading.places]
    others = [hit for hit in hits if "rerank" not in hit["scores"]]
    return sorted(read, key=lambda hit: -hit["scores"]["rerank"]) + others


def search_results(hits: Sequence[Mapping[str, Any]], *, texts: bool) -> list[SearchResult]:
    """Returns hits as the answer has them, with their texts if asked for."""
    return [
        SearchResult(
            rank=rank,
            id=hit["id"],
            score=list(hit["scores"].values())[-1],
            scores=hit["scores"],
            title=hit["title"] if texts else None,
            text=hit["text"] if texts else None,
        )
        for rank, hit in enumerate(hits, 1)
    ]
