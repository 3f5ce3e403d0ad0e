"""A model is tried before its rows are laid end to end: scores must be those of padded rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from raydist.errors import ConfigError
from raydist.models.packed_attention import use_packed_attention

_ROUNDING, _HALF_ROUNDING = 1e-4, 0.05
"""Allowed differences, as a share of the largest logit or of 1."""


@torch.inference_mode()
def agree(
    model: Any, padded: Callable[[], Tensor], packed: Callable[[], Tensor], *, half: bool
) -> str:
    """Returns why a model does not take rows end to end, or nothing where it does.

    Its attention is that of packed rows afterwards if it does, else as it was.

    Args:
        model: a transformer.
        padded: its logits of some padded rows.
        packed: those of the same rows, end to end.
        half: whether it computes in half precision.
    """
    kinds = set(getattr(model.config, "layer_types", None) or ())
    # Flash attention has no masks either: what a model hands to it is all that its attention needs.
    if not model._supports_flash_attn or not kinds <= {"full_attention", "sliding_attention"}:
        return "its attention needs masks"
    expected = padded()
    restore = use_packed_attention(model)
    reason = "its scores would be others"
    try:
        difference = float((packed() - expected).abs().max())
    except (AttributeError, ConfigError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        difference, reason = float("inf"), (str(error).strip().splitlines() or [""])[0]
    rounding = _HALF_ROUNDING if half else _ROUNDING
    if difference <= rounding * max(1.0, float(expected.abs().max())):
        return ""
    restore()
    return reason
