"""Weights in the blocks that oneDNN's kernels read, for inference on CPUs with AVX-512.

torch gives float32 matrix products to MKL, which copies each weight into blocks of its own at every
call; in bfloat16 torch itself does so. Where a weight lies in blocks from the start, an encoder
needs about a sixth less time, and its results differ by rounding alone.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

_ROWS = 512
"""Rows of a typical input, by which the blocks are chosen; others read the same ones."""


def use_blocked_weights(model: nn.Module) -> None:
    """Lays out a loaded model's weights in blocks, in place of its own, where that saves time.

    The model then computes without gradients, on the CPU.

    Args:
        model: a transformer or what holds one; one with an `autocast` stays as it is.
    """
    if getattr(model, "autocast", None) is not None or not _is_faster():
        return
    owners = Counter(
        id(weight) for part in model.modules() for weight in part.parameters(recurse=False)
    )
    for part in list(model.modules()):
        for name, child in list(part.named_children()):
            # A weight that has another owner, too, would be held twice; `base_layer` is PEFT's.
            if _can_block(child) and owners[id(child.weight)] == 1 and name != "base_layer":
                setattr(part, name, _Blocked(child))
        activation = getattr(part, "intermediate_act_fn", None)
        dense = getattr(part, "dense", None)
        if isinstance(dense, _Blocked) and type(activation) is GELUActivation:
            dense.then = "gelu"
            part.intermediate_act_fn = nn.Identity()


def _is_faster() -> bool:
    """Returns whether torch has oneDNN's products, and the CPU what they are made for."""
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    )


def _can_block(part: nn.Module) -> TypeGuard[nn.Linear]:
    if type(part) is not nn.Linear or part.weight.device.type != "cpu":
        return False
    kinds = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        kinds.add(torch.bfloat16)
    return part.weight.dtype in kinds


class _Blocked(nn.Module):
    """A linear layer whose weight lies in blocks.

    Attributes:
        then: what follows the product in the same pass: `none` or `gelu`.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self.then = "none"
        weight = linear.weight.detach().contiguous()
        self._blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)

    @property
    def weight(self) -> Tensor:
        """The weight as others read it, made anew."""
        return self._blocks.to_dense()

    def forward(self, values: Tensor) -> Tensor:
        """Returns what the linear layer does, and the activation after it."""
        return torch.ops.mkldnn._linear_pointwise(  # type: ignore[no-any-return]
            values, self._blocks, self.bias, self.then, [], "none"
        )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight
