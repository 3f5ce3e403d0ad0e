"""Encoding many texts: tokenised in a thread beside the model, in length-sorted token budgets.

Shapes: n texts, D dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from raydist.models.batches import length_batches, padding_waste
from raydist.models.tokens import Role

if TYPE_CHECKING:
    from raydist.models.biencoder import BiEncoder

WINDOW = 2048


@dataclass
class EncodeStats:
    """What an encoding cost; sums over windows."""

    texts: int = 0
    tokens: int = 0
    padded: int = 0
    seconds: float = 0.0

    @property
    def padding_waste(self) -> float:
        """The share of token places computed on padding."""
        return padding_waste(self.tokens, self.padded)


def encode(
    model: BiEncoder,
    texts: Sequence[str],
    role: Role,
    *,
    max_tokens: int = 0,
    window: int = WINDOW,
    stats: EncodeStats | None = None,
) -> np.ndarray:
    """Returns the float32 vectors [n, D] of the texts, in their order."""
    vectors_nD = np.empty((len(texts), model.dimension), np.float32)
    windows = (texts[i : i + window] for i in range(0, len(texts), window))
    row = 0
    for part in encode_windows(model, windows, role, max_tokens=max_tokens, stats=stats):
        vectors_nD[row : row + len(part)] = part
        row += len(part)
    return vectors_nD


def encode_windows(
    model: BiEncoder,
    windows: Iterable[Sequence[str]],
    role: Role,
    *,
    max_tokens: int = 0,
    stats: EncodeStats | None = None,
) -> Iterator[np.ndarray]:
    """Yields the float32 vectors [n, D] of each window of texts.

    Sorting by length happens within a window, so memory is bounded by two windows; the next
    window is read and tokenised in a thread while the model works on the present one.

    Args:
        model: the encoder.
        windows: consecutive texts, a few thousand at a time.
        role: query, document or answer.
        max_tokens: budget of a batch, padding included; 0 = `default_max_tokens`.
        stats: added to, if given.
    """
    stats = stats if stats is not None else EncodeStats()
    source = iter(windows)
    tokenize = model.role_tokenizer(role)
    max_tokens = max_tokens or default_max_tokens(model)

    def ahead() -> list[list[int]] | None:
        for texts in islice(source, 1):
            return tokenize(texts)
        return None

    with ThreadPoolExecutor(1, "tokenize") as thread:
        pending = thread.submit(ahead)
        while (rows := pending.result()) is not None:
            pending = thread.submit(ahead)
            started = time.perf_counter()
            yield_this = encode_rows(model, rows, role, max_tokens, stats)
            stats.seconds += time.perf_counter() - started
            stats.texts += len(rows)
            yield yield_this


def default_max_tokens(model: BiEncoder) -> int:
    """Returns a token budget: on a CPU what keeps a layer's activations in the cache."""
    return 65536 if model.device.type != "cpu" else 1024


@torch.inference_mode()
def encode_rows(
    model: BiEncoder,
    rows: Sequence[list[int]],
    role: Role,
    max_tokens: int,
    stats: EncodeStats | None = None,
) -> np.ndarray:
    """Returns the float32 vectors [n, D] of tokenised texts, which share batches by length."""
    stats = stats if stats is not None else EncodeStats()
    device = model.device
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    out = torch.empty((len(rows), model.dimension), dtype=torch.float32, device=device)
    stats.tokens += int(lengths.sum())
    for batch in length_batches(lengths, max_tokens):
        inputs = model.pad([rows[i] for i in batch])
        stats.padded += inputs["input_ids"].numel()
        if lengths[batch[0]] == lengths[batch[-1]]:
            del inputs["attention_mask"]  # nothing is padded: attention without a mask is cheaper
        placed = {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}
        out[torch.from_numpy(batch).to(device)] = model(placed, role).float()
    return out.cpu().numpy()
