from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raydist.models.pooling import POOLINGS, pool


def closed_form(rows: list[np.ndarray], pooling: str) -> np.ndarray:
    """The definition, on rows without padding."""
    match pooling:
        case "cls":
            return np.stack([row[0] for row in rows])
        case "last_token":
            return np.stack([row[-1] for row in rows])
        case "max":
            return np.stack([row.max(axis=0) for row in rows])
        case "mean_sqrt_len":
            return np.stack([row.sum(axis=0) / np.sqrt(len(row)) for row in rows])
        case "weighted_mean":
            places = [np.arange(1, len(row) + 1) for row in rows]
            return np.stack([np.average(row, 0, at) for row, at in zip(rows, places)])
        case _:
            return np.stack([row.mean(axis=0) for row in rows])


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    left=st.booleans(),
    pooling=st.sampled_from(POOLINGS),
    seed=st.integers(0, 2**16),
)
def test_pooling_ignores_padding_on_either_side(lengths, left, pooling, seed):
    rng = np.random.default_rng(seed)
    rows = [rng.normal(size=(length, 3)) for length in lengths]
    width = max(lengths) + 1
    hidden = np.full((len(rows), width, 3), 99.0)
    mask = np.zeros((len(rows), width), np.int64)
    for i, row in enumerate(rows):
        span = slice(width - len(row), width) if left else slice(0, len(row))
        hidden[i, span], mask[i, span] = row, 1
    pooled = pool(torch.from_numpy(hidden), torch.from_numpy(mask), pooling)
    np.testing.assert_allclose(pooled.numpy(), closed_form(rows, pooling), atol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_without_padding_a_mask_changes_nothing(pooling):
    hidden = torch.randn(3, 5, 4)
    with_mask = pool(hidden, torch.ones(3, 5), pooling)
    assert torch.allclose(pool(hidden, None, pooling), with_mask, atol=1e-6)


def test_half_precision_is_pooled_in_float32():
    # 4,096 ones and a small term: a bfloat16 sum would lose the term entirely.
    hidden = torch.ones(1, 4097, 1, dtype=torch.bfloat16)
    hidden[0, -1] = 2.0
    pooled = pool(hidden, torch.ones(1, 4097, dtype=torch.int64), "mean")
    assert pooled.dtype == torch.float32
    assert abs(pooled.item() - (1 + 1 / 4097)) < 1e-6


def test_an_unknown_pooling_is_named():
    with pytest.raises(ValueError, match="'median': expected one of cls, mean, last_token"):
        pool(torch.zeros(1, 1, 1), None, "median")
