"""Scopes, masks and streaming of contrastive scores."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raydist.errors import ConfigError
from raydist.losses.contrastive import (
    ScopeScores,
    allowed_own,
    columns_of,
    info_nce,
    scope_scores,
)
from raydist.losses.distillation import m3_kd
from raydist.losses.inputs import Embeddings, LossBatch, Scores, Supervision
from raydist.losses.objective import Objective, make_objective, make_part
from raydist.losses.spec import AdrMse, BiIR, Distillation, InfoNCE, RankNet


def embeddings(queries: int, passages: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(queries, 5, generator=g, dtype=torch.float64)
    return q, torch.randn(passages, 5, generator=g, dtype=torch.float64)


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    block=st.integers(0, 6),
    others=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_streamed_columns_of_ragged_groups_equal_the_full_row(
    sizes: list[int], block: int, others: int, seed: int
) -> None:
    total = sum(sizes)
    q, p = embeddings(len(sizes), total, seed)
    q.requires_grad_()
    p.requires_grad_()
    draw = torch.Generator().manual_seed(seed)
    hashes = torch.randint(0, total, (total,), generator=draw)
    first = torch.tensor([sum(sizes[:i]) for i in range(len(sizes))])
    more = torch.randint(0, total, (len(sizes), others), generator=draw)
    known = torch.cat([hashes[first][:, None], more], 1)
    hashed = {"hashes_P": hashes, "known_BK": known if others else None}
    columns = columns_of(p, torch.tensor(sizes), scope="in_batch", **hashed)
    scores = scope_scores(q, columns, temperature=0.3, column_block=block)
    allowed = allowed_own(columns.mask_BD, **hashed)
    loss = info_nce(scores, allowed_BD=allowed)[0]

    full = q @ p.T / 0.3
    excluded = (hashes[None, :, None] == known[:, None, :]).any(2)
    excluded[torch.arange(len(sizes)), first] = False
    expected = torch.nn.functional.cross_entropy(
        full.masked_fill(excluded, -torch.inf), first, reduction="sum"
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    ours = torch.autograd.grad(loss, (q, p))
    gradients = torch.autograd.grad(expected, (q, p))
    for a, b in zip(ours, gradients):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_gradients_agree_with_finite_differences() -> None:
    q, p = embeddings(3, 6)
    sizes = torch.full((3,), 2)
    teacher = torch.randn(3, 2, dtype=torch.float64)

    def loss(q: Tensor, p: Tensor) -> Tensor:
        columns = columns_of(p, sizes, scope="in_batch")
        scores = scope_scores(q, columns, temperature=0.5, column_block=4)
        return info_nce(scores)[0] + m3_kd(scores, teacher)[0]

    assert torch.autograd.gradcheck(loss, (q.requires_grad_(), p.requires_grad_()))


def test_a_single_query_without_foreign_columns_has_finite_gradients() -> None:
    q, p = embeddings(1, 3)
    q.requires_grad_()
    for scope in ("in_batch", "cross_device", "no_in_batch"):
        columns = columns_of(p, torch.full((1,), 3), scope=scope)  # type: ignore[arg-type]
        total, _ = info_nce(scope_scores(q, columns, temperature=1.0))
        expected = torch.nn.functional.cross_entropy(q @ p.T, torch.tensor([0]))
        assert total.item() == pytest.approx(expected.item())
        assert torch.isfinite(torch.autograd.grad(total, q)[0]).all()


def test_half_precision_embeddings_are_scored_in_float32() -> None:
    q, p = embeddings(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        columns = columns_of(p.bfloat16(), torch.full((2,), 2), scope="in_batch")
        scores = scope_scores(q.bfloat16(), columns, temperature=0.01)
    assert scores.own_BD.dtype == scores.foreign_B.dtype == torch.float32
    exact = q.bfloat16().double() @ p.bfloat16().double().T / 0.01
    torch.testing.assert_close(scores.own_BD[0].double(), exact[0, :2], rtol=1e-5, atol=1e-4)


def test_negatives_above_the_positive_minus_a_margin_are_left_out() -> None:
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    teacher = torch.tensor([[5.0, 4.5, 3.9, 6.0], [1.0, -1.0, 0.0, 0.0]])
    allowed = allowed_own(mask, teacher_BD=teacher, margin=1.0)
    assert allowed.tolist() == [[True, False, True, False], [True, True, False, False]]


def test_m3_kd_of_several_queries_without_in_batch_negatives_is_the_formula() -> None:
    own = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    teacher = torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    scores = ScopeScores(own, torch.ones(2, 2, dtype=torch.bool), torch.full((2,), -torch.inf))
    total, count = m3_kd(scores, teacher)
    t = 1 / (1 + math.exp(-1.0))
    # The last document of a list competes with nothing: its term is 0.
    expected = t * math.log1p(math.exp(-1.0)) + 0.5 * math.log1p(math.exp(1.5))
    assert total.item() == pytest.approx(expected) and count.item() == 2


def forward(teacher: bool = True) -> LossBatch:
    q, p = embeddings(4, 8)
    supervision = Supervision(
        sizes_B=torch.full((4,), 2),
        mask_BD=torch.ones(4, 2, dtype=torch.bool),
        targets_BD=torch.randn(4, 2, dtype=torch.float64) if teacher else None,
        labels_BD=torch.tensor([[1.0, 0.0]] * 4),
        hashes_P=torch.arange(8),
        answer_mask_BA=torch.tensor([[True], [False], [True], [True]]),
    )
    return LossBatch(Embeddings(q, p, q + 1.0), supervision)


def test_terms_have_their_own_names_and_weights() -> None:
    objective = Objective(
        (
            make_part(InfoNCE(weight=2.0), distill=Distillation(kind="kl_div", weight=0.3)),
            make_part(InfoNCE(temperature=0.5, scope="no_in_batch"), "hard"),
        )
    )
    assert objective.weights == {"infonce": 2.0, "kl_div": 0.6, "hard": 1.0}
    terms = objective.forward(forward())
    means = {name: (s / n).item() for name, (s, n) in terms.items()}
    assert objective.total(
        {n: (s.item(), c.item()) for n, (s, c) in terms.items()}
    ) == pytest.approx(2.0 * means["infonce"] + 0.6 * means["kl_div"] + means["hard"])


def test_counts_without_the_model_are_the_counts_of_the_losses() -> None:
    objective = Objective(
        (
            make_part(
                BiIR(training_type="retrieval_answer_passage"),
                distill=Distillation(kind="margin_mse"),
            ),
            make_part(RankNet(), "pairs"),
            make_part(AdrMse(), "documents"),
        )
    )
    terms = objective.forward(forward())
    expected = [float(terms[n][1]) if n in terms else 0.0 for n in objective.names]
    assert objective.counts(forward()).tolist() == expected
    assert dict(zip(objective.names, expected))["qa"] == 3.0


def test_m3_kd_replaces_the_hard_loss_where_there_is_a_teacher() -> None:
    objective = make_objective(InfoNCE(), Distillation(kind="m3_kd"))
    assert set(objective.forward(forward())) == {"m3_kd"}
    assert set(objective.forward(forward(teacher=False))) == {"infonce"}
    both = make_objective(InfoNCE(), Distillation(kind="m3_kd", hard=True))
    assert set(both.forward(forward())) == {"infonce", "m3_kd"}


def test_biir_on_pairs_and_a_missing_teacher_are_refused() -> None:
    supervision = Supervision(torch.tensor([2]), torch.ones(1, 2, dtype=torch.bool))
    pairs = LossBatch(Scores(torch.zeros(2)), supervision)
    with pytest.raises(ConfigError, match=r"loss\.kind=biir needs a bi-encoder"):
        make_objective(BiIR()).forward(pairs)
    with pytest.raises(ConfigError, match="adr_mse needs teacher scores"):
        make_objective(AdrMse()).forward(pairs)


def test_two_losses_with_the_same_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two losses are called 'infonce'"):
        Objective((make_part(InfoNCE()), make_part(InfoNCE())))


def test_retrieval_has_no_answer_terms_even_with_answers() -> None:
    objective = make_objective(BiIR(training_type="retrieval", normalize_answer=True))
    assert objective.names == ("qp",)
    assert set(objective.forward(forward(teacher=False))) == {"qp"}
