"""Admission: the size of a request, and the work that is under way at once.

Work is counted in estimated tokens, before anything is computed: from the characters, from the
tokens that the model reads at most, and from how the last estimates compared with what was read. A
request is admitted while the tokens under way fit and can be computed in time at the speed that the
replicas measure, and while its client does not hold more than its share when there are other
clients: those with work under way, or refused a moment ago, so that a client that holds everything
makes room. Everything else is refused at once, with the time after which there will probably be
room: no queue grows without bound, and nobody waits for an answer that comes too late.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from raydist.serving.backend import Cost, ReplicaState, ScoreOptions
from raydist.serving.errors import ServiceError, overloaded
from raydist.serving.spec import RequestLimits

_CHARACTERS_PER_TOKEN = 4
_MOST_CHARACTERS_PER_TOKEN = 16
"""A text is not looked at beyond so many characters for each token that is read."""
_RATIOS = (0.125, 8.0)
"""Bounds of what the estimates are corrected by."""


def text_tokens(text: str, most: int = 0) -> int:
    """Returns roughly how many tokens a text has, `most` at most (0: any number).

    Four characters of English are a token, one of Chinese or Japanese, and between one and two of
    other scripts: a character counts the more, the more bytes UTF-8 needs for it.
    """
    if most:
        text = text[: _MOST_CHARACTERS_PER_TOKEN * most]
    size = len(text)
    if not text.isascii():
        more = len(text.encode("utf-8", "surrogatepass")) - size
        size += 3 * more // 2
    tokens = size // _CHARACTERS_PER_TOKEN
    return min(tokens, most) if most else tokens


def estimate_tokens(
    query: str, documents: Sequence[str], overhead: int = 8, most: int = 0, most_each: int = 0
) -> int:
    """Returns roughly how many tokens scoring will cost: each document with the query.

    Args:
        query: the query's text.
        documents: texts.
        overhead: tokens beside them.
        most: tokens that a query with a document has at most; 0: any number.
        most_each: tokens that a document has at most; 0: any number.
    """
    each = text_tokens(query, most) + overhead
    cap = min(most or most_each, most_each or most)
    tokens = (each + text_tokens(text, cap) for text in documents)
    return sum(min(size, most) for size in tokens) if most else sum(tokens)


def check_size(
    limits: RequestLimits,
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


def check_tokens(limits: RequestLimits, tokens: int, field: str = "documents") -> None:
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
    """The work under way for one model, by client, and what is known of the model."""

    tokens_per_s: float
    replicas: float = 1.0
    """Of one ingress."""
    measured: bool = False
    ratio: float = 1.0
    """By which estimates are multiplied: what was read to what the characters said."""
    max_length: int = 0
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

    def learn(self, estimate: int, costs: Sequence[Cost]) -> None:
        """Corrects the estimates by the tokens of an answer, and the speed by the replicas'."""
        tokens = sum(cost.computed_tokens for cost in costs)
        speeds = [cost.tokens_per_s for cost in costs if cost.tokens_per_s > 0]
        if not tokens or not speeds:
            return
        least, most = _RATIOS
        ratio = min(max(self.ratio * tokens / max(estimate, 1), least), most)
        self.ratio += 0.1 * (ratio - self.ratio)
        speed = self.replicas * sum(speeds) / len(speeds)
        weight = 0.2 if self.measured else 1.0
        self.measured = True
        self.tokens_per_s += weight * (speed - self.tokens_per_s)

    def give_up(self, tokens: int, seconds: float, max_wait_s: float) -> None:
        """Lowers the speed after a request that was not answered: it bounds it from above."""
        bound = tokens / max(seconds, 1e-3)
        if bound < self.tokens_per_s:
            self.tokens_per_s += min(0.5, seconds / max_wait_s) * (bound - self.tokens_per_s)


@dataclass(slots=True)
class Ticket:
    """An admitted request; its costs are those of its answers."""

    costs: list[Cost] = field(default_factory=list)


class Admission:
    """Counts the work under way; used by one event loop, so it needs no lock.

    Args:
        max_tokens: estimated tokens under way at once, for each replica of a model. A larger
            request is admitted alone.
        max_requests: requests under way at once, for each replica of a model.
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

    def expect(self, model: str, state: ReplicaState, replicas: float = 1.0) -> None:
        """Takes a replica's word for a model: how much it reads, and its speed.

        The speed counts while no request has measured it.

        Args:
            model: its name.
            state: of one replica.
            replicas: how many run, for each ingress.
        """
        lane = self._lanes[model]
        lane.max_length = state.max_length
        if not lane.measured and state.tokens_per_s:
            lane.tokens_per_s, lane.measured = replicas * state.tokens_per_s, True
        elif lane.measured:
            lane.tokens_per_s *= replicas / lane.replicas
        lane.replicas = replicas

    def estimate(
        self, model: str, query: str, documents: Sequence[str], options: ScoreOptions | None = None
    ) -> int:
        """Returns roughly how many tokens a model will compute for a request."""
        lane = self._lanes[model]
        options = options or ScoreOptions()
        cuts = options.truncation in (None, "truncate")
        tokens = estimate_tokens(
            query,
            documents,
            most=lane.max_length if cuts else 0,
            most_each=options.max_tokens_per_doc,
        )
        return max(1, round(lane.ratio * tokens))

    @contextmanager
    def enter(self, tokens: int, client: str = "", model: str = "") -> Iterator[Ticket]:
        """Admits a request of `tokens` for the duration of the block.

        Raises:
            ServiceError: 429 with Retry-After.
        """
        start, ticket, finished = time.monotonic(), Ticket(), False
        lane = self._lanes[model]
        both = (self._all, lane)
        self._all.replicas = sum(each.replicas for each in self._lanes.values())
        wait = self._wait(lane, tokens)
        shared = [each.is_shared(client, start, self.max_wait_s) for each in both]
        for each, others in zip(both, shared):
            if each.requests >= self.max_requests * each.replicas:
                raise overloaded(wait, f"{each.requests} requests are under way")
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
            yield ticket
            finished = True
        finally:
            for each in both:
                each.leave(client, tokens)
            if finished:
                lane.learn(tokens, ticket.costs)
            else:
                lane.give_up(computed, time.monotonic() - start, self.max_wait_s)

    def _room(self, lane: _Lane) -> float:
        """Returns the tokens that may be under way."""
        return min(self.max_tokens * lane.replicas, self.max_wait_s * lane.tokens_per_s)

    def _wait(self, lane: _Lane, tokens: int) -> float:
        """Returns the seconds until there is probably room for `tokens`."""
        over = lane.tokens + tokens - self._room(lane)
        return min(60.0, max(over, tokens) / lane.tokens_per_s)
