"""How many replicas a model needs: by the tokens that wait, and by the requests under way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raydist.serving.backend import ReplicaState

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

QUEUED, SPEED = "queued_tokens", "tokens_per_s"


def scaling_stats(state: ReplicaState) -> dict[str, float]:
    """Returns what a replica reports for scaling."""
    return {QUEUED: float(state.queued_tokens), SPEED: float(state.tokens_per_s)}


class ByTokens:
    """Ray Serve's scaling policy for models.

    Args:
        target_wait_s: seconds that the waiting tokens may take.
    """

    def __init__(self, target_wait_s: float = 1.0) -> None:
        self.target_wait_s = target_wait_s

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Returns the number of replicas, before Serve's delays and bounds, and no state."""
        metrics = context.aggregated_metrics or {}
        target = context.config.target_ongoing_requests if context.config else 1.0
        by_requests = context.total_num_requests / target
        by_tokens = replicas_for(
            metrics.get(QUEUED, {}),
            metrics.get(SPEED, {}),
            target_wait_s=self.target_wait_s,
            requests=context.total_num_requests,
            waiting=context.total_queued_requests or 0.0,
        )
        wanted = math.ceil(max(by_requests, by_tokens, context.capacity_adjusted_min_replicas))
        return wanted, {}


def replicas_for(
    queued: Mapping[Any, float],
    speeds: Mapping[Any, float],
    *,
    target_wait_s: float,
    requests: float,
    waiting: float,
) -> float:
    """Returns how many replicas compute the waiting tokens in time.

    Args:
        queued: the tokens that wait in each replica.
        speeds: tokens per second of each.
        target_wait_s: the time.
        requests: all under way.
        waiting: those of them that are in no replica yet; they count as many tokens as the others.
    """
    known = [speed for speed in speeds.values() if speed > 0]
    if not known:
        return 0.0
    tokens = sum(queued.values())
    if 0 < waiting < requests:
        tokens *= requests / (requests - waiting)
    return tokens / (target_wait_s * sum(known) / len(known))
