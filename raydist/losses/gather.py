"""The scale rule: how rows and sums are exchanged between ranks, and who divides.

Every rank scores its own rows against the rows of all ranks. `gather_rows` is an all-gather whose
backward is a reduce-scatter of sums, so that the gradients of all ranks' (sum, count) terms add up
to the gradient of one process on the joined batch: no factor 1/W, no factor W. Nothing in this room
divides by a count or by the number of ranks; whoever sums the gradients over ranks and accumulation
parts divides each term's sum by its count over all of them, once.

Legend: n rows of this rank (they may differ between ranks), N rows of all ranks, d any width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

SumCount = tuple[Tensor, Tensor]
"""What every loss returns: the sum over its items, and how many items that were (both scalars)."""

# Newer torch deprecates the second names; older torch has only those.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """How many rows each rank holds."""

    sizes: tuple[int, ...]
    rank: int

    @property
    def start(self) -> int:
        """The first of this rank's rows among all rows."""
        return sum(self.sizes[: self.rank])

    @property
    def total(self) -> int:
        """N, the rows of all ranks."""
        return sum(self.sizes)


def world_size() -> int:
    """Returns the number of ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def logits_dtype(tensor: Tensor) -> torch.dtype:
    """Returns the type that logits are computed in: float64 stays, everything else is float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def row_layout(
    rows: int, device: torch.device | str = "cpu", of_ranks: tuple[int, ...] | None = None
) -> Layout:
    """Returns how `rows` of this rank lie among the rows of all ranks.

    One collective, whose answer the program waits for, unless the rows `of_ranks` are known.
    """
    if world_size() == 1:
        return Layout((rows,), 0)
    if of_ranks is not None:
        assert len(of_ranks) == world_size() and of_ranks[dist.get_rank()] == rows, (of_ranks, rows)
        return Layout(of_ranks, dist.get_rank())
    sizes = torch.empty(world_size(), dtype=torch.int64, device=device)
    _all_gather(sizes, torch.tensor([rows], dtype=torch.int64, device=device))
    return Layout(tuple(sizes.tolist()), dist.get_rank())


def gather_rows(rows_nd: Tensor, layout: Layout) -> Tensor:
    """Returns all ranks' rows [N, ...] in rank order, differentiable where `rows_nd` is.

    The gradient of this rank's rows is the sum over ranks of the gradients that reach them. All
    ranks must call it in the same order, and all or none must differentiate through it.
    """
    assert rows_nd.shape[0] == layout.sizes[layout.rank], (rows_nd.shape, layout)
    if len(layout.sizes) == 1:
        return rows_nd
    gathered: Tensor = _Gather.apply(rows_nd, layout)  # type: ignore[no-untyped-call]
    return gathered


def add_over_ranks(values: Tensor) -> Tensor:
    """Returns the sum over ranks of a small tensor, without a gradient."""
    values = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(values)
    return values


class _Gather(torch.autograd.Function):
    """All-gather of uneven rows; backward is a reduce-scatter that sums."""

    @staticmethod
    def forward(ctx: Any, rows_nd: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        longest = max(layout.sizes)
        even = min(layout.sizes) == longest
        padded = rows_nd.contiguous() if even else _pad(rows_nd, longest)
        gathered = padded.new_empty((longest * len(layout.sizes), *rows_nd.shape[1:]))
        _all_gather(gathered, padded)
        if even:
            return gathered
        starts = range(0, gathered.shape[0], longest)
        return torch.cat([gathered[a : a + n] for a, n in zip(starts, layout.sizes)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layout: Layout = ctx.layout
        (gradient_Nd,) = gradients
        longest = max(layout.sizes)
        if min(layout.sizes) != longest:
            ends = accumulate(layout.sizes)
            parts = [gradient_Nd[b - n : b] for b, n in zip(ends, layout.sizes)]
            gradient_Nd = torch.cat([_pad(part, longest) for part in parts])
        own = gradient_Nd.new_empty((longest, *gradient_Nd.shape[1:]))
        _reduce_scatter(own, gradient_Nd.contiguous())
        return own[: layout.sizes[layout.rank]], None


def _pad(rows: Tensor, length: int) -> Tensor:
    padded = rows.new_zeros((length, *rows.shape[1:]))
    padded[: rows.shape[0]] = rows
    return padded
