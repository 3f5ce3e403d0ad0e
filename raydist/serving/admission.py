"""Admission: the size of a request, and the work that is under way at once.

Work is counted in estimated tokens, before anything is computed. A request is admitted while the
tokens under way fit and can be computed in time at the measured speed, and while its client does
not hold more than its share when there are other clients: those with work under way, or refused a
moment ago, so that a client that holds everything makes room. Everything else is refused at once,
with the time after which there will probably be room: no queue grows without bound, and nobody
waits for an answer that comes too late.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from raydist.serving.errors import ServiceError, overloaded
from raydist.serving.spec import Limits

_CHARACTERS_PER_TOKEN = 4


def estimate_tokens(query: str, documents: Sequence[str], overhead: int = 8) -> int:
    """Returns roughly how many tokens scoring will cost: each document with the query."""
    each = len(query) // _CHARACTERS_PER_TOKEN + overhead
    return sum(len(text) // _CHARACTERS_PER_TOKEN + each for text in documents)


def check_size(
    limits: Limits,
    query: str,
    documents: Sequence[str],
    field: str = "documents",
    query_field: str = "query",
) -> int:
    """Returns the estimated tokens of a request; raises ServiceError 413 if it is too large."""
    if len(documents) > limits.max_documents:
        raise ServiceError(
            413,
            f"{field} has {len(documents)} entries; the limit is {limits.max_documents}",
            "too_many_documents",
            param=field,
        )
    if len(query) > limits.max_query_chars:
        raise ServiceError(
            413,
            f"{query_field} has {len(query)} characters; the limit is {limits.max_query_chars}",
            "query_too_long",
            param=query_field,
        )
    for position, text in enumerate(documents):
        if len(text) > limits.max_text_chars:
            raise ServiceError(
                413,
                f"{field}[{position}] has {len(text)} characters; the limit is "
                f"{limits.max_text_chars}",
                "text_too_long",
                param=f"{field}[{position}]",
            )
    tokens = estimate_tokens(query, documents)
    check_tokens(limits, tokens, field)
    return tokens


def check_tokens(limits: Limits, tokens: int, field: str = "documents") -> None:
    """Raises ServiceError 413 for more estimated tokens than a request may have."""
    if tokens > limits.max_tokens:
        raise ServiceError(
            413,
            f"the request has about {tokens} tokens; the limit is {limits.max_tokens}",
            "too_many_tokens",
            param=field,
        )


@dataclass(slots=True)
class _Lane:
    """The work under way for one model, by client, and the model's speed."""

    tokens_per_s: float
    measured: bool = False
    tokens: int = 0
    requests: int = 0
    held: Counter[str] = field(default_factory=Counter)
    last_requests: dict[str, float] = field(default_factory=dict)
    """When each client sent its last request; one entry per key."""

    def is_shared(self, client: str, now: float, patience_s: float) -> bool:
        """Records a client's request; returns whether others have work here, or had some lately."""
        self.last_requests[client] = now
        recent = (name for name, at in self.last_requests.items() if now - at < patience_s)
        return any(name != client for name in (*recent, *self.held))

    def enter(self, client: str, tokens: int) -> None:
        """Counts a request in."""
        self.requests += 1
        self.tokens += tokens
        self.held[client] += tokens

    def leave(self, client: str, tokens: int) -> None:
        """Counts a request out."""
        self.requests -= 1
        self.tokens -= tokens
        self.held[client] -= tokens
        if self.held[client] <= 0:
            del self.held[client]

    def learn(self, tokens: int, seconds: float, finished: bool, max_wait_s: float) -> None:
        """Corrects the speed by the tokens computed while a request was under way.

        A quick answer says little about a low speed (the time was not the model's), a slow one
        much. A cancelled request bounds the speed from above.
        """
        measured = tokens / max(seconds, 1e-3)
        if measured < self.tokens_per_s:
            weight = min(0.5, seconds / max_wait_s)
        else:
            weight = 0.0 if not finished else 0.2 if self.measured else 1.0
            self.measured |= finished
        self.tokens_per_s += weight * (measured - self.tokens_per_s)


class Admission:
    """Counts the work under way; used by one event loop, so it needs no lock.

    Args:
        max_tokens: estimated tokens under way at once. A larger request is admitted alone.
        max_requests: requests under way at once.
        max_wait_s: how long a model's tokens under way may take at its measured speed.
        share: of the room (what the two bounds above leave) that one client may hold while others
            have work under way, or sent a request within `max_wait_s`.
        tokens_per_s: a model's assumed speed before it has been measured.
    """

    def __init__(
        self,
        *,
        max_tokens: int,
        max_requests: int,
        max_wait_s: float = 10.0,
        share: float = 0.5,
        tokens_per_s: float = 2000.0,
    ) -> None:
        self.max_tokens = max_tokens
        self.max_requests = max_requests
        self.max_wait_s = max_wait_s
        self.share = share
        self._all = _Lane(float("inf"))
        self._lanes: defaultdict[str, _Lane] = defaultdict(lambda: _Lane(tokens_per_s))

    @property
    def tokens(self) -> int:
        """Estimated tokens under way."""
        return self._all.tokens

    @property
    def requests(self) -> int:
        """Requests under way."""
        return self._all.requests

    def speed(self, model: str = "") -> float:
        """Returns the estimated tokens per second of a model."""
        return self._lanes[model].tokens_per_s

    def backlog_s(self) -> float:
        """Returns the seconds that the work under way takes, of the model that has most of it."""
        lanes = self._lanes.values()
        return min(60.0, max((lane.tokens / lane.tokens_per_s for lane in lanes), default=0.0))

    def expect(self, model: str, tokens_per_s: float) -> None:
        """Sets a model's speed, unless requests have measured it already."""
        lane = self._lanes[model]
        if not lane.measured:
            lane.tokens_per_s, lane.measured = tokens_per_s, True

    @contextmanager
    def enter(self, tokens: int, client: str = "", model: str = "") -> Iterator[None]:
        """Admits a request of `tokens` for the duration of the block.

        Raises:
            ServiceError: 429 with Retry-After.
        """
        start, finished = time.monotonic(), False
        lane = self._lanes[model]
        both = (self._all, lane)
        wait = self._wait(lane, tokens)
        shared = [each.is_shared(client, start, self.max_wait_s) for each in both]
        if self.requests >= self.max_requests:
            raise overloaded(wait, f"{self.requests} requests are under way")
        for each, others in zip(both, shared):
            room = self._room(each)
            if each.requests and each.tokens + tokens > room:
                raise overloaded(wait, f"about {each.tokens} tokens are under way")
            held = each.held[client]
            if held and others and held + tokens > self.share * room:
                raise overloaded(wait, "this client's share of the work is used up")
        for each in both:
            each.enter(client, tokens)
        # Requests share the speed, so while this one is computed each other one gets as much.
        computed = min(lane.tokens, lane.requests * tokens)
        try:
            yield
            finished = True
        finally:
            for each in both:
                each.leave(client, tokens)
            lane.learn(computed, time.monotonic() - start, finished, self.max_wait_s)

    def _room(self, lane: _Lane) -> float:
        """Returns the tokens that may be under way."""
        return min(self.max_tokens, self.max_wait_s * lane.tokens_per_s)

    def _wait(self, lane: _Lane, tokens: int) -> float:
        """Returns the seconds until there is probably room for `tokens`."""
        over = lane.tokens + tokens - self._room(lane)
        return min(60.0, max(over, tokens) / lane.tokens_per_s)
