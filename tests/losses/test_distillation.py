"""Distillation: temperatures, the two forms of the divergence, padding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.losses.contrastive import ScopeScores
from raydist.losses.distillation import kl_div, list_mle, m3_kd, teacher_shares, true_kl

MASK = torch.tensor([[True, True, True], [True, True, False]])
SCORES = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, 9.0]], dtype=torch.float64)
TEACHER = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 7.0]], dtype=torch.float64)


def test_the_two_forms_differ_only_by_the_entropy_of_the_teacher() -> None:
    s = SCORES.clone().requires_grad_()
    cross, count = kl_div(s, TEACHER, MASK, temperature=2.0)
    divergence, same = true_kl(s, TEACHER, MASK, temperature=2.0)
    shares = teacher_shares(TEACHER, MASK, temperature=2.0)
    entropy = -(shares[MASK] * shares[MASK].log()).sum()
    assert count == same == 2
    assert (cross - divergence).item() == pytest.approx(entropy.item())
    torch.testing.assert_close(*(torch.autograd.grad(x, s)[0] for x in (cross, divergence)))


def test_a_student_that_agrees_with_the_teacher_has_no_divergence() -> None:
    total, _ = true_kl(TEACHER / 2.0, TEACHER, MASK, temperature=2.0)
    assert total.item() == pytest.approx(0.0, abs=1e-12)


def test_a_certain_teacher_makes_m3_kd_the_cross_entropy() -> None:
    certain = torch.tensor([[1e6, 0.0, 0.0], [1e6, 0.0, 0.0]], dtype=torch.float64)
    foreign = torch.tensor([0.3, -0.2], dtype=torch.float64)
    total, _ = m3_kd(ScopeScores(SCORES, MASK, foreign), certain)
    rows = [[0.5, -1.0, 2.0, 0.3], [1.0, 0.0, -0.2]]
    expected = sum(math.log(sum(math.exp(x) for x in row)) - row[0] for row in rows)
    assert total.item() == pytest.approx(expected)


@settings(deadline=None)
@given(seed=st.integers(0, 99), fill=st.floats(-1e3, 1e3), foreign=st.booleans())
def test_padding_has_neither_weight_nor_gradient(seed: int, fill: float, foreign: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    s = torch.randn(2, 3, generator=g, dtype=torch.float64).masked_fill(~MASK, fill)
    s.requires_grad_()
    outside = torch.full((2,), 0.7 if foreign else -torch.inf, dtype=torch.float64)
    short = ScopeScores(s[1:, :2], MASK[1:, :2], outside[1:])
    padded = ScopeScores(s, MASK, outside)
    first = ScopeScores(s[:1], MASK[:1], outside[:1])
    teacher = TEACHER.masked_fill(~MASK, fill)
    total, count = m3_kd(padded, teacher)
    alone = m3_kd(first, teacher[:1])[0] + m3_kd(short, teacher[1:, :2])[0]
    assert count == 2 and total.item() == pytest.approx(alone.item())
    ordered = list_mle(padded)[0]
    apart = list_mle(first)[0] + list_mle(short)[0]
    assert ordered.item() == pytest.approx(apart.item())
    gradient = torch.autograd.grad(total + ordered, s)[0]
    assert torch.isfinite(gradient).all() and gradient[1, 2] == 0
