"""Embedding tables on a CPU: gradients are added to the rows that were read, not to whole tables.

For every backward pass PyTorch makes a gradient as large as the table and adds it to the
parameter's. A chunk of texts reads some hundred rows of it, and pays for all: 30,522 x 384 values
in MiniLM, 250,002 x 1,024 in multilingual models. Accelerators keep PyTorch's way, for there only
it adds in a fixed order.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Lookup(torch.autograd.Function):
    """Rows of a table; the backward pass writes to the table's `grad` itself."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding = weight, padding
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        (ids,) = ctx.saved_tensors
        weight, rows = ctx.weight, ids.reshape(-1)
        gradient = gradient.reshape(len(rows), -1)
        if ctx.padding is not None:
            kept = rows != ctx.padding
            rows, gradient = rows[kept], gradient[kept]
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, rows, gradient)
        return None, None, None


def add_rows_in_place(module: nn.Module) -> None:
    """Makes the module's embedding tables do so, where they are trained in full precision.

    Only for an engine that reads `grad` when all backward passes are done: the tables' own hooks
    are not called.
    """
    for part in module.modules():
        if type(part) is not nn.Embedding or part.max_norm is not None:
            continue
        if not (part.scale_grad_by_freq or part.sparse):
            part.forward = partial(_forward, part)  # type: ignore[method-assign]


def _forward(table: nn.Embedding, ids: Tensor) -> Tensor:
    weight = table.weight
    exact = weight.dtype in (torch.float32, torch.float64)
    if weight.device.type == "cpu" and weight.requires_grad and exact and torch.is_grad_enabled():
        return _Lookup.apply(weight, ids, table.padding_idx)  # type: ignore[no-any-return, no-untyped-call]
    return nn.Embedding.forward(table, ids)
