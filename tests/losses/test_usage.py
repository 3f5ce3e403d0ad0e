"""Losses in a few lines: specs, an objective, a batch's terms and their total."""

from __future__ import annotations

import pytest
import torch

from raydist.losses.inputs import Embeddings, LossBatch, Scores, Supervision
from raydist.losses.objective import make_objective
from raydist.losses.spec import Distillation, InfoNCE, LambdaLoss, RankNet

SIZES = torch.tensor([3, 2])
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_a_contrastive_loss_with_distillation_beside_it() -> None:
    objective = make_objective(InfoNCE(temperature=0.05), Distillation(kind="kl_div", weight=0.5))
    teacher = torch.tensor([[3.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    torch.manual_seed(0)
    queries, documents = torch.randn(2, 8, requires_grad=True), torch.randn(5, 8)
    batch = LossBatch(Embeddings(queries, documents), Supervision(SIZES, MASK, teacher, teacher))
    terms = objective.forward(batch)
    assert list(terms) == ["infonce", "kl_div"] and objective.weights["kl_div"] == 0.5
    loss = objective.loss(terms, objective.counts(batch))
    sums = {name: (float(value.detach()), float(count)) for name, (value, count) in terms.items()}
    assert float(loss.detach()) == pytest.approx(objective.total(sums), rel=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert queries.grad is not None


def test_several_losses_on_lists_by_name() -> None:
    objective = make_objective(None, None, {"pairs": RankNet(weight=0.3), "top": LambdaLoss(k=2)})
    grades = torch.tensor([[2.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    batch = LossBatch(
        Scores(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])), Supervision(SIZES, MASK, grades)
    )
    terms = objective.forward(batch)
    assert {name: int(count) for name, (_, count) in terms.items()} == {"pairs": 4, "top": 4}
