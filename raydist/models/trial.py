"""A model is tried before texts are laid end to end: its outputs must be those of padded ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from raydist.errors import ConfigError
from raydist.models.packed_attention import use_packed_attention

_ROUNDING, _HALF_ROUNDING = 1e-4, 0.05
"""Allowed differences, as a share of the largest output or of 1."""
TRIED = ("a", "one text of many other words, or the rest of them")
"""Texts of different lengths, to try models with."""


@torch.inference_mode()
def agree(
    transformers: Sequence[Any],
    padded: Callable[[], Tensor],
    packed: Callable[[], Tensor],
    *,
    half: bool,
) -> str:
    """Returns why transformers do not take texts end to end, or nothing where they do.

    Their attention is that of packed texts afterwards if they do, else as it was.

    Args:
        transformers: one, or the towers of a model.
        padded: the outputs for some padded texts.
        packed: those for the same texts, end to end.
        half: whether they compute in half precision.
    """
    for each in transformers:
        kinds = set(getattr(each.config, "layer_types", None) or ())
        able = getattr(each, "_supports_flash_attn", False)
        # Flash attention has no masks either: what it is given is all that the model needs.
        if not able or not kinds <= {"full_attention", "sliding_attention"}:
            return "its attention needs masks"
    expected = padded()
    undo = [use_packed_attention(each) for each in transformers]
    reason = "its outputs would be others"
    try:
        difference = float((packed() - expected).abs().max())
    except (AttributeError, ConfigError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        difference, reason = float("inf"), (str(error).strip().splitlines() or [""])[0]
    rounding = _HALF_ROUNDING if half else _ROUNDING
    if difference <= rounding * max(1.0, float(expected.abs().max())):
        return ""
    for restore in undo:
        restore()
    return reason
