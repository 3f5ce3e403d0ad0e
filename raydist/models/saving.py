"""Writing transformers and tokenizers so that a folder stands on its own."""

from __future__ import annotations

import copy
import errno
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from raydist.models.backbone import quiet


def merged(tower: nn.Module) -> nn.Module:
    """Returns a copy on the CPU with LoRA matrices in the weights; a tower without any as it is.

    The tower itself stays what and where it is: an engine may hold views of its parameters.
    """
    if not hasattr(tower, "merge_and_unload"):
        return tower
    known: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("cpu", copy=True), requires_grad=False)
        for p in tower.parameters()
    }
    known |= {id(b): b.detach().to("cpu", copy=True) for b in tower.buffers()}
    model: Any = copy.deepcopy(tower, known)
    whole: nn.Module = model.merge_and_unload()
    return whole


def save_transformer(tower: nn.Module, place: Path) -> None:
    """Writes a transformer's config and safetensors; LoRA matrices go in merged.

    Raises:
        OSError: the files cannot be written.
    """
    model: Any = merged(tower)
    if not torch.cuda.is_available():  # saving loads an installed DeepSpeed, which would say so
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        with quiet():
            model.save_pretrained(str(place))
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
