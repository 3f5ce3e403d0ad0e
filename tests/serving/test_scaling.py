"""Replicas for the tokens that wait."""

from __future__ import annotations

import pytest

from raydist.serving.backend import ReplicaState
from raydist.serving.scaling import ByTokens, replicas_for, scaling_stats


@pytest.mark.parametrize(
    ("queued", "requests", "waiting", "wanted"),
    [
        ([3000.0], 4, 0, 3.0),  # a replica computes 1,000 tokens in its second
        ([3000.0, 1000.0], 4, 0, 4.0),
        ([3000.0], 8, 4, 6.0),  # as many requests wait for a replica
        ([0.0], 4, 0, 0.0),
    ],
)
def test_there_are_replicas_for_the_waiting_tokens(
    queued: list[float], requests: float, waiting: float, wanted: float
) -> None:
    tokens = dict(enumerate(queued))
    speeds = {replica: 1000.0 for replica in tokens}
    got = replicas_for(tokens, speeds, target_wait_s=1.0, requests=requests, waiting=waiting)
    assert got == pytest.approx(wanted)


def test_the_policy_takes_the_larger_number() -> None:
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

    config = AutoscalingConfig(min_replicas=1, max_replicas=9, target_ongoing_requests=4)

    def wanted(queued: float, requests: float) -> float:
        stats = scaling_stats(ReplicaState(1, int(queued), 1000.0))
        context = AutoscalingContext(
            deployment_id=None,
            deployment_name="a",
            app_name="raydist",
            current_num_replicas=1,
            target_num_replicas=1,
            running_replicas=[],
            total_num_requests=requests,
            total_queued_requests=0.0,
            aggregated_metrics={name: {"r": value} for name, value in stats.items()},
            raw_metrics=None,
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=9,
            policy_state={},
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=None,
            config=config,
        )
        number, _ = ByTokens(target_wait_s=2.0)(context)
        return number

    assert wanted(0, 0) == 1
    assert wanted(0, 9) == 3
    assert wanted(10_000, 2) == 5
