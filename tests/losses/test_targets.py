"""How teacher scores become targets."""

from __future__ import annotations

import torch

from raydist.losses.spec import TargetSpec
from raydist.losses.targets import make_targets, repair_positive

SCORES = torch.tensor([[12.0, 0.0, 3.0, 3.0], [5.0, 5.0, 0.0, 0.0]])
MASK = torch.tensor([[True] * 4, [True, True, False, False]])


def test_score_is_taken_as_it_is() -> None:
    assert make_targets(SCORES, MASK).tolist() == SCORES.tolist()


def test_rank_is_turned_so_that_larger_is_better_and_ties_share() -> None:
    made = make_targets(SCORES, MASK, TargetSpec(kind="rank"))
    assert made.tolist() == [[4.0, 1.0, 2.5, 2.5], [1.5, 1.5, 0.0, 0.0]]


def test_minmax_scales_each_list_and_a_tied_one_has_no_positive() -> None:
    made = make_targets(SCORES, MASK, TargetSpec(kind="minmax"))
    assert made.tolist() == [[1.0, 0.0, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]]


def test_binary_is_one_from_the_threshold_on() -> None:
    made = make_targets(SCORES, MASK, TargetSpec(kind="binary", threshold=3.0))
    assert made.tolist() == [[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]


def test_a_positive_below_the_best_is_pulled_up_only_where_asked() -> None:
    scores = torch.tensor([[1.0, 6.0], [7.0, 6.0]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    expected = torch.tensor([[0.8 * 1.0 + 0.2 * 6.0, 6.0], [7.0, 6.0]])
    torch.testing.assert_close(repair_positive(scores, mask), expected)
