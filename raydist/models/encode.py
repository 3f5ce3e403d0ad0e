"""Encoding many texts: tokenised in a thread beside the model, in length-sorted token budgets.

`encode` gives vectors; `encode_terms` gives weights of terms, of which most are 0, as sparse rows.

Shapes: n texts, D dimensions (or terms).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch.nn.functional import pad

from raydist.models.packing import packed_rows, placed
from raydist.models.sparse_rows import SparseRows
from raydist.models.texts.tokens import Role, TextTokenizer
from raydist.models.token_rows import TokenRows

WINDOW = 2048
R = TypeVar("R", np.ndarray, SparseRows, TokenRows)
EncodeRows = Callable[..., R]


class TextEncoder(Protocol):
    """What encoding needs of a bi-encoder."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def dimension(self) -> int:
        """The length of an output vector."""
        ...

    @property
    def packs(self) -> bool:
        """Whether texts are laid end to end instead of padded."""
        ...

    def role_tokenizer(self, role: Role) -> TextTokenizer:
        """Returns the tokenizer of a role, for use in a thread."""
        ...

    def pad(self, token_ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Returns `input_ids` and `attention_mask` [B, T]."""
        ...

    def __call__(self, inputs: dict[str, torch.Tensor], role: Role) -> torch.Tensor:
        """Returns the vectors [B, D]."""
        ...


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
    model: TextEncoder,
    texts: Sequence[str],
    role: Role,
    *,
    max_tokens: int = 0,
    window: int = WINDOW,
    stats: EncodeStats | None = None,
) -> np.ndarray:
    """Returns the float32 vectors [n, D] of the texts, in their order."""
    vectors_nD = np.empty((len(texts), model.dimension), np.float32)
    row = 0
    windows = _cut(texts, window)
    for part in in_windows(model, windows, role, encode_rows, max_tokens=max_tokens, stats=stats):
        vectors_nD[row : row + len(part)] = part
        row += len(part)
    return vectors_nD


def encode_terms(
    model: TextEncoder,
    texts: Sequence[str],
    role: Role,
    *,
    max_tokens: int = 0,
    window: int = WINDOW,
    stats: EncodeStats | None = None,
) -> SparseRows:
    """Returns the weights of terms of the texts, in their order."""
    windows = _cut(texts, window)
    parts = in_windows(model, windows, role, term_rows, max_tokens=max_tokens, stats=stats)
    return SparseRows.joined(list(parts), model.dimension)


def encode_tokens(
    model: TextEncoder,
    texts: Sequence[str],
    role: Role,
    *,
    max_tokens: int = 0,
    window: int = WINDOW,
    stats: EncodeStats | None = None,
) -> list[np.ndarray]:
    """Returns the vectors [t, D] of the tokens of each text."""
    windows = _cut(texts, window)
    parts = in_windows(model, windows, role, token_rows, max_tokens=max_tokens, stats=stats)
    return [vectors for part in parts for vectors in part.split()]


def _cut(texts: Sequence[str], window: int) -> Iterator[Sequence[str]]:
    return (texts[i : i + window] for i in range(0, len(texts), window))


def in_windows(
    model: TextEncoder,
    windows: Iterable[Sequence[str]],
    role: Role,
    encode: EncodeRows[R],
    *,
    max_tokens: int = 0,
    stats: EncodeStats | None = None,
) -> Iterator[R]:
    """Yields what a model makes of each window of texts.

    Sorting by length happens within a window, so memory is bounded by two windows; the next
    window is read and tokenised in a thread while the model encodes the current one.

    Args:
        model: the encoder.
        windows: consecutive texts, a few thousand at a time.
        role: query, document or answer.
        encode: encodes tokenised texts: `encode_rows`, `term_rows` or `token_rows`.
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
            encoded = encode(model, rows, role, max_tokens, stats)
            stats.seconds += time.perf_counter() - started
            stats.texts += len(rows)
            yield encoded


def default_max_tokens(model: TextEncoder) -> int:
    """Returns a token budget: on a CPU, one that keeps a layer's activations in the cache."""
    return 65536 if model.device.type != "cpu" else 1024


@torch.inference_mode()
def encode_rows(
    model: TextEncoder,
    rows: Sequence[list[int]],
    role: Role,
    max_tokens: int,
    stats: EncodeStats | None = None,
) -> np.ndarray:
    """Returns the float32 vectors [n, D] of tokenised texts, which share batches by length."""
    device = model.device
    out = torch.empty((len(rows), model.dimension), dtype=torch.float32, device=device)
    for batch, vectors in _batches(model, rows, role, max_tokens, stats):
        out[torch.from_numpy(batch).to(device, non_blocking=True)] = vectors
    return out.cpu().numpy()


@torch.inference_mode()
def term_rows(
    model: TextEncoder,
    rows: Sequence[list[int]],
    role: Role,
    max_tokens: int,
    stats: EncodeStats | None = None,
) -> SparseRows:
    """Returns the weights of terms of tokenised texts, which share batches by length."""
    parts, order = [], [np.zeros(0, np.int64)]
    for batch, weights in _batches(model, rows, role, max_tokens, stats):
        parts.append(SparseRows.of_dense(weights))
        order.append(batch)
    return SparseRows.joined(parts, model.dimension).take(np.argsort(np.concatenate(order)))


@torch.inference_mode()
def token_rows(
    model: TextEncoder,
    rows: Sequence[list[int]],
    role: Role,
    max_tokens: int,
    stats: EncodeStats | None = None,
) -> TokenRows:
    """Returns the vectors of the tokens of tokenised texts, which share batches by length."""
    parts, order = [], [np.zeros(0, np.int64)]
    for batch, vectors in _batches(model, rows, role, max_tokens, stats):
        parts.append(TokenRows.of_padded(vectors))
        order.append(batch)
    return TokenRows.joined(parts, model.dimension).take(np.argsort(np.concatenate(order)))


def _batches(
    model: TextEncoder,
    rows: Sequence[list[int]],
    role: Role,
    max_tokens: int,
    stats: EncodeStats | None,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yields the numbers and the vectors [n, D] of rows that share a batch."""
    stats = stats if stats is not None else EncodeStats()
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    stats.tokens += int(lengths.sum())
    for batch in (packed_batches if model.packs else length_batches)(lengths, max_tokens):
        yield batch, _vectors(model, [rows[i] for i in batch], role, stats)


def _vectors(
    model: TextEncoder, rows: Sequence[list[int]], role: Role, stats: EncodeStats
) -> torch.Tensor:
    """Returns the vectors [n, D] of a batch; in halves where memory is short."""
    inputs = packed_rows(rows) if model.packs else model.pad(rows)
    try:
        vectors = model(placed(inputs, model.device), role).float()
    except torch.OutOfMemoryError:
        if len(rows) < 2:
            raise
    else:
        stats.padded += inputs["input_ids"].numel()
        return vectors
    half = len(rows) // 2
    return joined([_vectors(model, part, role, stats) for part in (rows[:half], rows[half:])])


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the vectors of several batches, those of tokens [n, T, D] with zeros behind them."""
    if parts[0].dim() > 2:
        widest = max(part.shape[1] for part in parts)
        parts = [pad(part, (0, 0, 0, widest - part.shape[1])) for part in parts]
    return torch.cat(list(parts))


def length_batches(
    lengths: np.ndarray, max_tokens: int, max_rows: int = 1 << 30
) -> Iterator[np.ndarray]:
    """Yields row numbers, longest rows first, such that rows x longest row <= `max_tokens`.

    A row longer than the budget comes alone. Ties keep their order, so the cut depends on the
    lengths alone. The longest batch comes first: a memory shortage shows at once.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = min(max(1, max_tokens // longest), max_rows)
        yield order[start : start + size]
        start += size


def packed_batches(lengths: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """Yields row numbers, longest rows first, of at most `max_tokens` tokens together.

    A row longer than the budget comes alone.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = lengths[order].cumsum()
    start = 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + max_tokens, "right")))
        yield order[start:stop]
        start = stop


def padding_waste(tokens: int, padded: int) -> float:
    """Returns the share of computed token places that held padding."""
    return 1.0 - tokens / padded if padded else 0.0
