"""The arithmetic of listeners against a slow reference that looks at the whole history anew."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.training.validation.decisions import Best, State, aggregate, combine, observe, vote
from tests.training.validation.test_listener import listener

NAMES = ["AP", "P@5", "RR"]
VALUES = st.one_of(st.integers(0, 6).map(lambda i: i / 8), st.just(math.nan))


@st.composite
def runs(draw):
    names = NAMES[: draw(st.integers(1, 3))]
    interval = draw(st.integers(1, 5))
    metrics = {name: draw(st.booleans()) for name in names}
    spec = listener(
        metrics=metrics,
        interval=interval,
        warmup=draw(st.integers(-1, 4 * interval)),
        early_stop=interval * draw(st.integers(0, 4)) * any(metrics.values()),
        min_delta=draw(st.sampled_from([0.0, 0.125, 0.25])),
    )
    count = draw(st.integers(1, 12))
    return spec, [
        (i * interval, {name: draw(VALUES) for name in names}) for i in range(count)
    ]  # fmt: skip


def reference(spec, history):
    """Bests, their steps and the wish to stop, from the definitions in words."""
    best = {}
    for name in spec.metrics:
        for step, values in history:
            value = values[name]
            if step < spec.warmup or math.isnan(value):
                continue
            if name not in best or value > best[name][0] + spec.min_delta:
                best[name] = (value, step)
    kept = [best[name][1] for name in best if spec.metrics[name]]
    if spec.early_stop == 0:
        return best, None
    return best, bool(kept) and history[-1][0] - max(kept) >= spec.early_stop


@settings(max_examples=300)
@given(runs())
def test_bests_and_the_wish_to_stop_are_those_of_the_definition(run):
    spec, history = run
    state = State()
    for i, (step, values) in enumerate(history):
        before = state
        state, seen = observe(spec, state, step, values)
        best, stop = reference(spec, history[: i + 1])
        assert {k: (b.value, b.step) for k, b in state.best.items()} == best
        assert vote(spec, state) == stop
        assert set(seen.improved) == {k for k, b in best.items() if b[1] == step}
        assert seen.kept == tuple(name for name in seen.improved if spec.metrics[name])
        assert set(seen.not_a_number) == {k for k, v in values.items() if math.isnan(v)}
        assert state.failures == before.failures + len(seen.not_a_number)


@given(runs(), st.integers(0, 11))
def test_a_state_that_went_through_json_decides_alike(run, cut):
    spec, history = run
    direct = restored = State()
    for i, (step, values) in enumerate(history):
        if i == cut:
            restored = State.from_dict(json.loads(json.dumps(restored.to_dict())))
        direct, seen = observe(spec, direct, step, values)
        restored, seen_again = observe(spec, restored, step, values)
        assert seen == seen_again and vote(spec, direct) == vote(spec, restored)
        assert direct.to_dict() == restored.to_dict()


def test_by_hand_warm_up_logs_without_recording_and_stopping_counts_kept_metrics_only():
    spec = listener(metrics={"map": True, "P@5": False}, interval=10, warmup=10, early_stop=20)
    state = State()
    votes = []
    values = [(0.9, 0.1), (0.5, 0.2), (0.5, 0.3), (0.4, 0.4)]
    for step, (m, p) in zip((0, 10, 20, 30), values):
        state, _ = observe(spec, state, step, {"map": m, "P@5": p})
        votes.append(vote(spec, state))
    assert state.best == {"map": Best(0.5, 10), "P@5": Best(0.4, 30)}
    assert votes == [False, False, False, True]
    assert state.baseline == {"map": 0.9, "P@5": 0.1}
    assert state.below_baseline() == {"map": (0.9, 0.4)}


def test_the_baseline_at_step_0_is_a_best_unless_there_is_a_warm_up():
    for warmup, expected in ((-1, {"map": Best(0.5, 0)}), (0, {"map": Best(0.5, 0)}), (1, {})):
        state, _ = observe(listener(metrics={"map": True}, warmup=warmup), State(), 0, {"map": 0.5})
        assert state.best == expected


@pytest.mark.parametrize(
    ("votes", "every", "some"),
    [
        ([], None, None),
        ([None, None], None, None),
        ([None, True], True, True),
        ([True, False, None], False, True),
        ([False], False, False),
    ],
)
def test_a_listener_without_a_vote_blocks_nothing(votes, every, some):
    assert combine(votes) is every and combine(votes, "any") is some


def test_an_aggregate_is_the_mean_of_current_values_or_of_bests_and_nan_where_one_is_missing():
    spec = listener(metrics={"map": True}, interval=1)
    states = []
    for values in ((0.4, 0.2), (0.1, 0.6)):
        state = State()
        for step, value in enumerate(values):
            state, _ = observe(spec, state, step, {"map": value})
        states.append(state)
    assert aggregate(states, ["map"]) == pytest.approx({"map": 0.4})
    assert aggregate(states, ["map"], "best") == pytest.approx({"map": 0.5})
    assert math.isnan(aggregate([*states, State()], ["map"])["map"])
