"""A model's form without its weights: what ranks build of a model that none of them holds whole."""

from __future__ import annotations

import copy
import pickle
from typing import Any, TypeVar

import cloudpickle
import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def skeleton(model: M) -> M:
    """Returns a copy whose parameters and buffers are on the meta device, without values."""
    copies: dict[int, Any] = {id(b): torch.empty_like(b, device="meta") for b in model.buffers()}
    for p in model.parameters():
        copies[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
    return copy.deepcopy(model, copies)


def to_bytes(model: nn.Module) -> bytes:
    """Returns a skeleton for another rank; hooks of transformers are closures."""
    data: bytes = cloudpickle.dumps(skeleton(model))
    return data


def from_bytes(data: bytes) -> Any:
    """Returns the skeleton that `to_bytes` returned on rank 0 of the same run."""
    return pickle.loads(data)  # noqa: S301


def fill(empty: Tensor, values: Tensor) -> None:
    """Gives a tensor of a skeleton its values, in every module that shares it."""
    if isinstance(empty, nn.Parameter):
        values = nn.Parameter(values, empty.requires_grad)
    torch.utils.swap_tensors(empty, values)  # type: ignore[no-untyped-call]
