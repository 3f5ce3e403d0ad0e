"""Significance: scipy, enumeration and the definition of Holm's procedure are the oracles."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from raydist.evaluation.significance import compare, holm, paired_t, randomisation
from raydist.evaluation.spec import Statistics


def test_the_paired_t_test_is_scipys():
    rng = np.random.default_rng(0)
    for size in (2, 3, 30, 500):
        a, b = rng.random(size), rng.random(size)
        expected = scipy.stats.ttest_rel(a, b)
        assert paired_t(a - b) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-10)


def test_runs_that_are_equal_or_shifted_have_the_limits_of_the_t_test():
    assert paired_t(np.zeros(5)) == (0.0, 1.0)
    assert paired_t(np.full(5, -0.1)) == (-math.inf, 0.0)
    assert math.isnan(paired_t(np.ones(1))[1])


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=7))
def test_the_exact_randomisation_test_enumerates_all_signs(numbers):
    values = np.array(numbers, float)
    sums = [abs(np.dot(s, values)) for s in itertools.product((1, -1), repeat=len(values))]
    expected = np.mean([s >= abs(values.sum()) - 1e-9 for s in sums])
    assert randomisation(values)[1] == pytest.approx(expected, abs=1e-12)


def test_the_random_randomisation_test_agrees_with_scipys():
    values = np.random.default_rng(4).normal(0.2, 1, 60)
    _, p = randomisation(values, resamples=50_000)
    theirs = scipy.stats.permutation_test(
        (values, np.zeros(60)), lambda a, b: np.mean(a - b), permutation_type="samples",
        n_resamples=20_000, rng=5,
    )  # fmt: skip
    assert p == pytest.approx(theirs.pvalue, abs=0.01)
    assert randomisation(values, resamples=50_000)[1] == p
    assert randomisation(np.full(60, 1.0), resamples=99)[1] == 0.01


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_holms_adjusted_p_values_reject_what_the_step_down_procedure_rejects(p_values, alpha):
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = set()
    for step, i in enumerate(order):
        if p_values[i] * (len(p_values) - step) > alpha:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p <= alpha} == rejected


def test_holm_by_hand_and_with_a_comparison_that_cannot_be_tested():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    adjusted = holm([0.02, float("nan"), 0.9])
    assert adjusted[0] == pytest.approx(0.04) and math.isnan(adjusted[1])


def test_a_comparison_counts_wins_ties_and_losses():
    got = compare(np.array([0.5, 0.2, 0.3, 0.9]), np.array([0.4, 0.2, 0.5, 0.1]))
    assert (got.wins, got.ties, got.losses) == (2, 1, 1)
    assert got.difference == pytest.approx(0.175)
    assert compare(np.ones(3), np.zeros(3), Statistics(test="randomisation")).p == 0.25
