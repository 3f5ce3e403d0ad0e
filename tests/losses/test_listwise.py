"""Properties of losses on lists, and their corner cases."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raydist.errors import DataError
from raydist.losses import listwise, pairwise
from raydist.losses.gather import SumCount
from raydist.losses.inputs import LossBatch, Scores, Supervision
from raydist.losses.objective import make_objective
from raydist.losses.spec import ListInfoNCE
from raydist.losses.targets import ranks

ListLoss = Callable[[Tensor, Tensor, Tensor], SumCount]

LOSSES: dict[str, ListLoss] = {
    "ranknet": listwise.distill_rank_net,
    "ranknet per query": lambda s, t, m: listwise.distill_rank_net(s, t, m, per_query=True),
    "adr": listwise.adr_mse,
    "listnet": listwise.list_net,
    "info_nce": listwise.info_nce_list,
    "lambda": listwise.lambda_loss,
    "softmax ce": listwise.listwise_softmax_ce,
    "softmax ce gains": lambda s, t, m: listwise.listwise_softmax_ce(s, t, m, gains=True),
    "margin pairs": pairwise.margin_mse_pairs,
}
WITH_FIRST: dict[str, ListLoss] = {"margin": pairwise.margin_mse, "kl": pairwise.pairwise_kl}


def table(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def full(x: Tensor) -> Tensor:
    return torch.ones_like(x, dtype=torch.bool)


LIST = st.lists(
    st.tuples(st.floats(-5, 5), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=7
)


@pytest.mark.parametrize("name", [*LOSSES, *WITH_FIRST])
@settings(deadline=None)
@given(lists=st.lists(LIST, min_size=1, max_size=4), fill=st.floats(-100, 100))
def test_a_ragged_batch_is_the_sum_of_its_lists_whatever_the_padding(
    name: str, lists: list[list[tuple[float, float]]], fill: float
) -> None:
    loss = (LOSSES | WITH_FIRST)[name]
    longest = max(map(len, lists))
    s = torch.full((len(lists), longest), fill, dtype=torch.float64)
    t, mask = s.clone(), torch.zeros_like(s, dtype=torch.bool)
    alone = [0.0, 0.0]
    for i, row in enumerate(lists):
        own_s, own_t = table([[a for a, _ in row]]), table([[b for _, b in row]])
        s[i, : len(row)], t[i, : len(row)], mask[i, : len(row)] = own_s, own_t, True
        for k, value in enumerate(loss(own_s, own_t, full(own_s))):
            alone[k] += value.item()
    s.requires_grad_()
    total, count = loss(s, t, mask)
    assert total.item() == pytest.approx(alone[0], rel=1e-9, abs=1e-9)
    assert count.item() == alone[1]
    total.backward()
    assert s.grad is not None and torch.isfinite(s.grad).all()
    assert not s.grad[~mask].any()


@pytest.mark.parametrize("name", LOSSES)
@settings(deadline=None)
@given(row=LIST, seed=st.integers(0, 99))
def test_permuting_a_list_changes_nothing(
    name: str, row: list[tuple[float, float]], seed: int
) -> None:
    # Distinct scores and, for losses on the best document, distinct targets.
    s = table([[a + i * 1e-3 for i, (a, _) in enumerate(row)]])
    t = table([[b / (1.0 + i * 1e-3) for i, (_, b) in enumerate(row)]])
    if name in ("info_nce", "lambda"):
        t = t + table([[i * 1e-6 for i in range(len(row))]])
        s = s + table([[i * 1e-5 for i in range(len(row))]])
    order = torch.randperm(len(row), generator=torch.Generator().manual_seed(seed))
    before = LOSSES[name](s, t.clamp(max=1), full(s))
    after = LOSSES[name](s[:, order], t[:, order].clamp(max=1), full(s))
    for a, b in zip(before, after):
        assert a.item() == pytest.approx(b.item(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["ranknet", "ranknet per query", "adr", "listnet", "lambda"])
@settings(deadline=None)
@given(row=LIST, shift=st.floats(-50, 50))
def test_adding_a_constant_to_the_scores_changes_nothing(
    name: str, row: list[tuple[float, float]], shift: float
) -> None:
    s, t = table([[a for a, _ in row]]), table([[b for _, b in row]])
    if name == "lambda":  # depends on the order of equal scores
        s = s.sort(descending=True).values + table([[-i * 1e-3 for i in range(len(row))]])
    before, after = LOSSES[name](s, t, full(s)), LOSSES[name](s + shift, t, full(s))
    assert before[0].item() == pytest.approx(after[0].item(), rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(row=st.lists(st.floats(-20, 20), min_size=1, max_size=9), temperature=st.floats(0.1, 10))
def test_approximate_ranks_have_the_sum_of_the_ranks(row: list[float], temperature: float) -> None:
    s = table([row])
    total = listwise.approximate_ranks(s, full(s), temperature=temperature).sum().item()
    assert total == pytest.approx(len(row) * (len(row) + 1) / 2)


def test_sharp_approximate_ranks_are_the_ranks() -> None:
    s = table([[0.3, -1.0, 2.0, 0.3]])
    sharp = listwise.approximate_ranks(s, full(s), temperature=1e-6)
    torch.testing.assert_close(sharp, ranks(s, full(s)))


def test_an_all_tied_list_has_no_pairs_and_no_loss() -> None:
    s, t = table([[1.0, 2.0, 3.0]]).requires_grad_(), table([[5.0, 5.0, 5.0]])
    for loss in (listwise.distill_rank_net, pairwise.margin_mse_pairs, listwise.lambda_loss):
        total, count = loss(s, t, full(s))
        assert total.item() == 0.0 and count.item() == 0.0
        assert torch.equal(torch.autograd.grad(total, s)[0], torch.zeros_like(s))


def test_with_averages_per_query_long_lists_do_not_dominate() -> None:
    s = table([[0.0, 0.0, 0.0], [2.0, 0.0, 9.0]])
    t = table([[3.0, 2.0, 1.0], [1.0, 0.0, 0.0]])
    mask = torch.tensor([[True] * 3, [True, True, False]])
    total, count = listwise.distill_rank_net(s, t, mask, per_query=True)
    assert count.item() == 2
    assert total.item() == pytest.approx(math.log(2) + math.log1p(math.exp(-2.0)))


def test_one_hot_targets_give_the_cross_entropy() -> None:
    s, t = table([[0.2, -1.0, 3.0]]), table([[0.0, 1.0, 0.0]])
    total, count = listwise.listwise_softmax_ce(s, t, full(s))
    expected = torch.nn.functional.cross_entropy(s, torch.tensor([1]))
    assert total.item() == pytest.approx(expected.item()) and count.item() == 1


def test_several_ones_give_the_log_of_the_summed_probability() -> None:
    s, t = table([[0.2, -1.0, 3.0]]), table([[1.0, 1.0, 0.0]])
    total, _ = listwise.listwise_softmax_ce(s, t, full(s))
    assert total.item() == pytest.approx(-math.log(s.softmax(1)[0, :2].sum().item()))


def test_graded_targets_follow_the_formula_for_every_kind_of_output() -> None:
    s, t = table([[0.2, -1.0, 3.0]]), table([[0.5, 0.0, 0.8]])
    logs = s.log_softmax(1)[0]
    expected = -math.log(
        math.exp(logs[0].item() + 1 - 1 / 0.5) + math.exp(logs[2].item() + 1 - 1 / 0.8)
    )
    for output, values in (("real", s), ("log_prob", logs[None]), ("prob", logs[None].exp())):
        total, _ = listwise.listwise_softmax_ce(values, t, full(s), output=output)  # type: ignore[arg-type]
        assert total.item() == pytest.approx(expected)
    total, _ = listwise.listwise_softmax_ce(s, t * 4, full(s), gains=True)
    gain = 2.0 * logs[0].exp() + 3.2 * logs[2].exp()
    assert total.item() == pytest.approx(-math.log(gain.item()))


def test_a_query_without_a_positive_is_not_counted() -> None:
    s, t = table([[0.2, -1.0], [1.0, 2.0]]).requires_grad_(), table([[0.0, 0.0], [1.0, 0.0]])
    total, count = listwise.listwise_softmax_ce(s, t, full(s))
    assert count.item() == 1
    total.backward()
    assert s.grad is not None and not s.grad[0].any()
    assert total.item() == pytest.approx(math.log1p(math.e))


def test_targets_out_of_bounds_are_refused_with_a_remedy() -> None:
    s, t = table([[0.2, -1.0]]), table([[12.0, 3.0]])
    with pytest.raises(DataError, match=r"between 3 and 12.*target=minmax"):
        listwise.listwise_softmax_ce(s, t, full(s))


def test_tied_targets_share_their_rank_or_rank_in_order() -> None:
    s = torch.tensor([[3.0, 7.0, 3.0, 1.0, 9.0]])
    mask = torch.tensor([[True, True, True, True, False]])
    assert ranks(s, mask).tolist() == [[2.5, 1.0, 2.5, 4.0, 1.0]]
    assert ranks(s, mask, ties="ordinal").tolist() == [[2.0, 1.0, 3.0, 4.0, 1.0]]


def test_info_nce_over_a_list_raises_the_judged_document_whatever_the_teacher_prefers() -> None:
    logits = torch.zeros(4, requires_grad=True)
    teacher, labels = table([[5.0, 9.0, 1.0, 7.0]]), table([[0.0, 0.0, 1.0, 0.0]])
    batch = LossBatch(
        Scores(logits), Supervision(torch.tensor([4]), full(labels), teacher, labels_BD=labels)
    )
    terms = make_objective(ListInfoNCE(), None, {}).forward(batch)
    terms["infonce_list"][0].backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([0.25, 0.25, -0.75, 0.25])
