"""Writing transformers and tokenizers so that a folder stands on its own."""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from raydist.models.backbone import quiet

__all__ = ["save_tokenizer", "save_transformer"]


def save_transformer(
    tower: nn.Module, place: Path, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    """Writes a transformer's config and safetensors; LoRA matrices go in merged.

    Raises:
        OSError: the files cannot be written.
    """
    model: Any = tower
    if hasattr(model, "merge_and_unload"):
        device = next(model.parameters()).device
        model = copy.deepcopy(model.cpu())
        tower.to(device)
        if state_dict is not None:
            model.load_state_dict(dict(state_dict))
            state_dict = None
        model = model.merge_and_unload()
    if not torch.cuda.is_available():  # saving loads an installed DeepSpeed, which would say so
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        with quiet():
            model.save_pretrained(str(place), state_dict=state_dict)
    except SafetensorError as error:  # says in words alone what the system said
        reason = errno.ENOSPC if f"os error {errno.ENOSPC}" in str(error) else errno.EIO
        raise OSError(reason, str(error), str(place)) from error


def save_tokenizer(tokenizer: Any, place: Path, max_length: int) -> None:
    """Writes a tokenizer whose own limit is `max_length`."""
    before = tokenizer.model_max_length
    tokenizer.model_max_length = max_length
    try:
        tokenizer.save_pretrained(str(place))
    finally:
        tokenizer.model_max_length = before
