"""The service's numbers in Ray's Prometheus endpoint.

Names begin with `raydist_` there (Ray adds `ray_` before it).
"""

from __future__ import annotations

from dataclasses import replace

from ray.util.metrics import Counter, Gauge, Histogram

from raydist.reranking.batcher import MicroBatcher
from raydist.reranking.request import Stats
from raydist.serving.backend import Cost

_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0]
_SIZES = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0]


class RayMetrics:
    """Counters, histograms and gauges of one ingress."""

    def __init__(self) -> None:
        self._requests = Counter(
            "raydist_requests", "Answered requests", tag_keys=("route", "status")
        )
        self._seconds = Histogram(
            "raydist_request_seconds", "Latency", boundaries=_SECONDS, tag_keys=("route",)
        )
        self._stages = {
            stage: Histogram(
                f"raydist_{stage}_seconds",
                f"Seconds in stage {stage}",
                boundaries=_SECONDS,
                tag_keys=("model",),
            )
            for stage in ("queue", "tokenize", "infer")
        }
        self._tokens = Histogram(
            "raydist_request_tokens", "Tokens of a request", boundaries=_SIZES, tag_keys=("model",)
        )
        self._pairs = Counter("raydist_pairs", "Scored or embedded documents", tag_keys=("model",))
        self._cached = Counter(
            "raydist_cached_prefix_tokens", "Prefix tokens not computed", tag_keys=("model",)
        )
        self._open = Gauge("raydist_requests_under_way", "Requests let in")
        self._admitted = Gauge("raydist_tokens_under_way", "Estimated tokens let in")

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.inc(1, {"route": route, "status": str(status)})
        self._seconds.observe(max(seconds, 1e-9), {"route": route})

    def computed(self, model: str, cost: Cost, documents: int) -> None:
        """Counts the cost of a scoring or an embedding."""
        tags = {"model": model}
        timings_ms = cost.timings_ms
        for stage, histogram in self._stages.items():
            histogram.observe(max(timings_ms[stage] / 1000, 1e-9), tags)
        self._tokens.observe(max(cost.tokens, 1), tags)
        self._pairs.inc(documents, tags)
        if cost.cached_prefix_tokens:
            self._cached.inc(cost.cached_prefix_tokens, tags)

    def under_way(self, requests: int, tokens: int) -> None:
        """Sets the gauges of admitted work."""
        self._open.set(requests)
        self._admitted.set(tokens)


class BatcherMetrics:
    """Counters of one replica's batcher, and a gauge of the tokens that wait in it.

    Args:
        model: the served name.
    """

    def __init__(self, model: str) -> None:
        self._tags = {"model": model}
        keys = ("model",)
        self._counters = {
            "batches": Counter("raydist_batches", "Batches computed", tag_keys=keys),
            "tokens": Counter("raydist_batch_tokens", "Tokens of batches", tag_keys=keys),
            "padded_tokens": Counter(
                "raydist_padded_batch_tokens", "The same with padding", tag_keys=keys
            ),
        }
        self._queued = Gauge("raydist_queued_tokens", "Tokens waiting for a batch", tag_keys=keys)
        self._batcher: MicroBatcher | None = None
        self._counted = Stats()

    def update(self, batcher: MicroBatcher) -> None:
        """Counts the work since the last update; a newer model's batcher starts at zero."""
        if batcher is not self._batcher:
            self._batcher, self._counted = batcher, Stats()
        stats = replace(batcher.stats)
        for name, counter in self._counters.items():
            more = getattr(stats, name) - getattr(self._counted, name)
            if more:
                counter.inc(more, self._tags)
        self._counted = stats
        self._queued.set(batcher.queued_tokens, self._tags)


class ShardCounters:
    """Counters of the shards of an index, as the process that asks them sees them."""

    def __init__(self) -> None:
        keys = ("shard",)
        self._seconds = Histogram(
            "raydist_shard_seconds",
            "Seconds until a shard answers a call",
            boundaries=_SECONDS,
            tag_keys=keys,
        )
        self._failures = Counter(
            "raydist_shard_failures", "Losses of a shard's replicas", tag_keys=keys
        )
        self._hedges = Counter(
            "raydist_shard_hedges", "Calls for which a second replica was asked", tag_keys=keys
        )
        self._documents = Gauge(
            "raydist_shard_documents", "Documents of a shard, of all indexes", tag_keys=keys
        )

    def answered(self, shard: int, seconds: float) -> None:
        """Counts an answer."""
        self._seconds.observe(max(seconds, 1e-9), _shard(shard))

    def failed(self, shard: int) -> None:
        """Counts the loss of a replica."""
        self._failures.inc(1, _shard(shard))

    def hedged(self, shard: int) -> None:
        """Counts a call for which another replica was asked as well."""
        self._hedges.inc(1, _shard(shard))

    def searched(self, shard: int, documents: int) -> None:
        """Sets how many documents a shard has, of all indexes."""
        self._documents.set(documents, _shard(shard))


def _shard(number: int) -> dict[str, str]:
    return {"shard": str(number + 1)}
