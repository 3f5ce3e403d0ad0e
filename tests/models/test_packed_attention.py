"""Attention of packed rows is attention row by row; on a GPU it is asked for without masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raydist.models.packed_attention import Edges, attend, is_fast


def edges(lengths: list[int]) -> Edges:
    at = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return Edges(at, max(lengths))


def by_hand(q_THD: Tensor, k_SHD: Tensor, v_SHD: Tensor, window: tuple[int, int]) -> Tensor:
    """Returns attention of one row, query by query, in the order of the formula."""
    length, heads, _ = q_THD.shape
    seen, groups = len(k_SHD), heads // k_SHD.shape[1]
    out = torch.zeros_like(q_THD)
    for query in range(length):
        place = seen - length + query
        first = 0 if window[0] < 0 else max(0, place - window[0])
        end = seen if window[1] < 0 else min(seen, place + window[1] + 1)
        for head in range(heads):
            keys, values = (x[first:end, head // groups] for x in (k_SHD, v_SHD))
            weights = torch.softmax(keys @ q_THD[query, head] * 0.3, 0)
            out[query, head] = weights @ values
    return out


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=6),
    window=st.sampled_from([(-1, -1), (-1, 0), (2, 0), (1, 1), (0, 0)]),
    groups=st.sampled_from([1, 2]),
)
def test_each_row_s_queries_are_the_last_of_its_own_keys(rows, window, groups):
    torch.manual_seed(0)
    queries, keys = edges([n for n, _ in rows]), edges([n + more for n, more in rows])
    total, seen = int(queries.at[-1]), int(keys.at[-1])
    q = torch.randn(total, 4, 8, dtype=torch.float64)
    k, v = torch.randn(2, seen, 4 // groups, 8, dtype=torch.float64)
    expected = [
        by_hand(q[a:b], k[c:d], v[c:d], window)
        for a, b, c, d in zip(queries.at, queries.at[1:], keys.at, keys.at[1:])
    ]
    out = attend(q, k, v, queries, keys, window, 0.3)
    torch.testing.assert_close(out, torch.cat(expected), rtol=0, atol=1e-12)


def test_a_gpu_computes_packed_rows_in_half_precision_alone():
    cuda = torch.device("cuda")
    assert is_fast(torch.device("cpu"), torch.float32)
    assert is_fast(cuda, torch.bfloat16) and is_fast(cuda, torch.float16)
    assert not is_fast(cuda, torch.float32)


@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (7, 0)])
def test_torch_s_own_attention_takes_fewer_heads_of_keys_and_longer_rows_of_them(window):
    """On torch's meta device, whose call is checked as on a GPU and computes nothing."""
    queries, keys = (
        Edges(each.at.to("meta"), each.longest) for each in (edges([3, 1]), edges([9, 4]))
    )
    q = torch.empty(4, 8, 64, dtype=torch.bfloat16, device="meta")
    k = torch.empty(13, 2, 64, dtype=torch.bfloat16, device="meta")
    assert attend(q, k, k, queries, keys, window).shape == q.shape
