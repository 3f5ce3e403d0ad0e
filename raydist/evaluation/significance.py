"""What chance explains: intervals of means, paired tests of two runs, Holm's correction.

Q queries that were measured, for a test by both runs; the tests are two-sided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raydist.evaluation.spec import Statistics

_EXACT = 16  # up to 2^16 sign patterns are enumerated


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of a mean over queries; `method` names how it was estimated."""

    low: float
    high: float
    method: str


def interval(
    values_Q: np.ndarray,
    statistics: Statistics = Statistics(),  # noqa: B008  frozen
) -> Interval:
    """Returns the confidence interval of one measure's mean over queries.

    `bootstrap` takes percentiles of the means of queries sampled with replacement (Efron); `t` is
    mean ± t · s / √Q, Student's t with Q − 1 degrees of freedom. A single query gives no interval:
    both ends are NaN.
    """
    values = np.asarray(values_Q, np.float64)
    count, level, resamples = len(values), statistics.level, statistics.resamples
    if statistics.interval == "t":
        label = f"t({count - 1}), {level:.0%}"
    else:
        label = f"bootstrap({resamples}), {level:.0%}"
    if count < 2:
        return Interval(float("nan"), float("nan"), label)
    if statistics.interval == "t":
        from scipy.special import stdtrit

        half = stdtrit(count - 1, 0.5 + level / 2) * values.std(ddof=1) / np.sqrt(count)
        return Interval(float(values.mean() - half), float(values.mean() + half), label)
    rng = np.random.default_rng(statistics.seed)
    means = np.empty(resamples)
    step = max(1, 4_000_000 // count)  # bounds the sampled indices to 32 MB
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        means[start:stop] = values[rng.integers(0, count, (stop - start, count))].mean(1)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(low), float(high), label)


@dataclass(frozen=True, slots=True)
class PairedTest:
    """A comparison of a run with a baseline on the same queries.

    Attributes:
        difference: mean of run − baseline.
        p: two-sided p-value, uncorrected.
        statistic: t of the t-test; the mean difference of the randomisation test.
        wins, ties, losses: queries on which the run is above, equal to, below the baseline.
        test: the name of the test.
    """

    difference: float
    p: float
    statistic: float
    wins: int
    ties: int
    losses: int
    test: str


def compare(
    values_Q: np.ndarray,
    baseline_Q: np.ndarray,
    statistics: Statistics = Statistics(),  # noqa: B008  frozen
) -> PairedTest:
    """Compares a run's values with a baseline's, query by query."""
    difference = np.asarray(values_Q, np.float64) - np.asarray(baseline_Q, np.float64)
    if statistics.test == "t":
        statistic, p = paired_t(difference)
        name = f"paired t({len(difference) - 1})"
    else:
        resamples = statistics.resamples
        statistic, p = randomisation(difference, resamples=resamples, seed=statistics.seed)
        exact = len(difference) <= _EXACT
        name = "randomisation, exact" if exact else f"randomisation({resamples})"
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    mean = float(difference.mean())
    return PairedTest(mean, p, statistic, wins, len(difference) - wins - losses, losses, name)


def paired_t(difference_Q: np.ndarray) -> tuple[float, float]:
    """Returns Student's paired t and its two-sided p-value.

    t = mean / (s / √Q) with Q − 1 degrees of freedom, p = I_{ν/(ν+t²)}(ν/2, 1/2). Equal runs have
    t = 0 and p = 1; a difference that is constant and not 0 has infinite t and p = 0; fewer than
    two queries give p = NaN.
    """
    from scipy.special import betainc

    count = len(difference_Q)
    if count < 2:
        return float("nan"), float("nan")
    mean, spread = float(np.mean(difference_Q)), float(np.std(difference_Q, ddof=1))
    # Rounding leaves a spread of some ulps where all differences are equal.
    if spread <= abs(mean) * 1e-14:
        return (0.0, 1.0) if mean == 0 else (float(np.copysign(np.inf, mean)), 0.0)
    t = mean / (spread / np.sqrt(count))
    freedom = count - 1
    return float(t), float(betainc(freedom / 2, 0.5, freedom / (freedom + t * t)))


def randomisation(
    difference_Q: np.ndarray, *, resamples: int = 100_000, seed: int = 0
) -> tuple[float, float]:
    """Returns the mean difference and the p-value of Fisher's randomisation (sign-flip) test.

    p is the share of sign patterns whose mean is at least as far from 0 as the observed one. All
    patterns are enumerated up to 16 queries that differ; beyond that `resamples` random ones give
    p = (1 + hits) / (1 + resamples), which is never 0 (Phipson and Smyth, 2010).
    """
    values = np.asarray(difference_Q, np.float64)
    observed = float(values.mean()) if len(values) else float("nan")
    moving = values[values != 0]  # a sign does not change a zero
    if not len(moving):
        return observed, 1.0 if len(values) else float("nan")
    limit = abs(moving.sum()) * (1 - 1e-12)  # sums that differ by rounding alone are equal
    if len(moving) <= _EXACT:
        patterns = np.arange(1 << len(moving))[:, None] >> np.arange(len(moving)) & 1
        sums = (1 - 2 * patterns) @ moving
        return observed, float((np.abs(sums) >= limit).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    step = max(1, 4_000_000 // len(moving))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        signs = rng.integers(0, 2, (size, len(moving)), dtype=np.int8) * 2.0 - 1.0
        hits += int((np.abs(signs @ moving) >= limit).sum())
    return observed, (1 + hits) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted by Holm's step-down method (1979), in their order.

    The i-th smallest of m is multiplied by m − i + 1, then made monotone and cut at 1. A NaN stays
    NaN and is no member of the family.
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted.tolist()
