"""Models that are not trained: device, precision, batches, weights, and the process's memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import torch
from torch import Tensor

from raydist.models.backbone import DEFAULT_ATTENTION
from raydist.models.biencoder import BiEncoder
from raydist.models.blocked import use_blocked_weights
from raydist.models.packed_attention import is_fast
from raydist.models.packing import placed
from raydist.models.spec import EncoderSource
from raydist.models.texts.tokens import ROLES, Role
from raydist.models.trial import TRIED, agree

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt."""
_TRIAL_TOKENS = 4096
"""Of the batch whose memory is measured; any GPU has room for it."""
_LARGEST = 32 << 20
"""Bytes, the most that glibc takes for _MMAP_THRESHOLD."""


def prepare_device(device: str = "") -> torch.device:
    """Returns the device of that name, or the accelerator if there is one, else the CPU.

    Where it is the CPU, this process's memory is tuned for it.
    """
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    prepared = torch.device(name)
    if prepared.type == "cpu":
        _tune_process()
    return prepared


def pick_dtype(dtype: str, device: torch.device) -> str:
    """Returns `dtype`, or what suits the device: bfloat16 on an accelerator that has it."""
    if dtype:
        return dtype
    lacks = device.type == "cpu" or (device.type == "cuda" and not torch.cuda.is_bf16_supported())
    return "float32" if lacks else "bfloat16"


def load_encoder(source: EncoderSource, *, truncate: int = 0, device: str = "") -> BiEncoder:
    """Returns a bi-encoder to encode with; it cannot be trained.

    Args:
        source: its folder and options.
        truncate: output dimensions to keep, 0 = all.
        device: as `prepare_device` takes it.
    """
    place = prepare_device(device)
    settings = source.settings(pick_dtype("", place))
    encoder = BiEncoder.load(settings, truncate=truncate, device=place)
    speed_up(encoder)
    return encoder


def speed_up(encoder: BiEncoder) -> None:
    """Makes a loaded bi-encoder as quick as its device allows; it cannot be trained any more.

    Texts are laid end to end where attention allows it, and weights in blocks.
    """
    attention = {str(tower.config._attn_implementation) for tower in encoder.towers}  # type: ignore[union-attr]
    dtype = encoder.autocast or next(encoder.parameters()).dtype
    padded = encoder.tokens is not None or not is_fast(encoder.device, dtype)
    if attention == {DEFAULT_ATTENTION} and not padded:
        # Roles of the same tower whose texts get the same tokens are tried once.
        trials: dict[tuple[object, ...], tuple[Role, list[list[int]]]] = {}
        for role in ROLES:
            rows = encoder.tokenize(TRIED, role)
            trials.setdefault((id(encoder.tower(role)), *map(tuple, rows)), (role, rows))

        def vectors() -> Tensor:
            return torch.cat(
                [
                    encoder(placed(encoder.pad(rows), encoder.device, encoder.packs), role)
                    for role, rows in trials.values()
                ]
            )

        agree(list(encoder.towers), vectors, vectors, half=dtype.itemsize < 4)
    use_blocked_weights(encoder)


def most_tokens(device: torch.device, *, packed: bool) -> int:
    """Returns a token budget that suits the device.

    A CPU is fastest on batches that fit its caches, and padding costs it time; an accelerator needs
    large batches.
    """
    if device.type != "cpu":
        return 65536
    return 1024 if packed else 512


def fitting_tokens(run: Callable[[int], object], device: torch.device, most: int) -> int:
    """Returns how many tokens of a batch fit the memory of a GPU, `most` at most; elsewhere `most`.

    Args:
        run: computes a batch of about so many tokens.
        device: where.
        most: a budget that suits the device.
    """
    if device.type != "cuda":
        return most
    run(_TRIAL_TOKENS)  # what is allocated once
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run(_TRIAL_TOKENS)
    used = torch.cuda.max_memory_allocated(device) - before
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return tokens_for(torch.cuda.mem_get_info(device)[0] + kept, used, most)


def tokens_for(free: int, used: int, most: int) -> int:
    """Returns the budget of a memory of `free` bytes, of which a trial's batch took `used`.

    A fifth stays free: for what else needs memory, and since rows of other lengths take more.
    """
    return max(_TRIAL_TOKENS, min(most, int(0.8 * free / max(used, 1) * _TRIAL_TOKENS)))


def _tune_process() -> None:
    """Makes this process keep the memory of a batch for the next one, and few compiled kernels.

    A batch's activations are some megabytes each; glibc returns them to the system and gets them
    again, page by page and zeroed, which takes a fifth of the time. And batches without padding
    hardly ever have the same number of tokens, while oneDNN keeps a kernel for each of the last
    1,024 shapes: 100 MB and more that are never used again.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 8 * _LARGEST)
