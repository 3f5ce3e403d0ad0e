"""A query and its texts on their way to a model, and what of the request they were.

A request may hold several queries; a model is asked one at a time, and what it says of "the second
document" has to be said of the request's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raydist.serving.errors import ServiceError

NOTHING: Mapping[str, Any] = {
    "scores": [],
    "truncated": [],
    "chunks": [],
    "tokens": 0,
    "cached_prefix_tokens": 0,
    "timings_ms": {"queue": 0.0, "tokenize": 0.0, "infer": 0.0},
}
"""What a model would answer if it were asked about no texts."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One query and its texts.

    Attributes:
        query: what is asked.
        texts: what is scored.
        places: of the texts among the request's documents.
        field: where the request has the query.
    """

    query: str
    texts: list[str]
    places: Sequence[int]
    field: str = "query"

    def placed(self, error: ServiceError) -> ServiceError:
        """Returns an error of one of the texts as one of the request's document."""
        found = re.fullmatch(r"documents\[(\d+)\]", error.param or "")
        if found is None:
            return error
        param = f"documents[{self.places[int(found[1])]}]"
        message = error.message.replace(found[0], param)
        return ServiceError(error.status, message, error.code, param=param, headers=error.headers)


def by_query(queries: str | Sequence[str], texts: list[str]) -> list[Asked]:
    """Returns each distinct query with its texts: one for all, or one for each text."""
    if isinstance(queries, str):
        return [Asked(queries, texts, range(len(texts)), "queries")]
    places: dict[str, list[int]] = {}
    for place, query in enumerate(queries):
        places.setdefault(query, []).append(place)
    return [
        Asked(query, [texts[place] for place in mine], mine, f"queries[{mine[0]}]")
        for query, mine in places.items()
    ]
