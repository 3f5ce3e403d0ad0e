"""Admission: how much work is let in, counted in estimated tokens, before anything is computed.

A request is let in while the tokens under way fit and can be worked off in time at the measured
speed, and while its client does not hold more than its share when others are there. Everything else
is refused at once with the time after which there will probably be room: no queue grows without
bound, and nobody waits for an answer that comes too late.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from raydist.serving.errors import overloaded

__all__ = ["Admission", "estimate_tokens"]

_CHARACTERS_PER_TOKEN = 4


def estimate_tokens(query: str, documents: Sequence[str], overhead: int = 8) -> int:
    """Returns roughly how many tokens scoring will cost: each document with the query."""
    each = len(query) // _CHARACTERS_PER_TOKEN + overhead
    return sum(len(text) // _CHARACTERS_PER_TOKEN + each for text in documents)


@dataclass(slots=True)
class _Lane:
    """What is under way for one model, and how fast it is."""

    tokens_per_s: float
    measured: bool = False
    tokens: int = 0
    requests: int = 0

    def learn(self, tokens: int, seconds: float, finished: bool, max_wait_s: float) -> None:
        """Corrects the speed by what was computed while a request was under way.

        Quick answers say little of a low speed (what took the time was not the model), slow ones
        much. What was given up after a while bounds the speed from above.
        """
        found = tokens / max(seconds, 1e-3)
        if found < self.tokens_per_s:
            weight = min(0.5, seconds / max_wait_s)
        else:
            weight = 0.0 if not finished else 0.2 if self.measured else 1.0
            self.measured |= finished
        self.tokens_per_s += weight * (found - self.tokens_per_s)


class Admission:
    """Counts what is under way; used by one event loop, so it needs no lock.

    Args:
        max_tokens: estimated tokens under way at once. A larger request is let in alone.
        max_requests: requests under way at once.
        max_wait_s: how long a model's tokens under way may take at its measured speed.
        share: of `max_tokens` that one client may hold while another one is there.
        tokens_per_s: what a model is thought to do before it has been measured.
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
        self.tokens = 0
        self.requests = 0
        self._by_client: Counter[str] = Counter()
        self._lanes: defaultdict[str, _Lane] = defaultdict(lambda: _Lane(tokens_per_s))

    def speed(self, model: str = "") -> float:
        """Returns the estimated tokens per second of a model."""
        return self._lanes[model].tokens_per_s

    def expect(self, model: str, tokens_per_s: float) -> None:
        """Sets a model's speed, unless requests have shown it already."""
        lane = self._lanes[model]
        if not lane.measured:
            lane.tokens_per_s, lane.measured = tokens_per_s, True

    @contextmanager
    def enter(self, tokens: int, client: str = "", model: str = "") -> Iterator[None]:
        """Lets a request of `tokens` in for the duration of the block.

        Raises:
            ServiceError: 429 with Retry-After.
        """
        lane, held = self._lanes[model], self._by_client[client]
        alone = self.requests == 0
        wait = self._wait(lane, tokens)
        if self.requests >= self.max_requests:
            raise overloaded(wait, f"{self.requests} requests are under way")
        if not alone and self.tokens + tokens > self.max_tokens:
            raise overloaded(wait, f"about {self.tokens} tokens are under way")
        if lane.requests and lane.tokens + tokens > self.max_wait_s * lane.tokens_per_s:
            raise overloaded(wait, "the work under way takes too long already")
        others = len(self._by_client) > (1 if held else 0)
        if held and others and held + tokens > self.share * self.max_tokens:
            raise overloaded(wait, "this client's share of the work is used up")
        for counted in (self, lane):
            counted.requests += 1
            counted.tokens += tokens
        self._by_client[client] += tokens
        # Requests share the speed, so while this one is computed each other one gets as much.
        shared = min(lane.tokens, lane.requests * tokens)
        begun, finished = time.monotonic(), False
        try:
            yield
            finished = True
        finally:
            for counted in (self, lane):
                counted.requests -= 1
                counted.tokens -= tokens
            self._by_client[client] -= tokens
            if self._by_client[client] <= 0:
                del self._by_client[client]
            lane.learn(shared, time.monotonic() - begun, finished, self.max_wait_s)

    def _wait(self, lane: _Lane, tokens: int) -> float:
        """Returns the seconds until there is probably room for `tokens`."""
        room = min(self.max_tokens, self.max_wait_s * lane.tokens_per_s)
        over = lane.tokens + tokens - room
        return min(60.0, max(over, tokens) / lane.tokens_per_s)
