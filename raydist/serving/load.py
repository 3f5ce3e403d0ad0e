"""A bounded load generator for the service: a fixed rate, or a fixed number of clients.

At a fixed rate requests are sent when they are due, whether earlier ones were answered or not, and
latency counts from when a request was due: a server that stalls cannot slow down its own
measurement. With clients, each sends its next request when its last was answered.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from raydist.serving.spec import LoadSpec

Bodies = Iterator[dict[str, Any]]

LONG_CHARS = 900_000
"""Characters of a long document."""
_WORDS = (  # noqa: SIM905
    "retrieval index query document rank term posting cluster vector neural sparse dense train "
    "loss gradient batch negative relevance judgement topic passage encoder token length score"
).split(" ")


@dataclass(slots=True)
class LoadResult:
    """The measurements of a load test.

    Attributes:
        seconds: from the first request to the last answer.
        latencies_s: of the requests answered with 200, in the order of the answers, and the whole
            timeout for those without an answer; a quick refusal must not improve the quantiles.
        small_latencies_s: the same of the requests without a long document, if some have one.
        statuses: answers by status code; `timeout` and `refused` for requests without an answer.
        pairs: query-document pairs in requests that were answered with 200.
        late_s: the longest delay of the generator itself (fixed rate only).
    """

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    small_latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    pairs: int = 0
    late_s: float = 0.0

    @property
    def answered(self) -> int:
        """Requests with an answer, whatever its status."""
        return sum(n for status, n in self.statuses.items() if status.isdigit())

    def quantile_ms(self, q: float, *, small: bool = False) -> float:
        """Returns a latency quantile in milliseconds; NaN if nothing was answered with 200."""
        latencies = self.small_latencies_s if small else self.latencies_s
        return float(np.quantile(latencies, q) * 1e3) if latencies else float("nan")

    def figures(self) -> dict[str, float]:
        """Returns the figures by name, milliseconds and per second."""
        per_s = 1.0 / self.seconds if self.seconds else 0.0
        figures = {
            "requests": float(sum(self.statuses.values())),
            "requests_per_s": self.answered * per_s,
            "pairs_per_s": self.pairs * per_s,
        }
        if self.latencies_s:
            figures |= {f"p{q}_ms": self.quantile_ms(q / 100) for q in (50, 95, 99)}
        if 0 < len(self.small_latencies_s) < len(self.latencies_s):
            for q in (50, 95, 99):
                figures[f"small_p{q}_ms"] = self.quantile_ms(q / 100, small=True)
        return figures | {f"status_{code}": float(n) for code, n in sorted(self.statuses.items())}


def rerank_bodies(
    queries: Sequence[str],
    documents: Sequence[str],
    per_request: int,
    seed: int = 0,
    long: float = 0.0,
) -> Bodies:
    """Yields rerank requests without end: each query with documents drawn at random.

    In a share `long` of them, evenly spread, one document has `LONG_CHARS` characters.
    """
    rng = np.random.default_rng(seed)
    owed = 0.0
    for query in itertools.cycle(queries):
        texts = [documents[i] for i in rng.integers(0, len(documents), per_request)]
        owed += long
        if owed > 1.0 - 1e-9:
            owed -= 1.0
            texts[-1] = _lengthened(texts[-1])
        yield {"query": query, "documents": texts}


def _lengthened(text: str) -> str:
    """Returns the text, repeated and cut to `LONG_CHARS` characters."""
    return (f"{text} " * (LONG_CHARS // (len(text) + 1) + 1))[:LONG_CHARS]


def documents_of(words: int, count: int, seed: int = 0) -> list[str]:
    """Returns generated documents of `words` words on average, of mixed lengths."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(max(words, 1)), 0.5, count), 1, 4 * words).astype(int)
    return [" ".join(rng.choice(_WORDS, n)) for n in lengths]


def run_load(
    url: str,
    bodies: Bodies,
    spec: LoadSpec = LoadSpec(),  # noqa: B008  frozen
    *,
    route: str = "/v1/rerank",
    key: str | None = None,
    on_answer: Callable[[int], None] | None = None,
) -> LoadResult:
    """Sends requests and returns the measurements.

    A request that is due while `most_in_flight` are open counts as `refused`, so that a stalled
    server cannot exhaust this machine; one without an answer in time counts as `timeout`.

    Args:
        url: the service's root, e.g. `http://127.0.0.1:8000`.
        bodies: the requests' JSON.
        spec: how many requests, and for how long.
        route: path of the endpoint.
        key: bearer key.
        on_answer: called with 1 for every answer.
    """
    return asyncio.run(_run(_Load(url.rstrip("/") + route, bodies, spec, key, on_answer)))


@dataclass(slots=True)
class _Load:
    url: str
    bodies: Bodies
    spec: LoadSpec
    key: str | None
    on_answer: Callable[[int], None] | None
    result: LoadResult = field(default_factory=LoadResult)

    async def send(self, client: httpx.AsyncClient, due: float) -> None:
        body = next(self.bodies)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            answer = await client.post(self.url, json=body, headers=headers)
        except httpx.TimeoutException:
            self.result.statuses["timeout"] += 1
            self._record(body, self.spec.timeout)
            return
        except httpx.HTTPError:
            self.result.statuses["refused"] += 1
            return
        self.result.statuses[str(answer.status_code)] += 1
        if answer.status_code == 200:
            self._record(body, time.perf_counter() - due)
            self.result.pairs += len(body.get("documents", ()))
        if self.on_answer is not None:
            self.on_answer(1)

    def _record(self, body: dict[str, Any], seconds: float) -> None:
        self.result.latencies_s.append(seconds)
        if all(len(text) < LONG_CHARS for text in body.get("documents", ())):
            self.result.small_latencies_s.append(seconds)


async def _run(load: _Load) -> LoadResult:
    spec = load.spec
    limits = httpx.Limits(
        max_connections=spec.most_in_flight, max_keepalive_connections=spec.most_in_flight
    )
    begin = time.perf_counter()
    async with httpx.AsyncClient(timeout=spec.timeout, limits=limits) as client:
        if spec.rate > 0:
            await _at_rate(load, client, begin)
        else:
            end = begin + spec.seconds
            await asyncio.gather(
                *(_one_client(load, client, end) for _ in range(spec.clients or 4))
            )
    load.result.seconds = time.perf_counter() - begin
    return load.result


async def _at_rate(load: _Load, client: httpx.AsyncClient, begin: float) -> None:
    spec, open_requests = load.spec, set[asyncio.Task[None]]()
    for number in range(max(1, int(spec.seconds * spec.rate))):
        due = begin + number / spec.rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        load.result.late_s = max(load.result.late_s, time.perf_counter() - due)
        if len(open_requests) >= spec.most_in_flight:
            load.result.statuses["refused"] += 1
            continue
        task = asyncio.create_task(load.send(client, due))
        open_requests.add(task)
        task.add_done_callback(open_requests.discard)
    await asyncio.gather(*open_requests)


async def _one_client(load: _Load, client: httpx.AsyncClient, end: float) -> None:
    while (now := time.perf_counter()) < end:
        await load.send(client, now)
