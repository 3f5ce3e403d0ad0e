"""Limits of the HTTP service and how they are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raydist.serving.admission import estimate_tokens
from raydist.serving.errors import ServiceError

MOST_ENTRIES = 20_000
"""Entries of a list beyond which it is not even read, whatever the limits say."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, and all together, may ask for.

    Attributes:
        max_body_bytes: bytes of a request's body.
        max_documents: documents of a request.
        max_query_chars: characters of a query.
        max_text_chars: characters of a document.
        max_tokens: estimated tokens of a request.
        queue_tokens: estimated tokens under way in one ingress.
        max_requests: requests under way in one ingress.
        max_wait_s: seconds that the work under way may take at the measured speed.
        deadline_s: seconds after which a request is given up.
    """

    max_body_bytes: int = 16 << 20
    max_documents: int = 2048
    max_query_chars: int = 32_768
    max_text_chars: int = 1_000_000
    max_tokens: int = 2_000_000
    queue_tokens: int = 500_000
    max_requests: int = 256
    max_wait_s: float = 10.0
    deadline_s: float = 60.0

    def check(
        self,
        query: str,
        documents: Sequence[str],
        field: str = "documents",
        query_field: str = "query",
    ) -> int:
        """Returns the estimated tokens of a request; raises ServiceError 413 if it is too large."""
        if len(documents) > self.max_documents:
            raise ServiceError(
                413,
                f"{field} has {len(documents)} entries, the most is {self.max_documents}",
                "too_many_documents",
                param=field,
            )
        if len(query) > self.max_query_chars:
            raise ServiceError(
                413,
                f"{query_field} has {len(query)} characters, the most is {self.max_query_chars}",
                "query_too_long",
                param=query_field,
            )
        for place, text in enumerate(documents):
            if len(text) > self.max_text_chars:
                raise ServiceError(
                    413,
                    f"{field}[{place}] has {len(text)} characters, the most is "
                    f"{self.max_text_chars}",
                    "text_too_long",
                    param=f"{field}[{place}]",
                )
        tokens = estimate_tokens(query, documents)
        self.check_tokens(tokens, field)
        return tokens

    def check_tokens(self, tokens: int, field: str = "documents") -> None:
        """Raises ServiceError 413 for more estimated tokens than a request may have."""
        if tokens > self.max_tokens:
            raise ServiceError(
                413,
                f"the request has about {tokens} tokens, the most is {self.max_tokens}",
                "too_many_tokens",
                param=field,
            )
