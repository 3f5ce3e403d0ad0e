"""How teacher scores become targets."""

from __future__ import annotations

import torch

from raydist.losses.spec import TargetSpec
from raydist.losses.targets import make_targets, repair_positive

SCORES = torch.tensor([[12.0, 0.0, 3.0, 3.0], [5.0, 5.0, 0.0, 0.0]])
MASK = torch.tensor([[True] * 4, [True, True, False, False]])


def test_scores_stay_as_they_are() -> None:
    assert make_targets(SCORES, MASK).tolist() == SCORES.tolist()


def test_ranks_are_reversed_so_that_larger_is_better_and_ties_share() -> None:
    targets = make_targets(SCORES, MASK, TargetSpec(kind="rank"))
    assert targets.tolist() == [[4.0, 1.0, 2.5, 2.5], [1.5, 1.5, 0.0, 0.0]]


def test_minmax_scales_each_list_and_a_tied_one_has_no_positive() -> None:
    targets = make_targets(SCORES, MASK, TargetSpec(kind="minmax"))
    assert targets.tolist() == [[1.0, 0.0, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]]


def test_binary_targets_are_one_from_the_threshold_on() -> None:
    targets = make_targets(SCORES, MASK, TargetSpec(kind="binary", threshold=3.0))
    assert targets.tolist() == [[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]


def test_only_a_positive_below_the_best_is_raised() -> None:
    scores = torch.tensor([[1.0, 6.0], [7.0, 6.0]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    expected = torch.tensor([[0.8 * 1.0 + 0.2 * 6.0, 6.0], [7.0, 6.0]])
    torch.testing.assert_close(repair_positive(scores, mask), expected)
