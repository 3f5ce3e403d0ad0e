"""MaxSim and the losses on it against sentence-transformers and naive loops."""

from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers.multi_vector_encoder.scoring import colbert_kd_scores, colbert_scores
from sentence_transformers.util import maxsim
from torch import Tensor
from torch.nn import functional as F

from raydist.losses.inputs import Embeddings, LossBatch, Supervision
from raydist.losses.objective import Objective, make_objective
from raydist.losses.similarity import all_pairs, own_pairs, pair_gradients
from raydist.losses.spec import Distillation, InfoNCE

GROUP = 3


def vectors(rows: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Unit vectors of tokens, zeros behind and between them."""
    generator = torch.Generator().manual_seed(seed)
    made = F.normalize(torch.randn(rows, width, 8, generator=generator, dtype=dtype), dim=-1)
    mask = torch.rand(rows, width, generator=generator) > 0.3
    mask[:, 0] = True
    return (made * mask[..., None]).requires_grad_()


def real(rows: Tensor) -> Tensor:
    return (rows.detach() != 0).any(-1)


def naive(query: Tensor, document: Tensor) -> Tensor:
    """The score of one query for one document, token by token."""
    tokens = [row for row in document if bool((row != 0).any())]
    terms = [torch.stack([q @ d for d in tokens]).max() for q in query if bool((q != 0).any())]
    return torch.stack(terms).sum()


def test_scores_and_gradients_of_all_pairs_are_those_of_loops() -> None:
    queries, documents = vectors(4, 5, 0), vectors(6, 7, 1)
    weights = torch.randn(4, 6, dtype=torch.float64)
    scores = all_pairs(queries, documents)
    expected = torch.stack([torch.stack([naive(q, d) for d in documents]) for q in queries])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)
    own = torch.autograd.grad((expected * weights).sum(), (queries, documents))
    for mine, reference in zip(pair_gradients(queries, documents, weights), own):
        torch.testing.assert_close(mine * (reference != 0), reference, rtol=0, atol=1e-10)
    lists = documents.reshape(2, 3, 7, 8)
    torch.testing.assert_close(
        own_pairs(queries[:2], lists), torch.stack([expected[0, :3], expected[1, 3:]])
    )


def test_scores_are_those_of_sentence_transformers() -> None:
    queries, documents = vectors(4, 5, 0, torch.float32), vectors(6, 7, 1, torch.float32)
    expected = maxsim(queries, documents, a_mask=real(queries), b_mask=real(documents))
    torch.testing.assert_close(all_pairs(queries, documents), expected, rtol=1e-5, atol=1e-5)


def test_a_document_without_vectors_scores_nothing() -> None:
    queries, documents = vectors(2, 3, 0), vectors(2, 4, 1)
    documents = torch.cat([documents, torch.zeros(1, 4, 8, dtype=torch.float64)])
    assert all_pairs(queries, documents)[:, 2].tolist() == [0, 0]


def value(
    objective: Objective, queries: Tensor, documents: Tensor, teacher: Tensor | None = None
) -> Tensor:
    size = len(queries)
    supervision = Supervision(
        sizes_B=torch.full((size,), GROUP),
        mask_BD=torch.ones(size, GROUP, dtype=torch.bool),
        targets_BD=teacher,
        scores_BD=teacher,
    )
    batch = LossBatch(Embeddings(queries, documents), supervision)
    ((total, count),) = objective.forward(batch).values()
    return total / count


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [0, 4])
def test_infonce_is_the_multiple_negatives_ranking_loss(dtype: torch.dtype, block: int) -> None:
    queries, documents = vectors(5, 4, 0, dtype), vectors(5 * GROUP, 6, 1, dtype)
    loss = InfoNCE(temperature=0.7, scope="in_batch", column_block=block)
    own = value(make_objective(loss), queries, documents)
    stacked = documents.reshape(5, GROUP, 6, 8)
    scores = torch.stack([torch.stack([naive(q, d) for d in documents]) for q in queries])
    if dtype == torch.float32:
        scores = colbert_scores(
            queries,
            stacked,
            queries_mask=real(queries),
            documents_mask=real(documents).reshape(5, GROUP, 6),
        )
    expected = F.cross_entropy(scores / 0.7, torch.arange(5) * GROUP)
    assert_same(own, expected, queries, documents, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["kl_div", "margin_mse"])
def test_distillation_has_the_formulas_of_sentence_transformers(
    dtype: torch.dtype, kind: str
) -> None:
    queries, documents = vectors(5, 4, 0, dtype), vectors(5 * GROUP, 6, 1, dtype)
    teacher = torch.randn(5, GROUP, dtype=dtype)
    objective = make_objective(
        InfoNCE(temperature=1.0),
        Distillation(kind=kind, hard=False),  # type: ignore[arg-type]
    )
    own = value(objective, queries, documents, teacher)
    masks = {"queries_mask": real(queries), "documents_mask": real(documents).reshape(5, GROUP, 6)}
    if dtype == torch.float32:
        scores = colbert_kd_scores(queries, documents.reshape(5, GROUP, 6, 8), **masks)
    else:
        lists = documents.reshape(5, GROUP, 6, 8)
        scores = torch.stack(
            [torch.stack([naive(q, d) for d in ds]) for q, ds in zip(queries, lists)]
        )
    if kind == "kl_div":
        log_student, log_teacher = scores.log_softmax(-1), teacher.log_softmax(-1)
        expected = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
        # A constant of the teacher, its entropy, may be left out of a loss.
        difference = (own - expected).detach()
        entropy = -(log_teacher.exp() * log_teacher).sum(-1).mean()
        assert min(abs(float(difference)), abs(float(difference - entropy))) < 1e-5
        expected = expected + difference
    else:
        margins = scores[:, :1] - scores[:, 1:]
        expected = F.mse_loss(margins, teacher[:, :1] - teacher[:, 1:])
    assert_same(own, expected, queries, documents, dtype)


def assert_same(
    own: Tensor, expected: Tensor, queries: Tensor, documents: Tensor, dtype: torch.dtype
) -> None:
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    assert math.isclose(
        float(own.detach()), float(expected.detach()), abs_tol=tolerance, rel_tol=tolerance
    )
    mine = torch.autograd.grad(own, (queries, documents))
    other = torch.autograd.grad(expected, (queries, documents))
    for a, b, rows in zip(mine, other, (queries, documents)):
        mask = real(rows)[..., None]  # rows of zeros stand for no token: no gradient leaves them
        torch.testing.assert_close(a * mask, b * mask, rtol=tolerance, atol=tolerance)
