"""A request's documents by their queries, and its errors by the request's own names of fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from raydist.serving.errors import ServiceError


@dataclass(frozen=True, slots=True)
class QueryGroup:
    """One query of a request, with its documents.

    Attributes:
        query: the query's text.
        texts: the documents'.
        positions: of the texts among the request's documents.
        field: where the request has the query.
        texts_field: where it has the documents.
    """

    query: str
    texts: list[str]
    positions: Sequence[int]
    field: str = "query"
    texts_field: str = "documents"

    def in_request(self, error: ServiceError) -> ServiceError:
        """Returns an error of the group's second document, say, as one of the request's fifth."""
        match = re.fullmatch(r"documents\[(\d+)\]", error.param or "")
        if match is None:
            return error
        return renamed(error, f"{self.texts_field}[{self.positions[int(match[1])]}]")


def renamed(error: ServiceError, param: str) -> ServiceError:
    """Returns an error with the request's own name of the field."""
    message = error.message.replace(str(error.param), param)
    return ServiceError(error.status, message, error.code, param=param, headers=error.headers)


def by_query(queries: Sequence[str], texts: list[str]) -> list[QueryGroup]:
    """Returns each distinct query with its texts: one for all, or one for each text."""
    if len(queries) == 1:
        return [QueryGroup(queries[0], texts, range(len(texts)), "queries")]
    positions: dict[str, list[int]] = {}
    for position, query in enumerate(queries):
        positions.setdefault(query, []).append(position)
    return [
        QueryGroup(query, [texts[position] for position in own], own, f"queries[{own[0]}]")
        for query, own in positions.items()
    ]
