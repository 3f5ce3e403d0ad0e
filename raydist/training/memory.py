"""Messages on memory: a warning before a CPU's may run out, an error after an accelerator's did.

A process that exceeds a CPU's memory is killed without a word; accelerators raise an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from raydist.errors import JobError
from raydist.log import size
from raydist.training.collate import Batch
from raydist.training.step import cells_of

_PER_UNIT = 140
"""Bytes kept for the backward pass per token, layer and hidden unit: measured for BERT in float32
at 64 and 128 tokens a text (130 to 150; 180 at 256). Korthikanti et al. 2022
(https://arxiv.org/abs/2205.05198), section 4.1, count 34 values of half precision and more where
attention is not fused."""


def kept_bytes(module: nn.Module, tokens: int) -> int:
    """Returns about how many bytes a transformer keeps of its forward pass, 0 if unknown.

    Args:
        module: contains a Hugging Face model.
        tokens: padding included.
    """
    for part in module.modules():
        config = getattr(part, "config", None)
        hidden = getattr(config, "hidden_size", None)
        layers = getattr(config, "num_hidden_layers", None)
        if isinstance(hidden, int) and isinstance(layers, int):
            return _PER_UNIT * hidden * layers * tokens
    return 0


@contextmanager
def memory_for(what: str, device: torch.device) -> Iterator[None]:
    """Says what helps if a device runs out of memory.

    Raises:
        JobError: it ran out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise JobError(
            f"{what}: no memory is left on {device}: cache=16 computes the same in parts; or lower "
            "batch_size or the model's max lengths; model.lora.r=16 trains little of the model, "
            "optim.state=bfloat16 halves the optimizer's state, deepspeed.zero=2 spreads it over "
            "workers"
        ) from error


def memory_note(module: nn.Module, batches: Sequence[Batch], free: int | None = None) -> str:
    """Returns a sentence for the user where a step without gradient caching may not fit, or "".

    Accelerators need none: their allocator raises an error (see the loop).

    Args:
        module: the model.
        batches: the accumulation parts of a step of this rank.
        free: bytes of memory; what is available now if None.
    """
    import psutil

    device = next(module.parameters()).device
    if device.type != "cpu":
        return ""
    free = psutil.virtual_memory().available if free is None else free
    tokens = max(cells_of(batch, device) for batch in batches)
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    need = kept_bytes(module, tokens) * ranks
    if need <= free:
        return ""
    return (
        f"a step's {tokens * ranks:,} tokens may need about {size(need)} of memory and "
        f"{size(free)} are free: cache=16 computes the same at the memory of 16 texts; or lower "
        "batch_size or the model's max lengths"
    )
