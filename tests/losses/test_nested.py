from __future__ import annotations

import numpy as np
import pytest
import torch

from raydist.losses.inputs import Embeddings, LossBatch, Supervision
from raydist.losses.nested import nested
from raydist.losses.objective import make_objective
from raydist.losses.spec import BiIR, InfoNCE

B, G, WIDTH, TAU = 4, 3, 8, 0.5


def example(width=WIDTH):
    torch.manual_seed(0)
    queries = torch.randn(B, width, dtype=torch.float64, requires_grad=True)
    passages = torch.randn(B * G, width, dtype=torch.float64, requires_grad=True)
    supervision = Supervision(torch.full((B,), G), torch.ones(B, G, dtype=torch.bool))
    return LossBatch(Embeddings(queries, passages), supervision)


def info_nce(queries, passages):
    """The definition: each query against all passages of the batch; its own first is correct."""
    scores = queries @ passages.T / TAU
    lse = np.log(np.exp(scores).sum(axis=1))
    return float(np.mean(lse - scores[np.arange(B), np.arange(B) * G]))


@pytest.mark.parametrize("normalize", [False, True])
def test_the_loss_is_the_mean_over_the_prefixes_and_the_whole_vector(normalize):
    batch = example()
    objective = nested(
        make_objective(InfoNCE(temperature=TAU)), (2, 4), width=WIDTH, normalize=normalize
    )
    assert objective.names == ("infonce", "infonce@4", "infonce@2")
    terms = objective.forward(batch)
    q, p = (x.detach().numpy() for x in (batch.output.queries_Bd, batch.output.passages_Pd))
    expected = {}
    for m in (8, 4, 2):
        a, b = q[:, :m], p[:, :m]
        if normalize and m < 8:
            a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        expected[m] = info_nce(a, b)
    for name, m in (("infonce", 8), ("infonce@4", 4), ("infonce@2", 2)):
        assert (terms[name][0] / terms[name][1]).item() == pytest.approx(expected[m], abs=1e-10)
    loss = objective.loss(terms, objective.counts(batch))
    assert loss.item() == pytest.approx(np.mean(list(expected.values())), abs=1e-10)
    loss.backward()
    gradient = batch.output.queries_Bd.grad
    assert gradient.abs().min() > 0


def test_the_whole_width_is_not_counted_twice():
    objective = nested(make_objective(InfoNCE()), (4, 8), width=8, normalize=True)
    assert objective.weights == {"infonce": 0.5, "infonce@4": 0.5}


def test_only_whole_answers_are_drawn_to_length_one():
    loss = BiIR(training_type="retrieval_answer")
    objective = nested(make_objective(loss), (2, 4), width=WIDTH, normalize=False)
    assert [name for name in objective.names if "norm" in name] == ["answer_norm"]
    assert objective.weights["answer_norm"] == 1.0
    assert objective.weights["qa@2"] == pytest.approx(1 / 3)
    torch.manual_seed(1)
    answers = torch.randn(B, WIDTH, dtype=torch.float64)
    output = Embeddings(example().output.queries_Bd, example().output.passages_Pd, answers)
    supervision = Supervision(
        torch.full((B,), G),
        torch.ones(B, G, dtype=torch.bool),
        answer_mask_BA=torch.ones(B, 1, dtype=torch.bool),
    )
    terms = objective.forward(LossBatch(output, supervision))
    assert terms.keys() == set(objective.names)
    expected = ((answers.norm(dim=1) - 1) ** 2).sum()
    assert terms["answer_norm"][0].item() == pytest.approx(expected.item(), abs=1e-10)
