"""Values recorded from reference implementations, and values computed by hand."""

from __future__ import annotations

import pytest
import torch

from raydist.losses import distillation, listwise, pairwise
from raydist.losses.contrastive import ScopeScores
from raydist.losses.gather import SumCount


def mean(result: SumCount) -> float:
    return float(result[0] / result[1])


@pytest.fixture
def lists() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    s, y = torch.randn(3, 5), torch.randn(3, 5)
    return s, y, torch.ones(3, 5, dtype=torch.bool)


def test_recorded_values_of_random_lists(lists: tuple[torch.Tensor, ...]) -> None:
    s, y, mask = lists
    near = {"rel": 1e-6}
    assert mean(listwise.distill_rank_net(s, y, mask)) == pytest.approx(0.8479184, **near)
    in_bits = listwise.distill_rank_net(s, y, mask, log_base_2=True)
    assert mean(in_bits) == pytest.approx(1.2232877, **near)
    assert mean(listwise.adr_mse(s, y, mask)) == pytest.approx(1.7442387, **near)
    assert mean(distillation.true_kl(s, y, mask)) == pytest.approx(0.6928564, **near)
    assert mean(pairwise.margin_mse_pairs(s, y, mask)) == pytest.approx(3.2510619, **near)
    assert mean(listwise.list_net(s, y, mask)) == pytest.approx(2.0537777, **near)
    alone = ScopeScores(s, mask, torch.full((3,), -torch.inf))
    in_order = distillation.list_mle(alone, mean=False)
    assert mean(in_order) == pytest.approx(5.5192771, **near)
    assert mean(distillation.list_mle(alone)) == pytest.approx(5.5192771 / 5, **near)


def test_values_computed_by_hand() -> None:
    s, t = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[3.0, 2.0, 1.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert mean(listwise.distill_rank_net(s, t, mask)) == pytest.approx(0.2511505, abs=1e-7)
    assert mean(listwise.adr_mse(s, t, mask)) == pytest.approx(0.0753280, abs=1e-7)
