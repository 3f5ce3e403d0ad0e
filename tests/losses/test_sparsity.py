"""FLOPS and its kin: sentence-transformers' values and gradients, and the closed forms."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.sparse_encoder.callbacks.splade_callbacks import (
    SpladeRegularizerWeightSchedulerCallback,
)
from sentence_transformers.sparse_encoder.losses import (
    FlopsLoss,
    SparseDistillKLDivLoss,
    SparseMarginMSELoss,
    SparseMultipleNegativesRankingLoss,
    SpladeLoss,
)
from torch import Tensor, nn

from raydist.errors import ConfigError
from raydist.losses.inputs import Embeddings, LossBatch, Supervision
from raydist.losses.objective import Objective, make_objective
from raydist.losses.sparsity import counted_terms
from raydist.losses.spec import DistillationLoss, Flops, InfoNCE, Loss


def rows(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Weights of 40 terms of 5 queries and 3 documents of each."""
    torch.manual_seed(seed)
    queries, documents = torch.randn(5, 40).relu(), torch.randn(15, 40).relu()
    return queries.to(dtype).requires_grad_(), documents.to(dtype).requires_grad_()


def batch(queries: Tensor, documents: Tensor, teacher: Tensor | None = None) -> LossBatch:
    sizes = torch.full((5,), 3)
    supervision = Supervision(sizes, torch.ones(5, 3, dtype=torch.bool), targets_BD=teacher)
    return LossBatch(Embeddings(queries, documents), supervision)


def total(goal: Objective, of: LossBatch) -> Tensor:
    return goal.loss(goal.forward(of), goal.counts(of))


class Model(nn.Module):
    """What sentence-transformers' losses ask of a model whose rows are there already."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


def theirs(base: nn.Module, queries: Tensor, documents: Tensor, labels: Tensor | None) -> Tensor:
    """SpladeLoss's sum, computed from embeddings as its `forward` does."""
    lists = documents.reshape(5, 3, -1)
    embeddings = [queries, *lists.unbind(1)]
    splade = SpladeLoss(Model(), base, 0.3, 0.7)
    value = splade.loss.compute_loss_from_embeddings(embeddings, labels)
    value = sum(value.values()) if isinstance(value, dict) else value
    value = value + 0.3 * splade.document_regularizer.compute_loss_from_embeddings(
        torch.cat(embeddings[1:])
    )
    return value + 0.7 * splade.query_regularizer.compute_loss_from_embeddings(queries)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["infonce", "margin_mse", "kl_div"])
def test_values_and_gradients_are_those_of_sentence_transformers(dtype, kind):
    queries, documents = rows(1, dtype)
    teacher = torch.randn(5, 3, dtype=dtype) * 3
    flops = Flops(document=0.3, query=0.7)
    labels: Tensor | None = None
    model = Model()
    base: nn.Module
    loss: Loss
    if kind == "infonce":
        loss = InfoNCE(temperature=1.0, flops=flops)
        base = SparseMultipleNegativesRankingLoss(model)
    elif kind == "margin_mse":
        loss = DistillationLoss(kind="margin_mse", flops=flops)
        base, labels = SparseMarginMSELoss(model), teacher[:, :1] - teacher[:, 1:]
    else:
        loss = DistillationLoss(kind="true_kl", flops=flops)
        base, labels = SparseDistillKLDivLoss(model, temperature=1.0), teacher
    goal = make_objective(loss)
    own = total(goal, batch(queries, documents, teacher))
    expected = theirs(base, queries, documents, labels)
    tolerance = (
        {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0, "atol": 1e-10}
    )
    torch.testing.assert_close(own, expected, **tolerance)
    inputs = (queries, documents)
    for mine, other in zip(
        torch.autograd.grad(own, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(mine, other, **tolerance)


def test_measures_are_their_closed_forms():
    queries, documents = rows(2)
    table = torch.rand(40) * 8
    of = batch(queries, documents)
    of.output = Embeddings(queries, documents, table_V=table)
    means = documents.mean(0)
    flops = (means**2).sum()
    torch.testing.assert_close(flops, FlopsLoss(Model()).compute_loss_from_embeddings(documents))
    for kind, expected in (
        ("flops", flops),
        ("idf_flops", ((means / table.clamp(min=1)) ** 2).sum()),
        ("l1", documents.abs().sum(1).mean()),
    ):
        goal = make_objective(InfoNCE(temperature=1.0, flops=Flops(document=2.0, kind=kind)))
        terms = goal.forward(of)
        value, count = terms[f"{kind}_document"]
        torch.testing.assert_close(value / count, expected)
        assert f"{kind}_query" not in terms
        (gradient,) = torch.autograd.grad(value / count, documents)
        torch.testing.assert_close(
            gradient, *torch.autograd.grad(expected, documents, retain_graph=True)
        )


def test_terms_are_counted_and_not_learned():
    queries, documents = rows(3)
    goal = Objective((counted_terms(),))
    terms = goal.forward(batch(queries, documents))
    value, count = terms["terms_document"]
    assert (int(value), int(count)) == (int((documents > 0).sum()), 15)
    assert goal.total({"terms_document": (float(value), float(count))}) == 0
    assert goal.measures == {"terms_query", "terms_document"}


def test_weights_rise_as_sentence_transformers_do():
    loss = SpladeLoss(Model(), SparseMultipleNegativesRankingLoss(Model()), 0.3, 0.7)
    schedule = SpladeRegularizerWeightSchedulerCallback(loss)
    for steps in (1, 2, 20, 21):
        schedule.on_train_begin(None, type("State", (), {"max_steps": steps}), None)
        goal = make_objective(InfoNCE(flops=Flops(document=0.3, query=0.7)))
        for step in range(steps):
            weights = goal.at(step, steps).weights
            expected = schedule._calculate_weight_value(step, 0.3)
            assert weights["flops_document"] == pytest.approx(expected, abs=1e-15)
            assert weights["infonce"] == 1.0
    goal = make_objective(InfoNCE(flops=Flops(query=0.7, ramp=0)))
    assert goal.at(0, 9).weights == {"infonce": 1.0, "flops_query": 0.7}


def test_idf_flops_needs_a_table():
    goal = make_objective(InfoNCE(flops=Flops(document=1.0, kind="idf_flops")))
    with pytest.raises(ConfigError, match="which this model lacks"):
        goal.forward(batch(*rows(4)))
