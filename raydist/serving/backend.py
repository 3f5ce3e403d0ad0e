"""What the service's routes need from outside: something that computes, somewhere for numbers.

The backend is in this process for tests and notebooks, behind Ray Serve's handles in `app.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Backend(Protocol):
    """What computes."""

    async def score(self, model: str, request: dict[str, Any]) -> dict[str, Any]:
        """See `ServedReranker.score`."""
        ...

    async def embed(self, model: str, request: dict[str, Any]) -> dict[str, Any]:
        """See `ServedEmbedder.embed`."""
        ...

    async def search(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns `hits` (id, scores, title, text, contents) best first and `timings_ms`."""
        ...

    async def check(self, model: str) -> None:
        """Raises if the model, or the index, does not work."""
        ...


class Metrics(Protocol):
    """Where numbers go."""

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        ...

    def scored(self, model: str, answer: Mapping[str, Any], documents: int) -> None:
        """Counts what a scoring or an embedding took."""
        ...

    def under_way(self, requests: int, tokens: int) -> None:
        """Shows the work that was let in."""
        ...
