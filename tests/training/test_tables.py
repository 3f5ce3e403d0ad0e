from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from raydist.training.engine import add_rows_in_place


class Model(nn.Module):
    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 6, padding_idx=padding, dtype=torch.float64)
        self.places = nn.Embedding(7, 6, dtype=torch.float64)
        self.frozen = nn.Embedding(40, 6, dtype=torch.float64).requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids.shape[1])
        return torch.tanh(self.words(ids) + self.places(places)[None] + self.frozen(ids))


@pytest.mark.parametrize("padding", [None, 0])
def test_gradients_are_those_of_pytorch_over_several_backward_passes(padding: int | None) -> None:
    torch.manual_seed(0)
    plain = Model(padding)
    ours = copy.deepcopy(plain)
    add_rows_in_place(ours)
    moved = copy.deepcopy(ours)  # what is copied afterwards has its own table
    for rows in (1, 5, 3):
        ids = torch.randint(0, 40, (rows, 7))
        ids[:, -2:] = 0
        weights = torch.randn(rows, 7, 6, dtype=torch.float64)
        assert torch.equal(plain(ids), ours(ids))
        for model in (plain, ours, moved):
            (model(ids) * weights).sum().backward()
    for model in (ours, moved):
        assert model.frozen.weight.grad is None
        for name in ("words", "places"):
            expected = getattr(plain, name).weight.grad
            torch.testing.assert_close(
                getattr(model, name).weight.grad, expected, rtol=0, atol=1e-14
            )
    assert plain.words.weight.grad[0].any() == (padding is None)
    with torch.no_grad():
        assert not ours(ids).requires_grad
    assert list(ours.state_dict()) == list(plain.state_dict())


def test_tables_with_other_rules_are_left_alone() -> None:
    tables = nn.ModuleList(
        [
            nn.Embedding(5, 2, sparse=True),
            nn.Embedding(5, 2, max_norm=1.0),
            nn.Embedding(5, 2, scale_grad_by_freq=True),
        ]
    )
    add_rows_in_place(tables)
    assert all("forward" not in vars(table) for table in tables)
    half = nn.Embedding(5, 2, dtype=torch.bfloat16)
    add_rows_in_place(half)  # rounding every row's sum anew would lose what is small
    assert half(torch.tensor([1, 1])).grad_fn.name().startswith("EmbeddingBackward")
