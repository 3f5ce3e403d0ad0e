"""Gradient caching: batches of any size in the memory of one chunk, exactly.

The five steps (Gao et al. 2021, https://arxiv.org/abs/2101.06983):

1. `split` the rows into chunks,
2. `represent` them without a graph, keeping each chunk's random state,
3. the loss on the detached representations gives their gradient (the caller's objective),
4. `surrogates` replays each chunk with a graph and its random state; the dot product of the
   representations with their gradient has the true gradient of the parameters,
5. the caller back-propagates each surrogate, and gradients travel between ranks once.

Without caching the same path runs with one chunk whose graph is kept, so there is one way from the
loss to the parameters. Legend: n rows, d width of a representation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raydist.losses.gather import world_size
from raydist.models.encode import joined
from raydist.models.packing import placed
from raydist.training.collate import Inputs, take

# A CPU pays for padding and not for many small passes, so rows of like length go together there.
_MUCH_PADDING = 0.1
_ROWS_ON_CPU = 8

Encode = Callable[[Inputs], Tensor]
"""Padded inputs of some rows → their representations [rows, ...]."""


@dataclass(slots=True)
class Representations:
    """Representations of all rows, detached from the graph, and the way back to the parameters.

    Attributes:
        rows: a leaf tensor [n, ...] that collects the loss's gradient.
        encode: the model.
        inputs: of all rows.
        packed: the model takes rows laid end to end.
        chunks: row indices of each chunk.
        graph: the representations with their graph, where nothing is cached.
        states: random state before each chunk, where something is.
    """

    rows: Tensor
    encode: Encode
    inputs: Inputs
    packed: bool
    chunks: list[Tensor]
    graph: Tensor | None
    states: list[list[Tensor]]


def split(inputs: Inputs, chunk_size: int, *, chunks: int = 0) -> list[Tensor]:
    """Returns row indices of chunks, rows sorted by length (longest first) to save padding.

    Args:
        inputs: padded inputs of n rows.
        chunk_size: rows in a chunk; 0 takes all rows in one.
        chunks: number of chunks instead, where ranks must agree; an index that is repeated only
            keeps step with the other ranks and carries no gradient (see `surrogates`).
    """
    rows = inputs["input_ids"].shape[0]
    count = chunks or (-(-rows // chunk_size) if chunk_size else 1)
    if count == 1:
        return [torch.arange(rows)]
    mask = inputs.get("attention_mask")
    order = torch.arange(rows)
    if mask is not None:
        order = mask.sum(1).cpu().argsort(descending=True, stable=True)
    size = chunk_size if not chunks else -(-rows // count)
    parts = [order[start : start + size] for start in range(0, rows, size)]
    return parts + [order[-1:]] * (count - len(parts))


def represent(
    encode: Encode,
    inputs: Inputs,
    *,
    device: torch.device,
    chunk_size: int = 0,
    chunks: int = 0,
    packed: bool = False,
) -> Representations:
    """Returns the representations of all rows; a graph is kept only where nothing is cached.

    Args:
        encode: the model.
        inputs: padded inputs of n rows, on any device.
        device: where the model is.
        chunk_size: rows in a chunk; 0 does not cache.
        chunks: number of chunks, where ranks must agree (see `split`).
        packed: give the model rows laid end to end, without padding.
    """
    pieces = _pieces(inputs, device, chunk_size, chunks, whole=packed)
    if not chunk_size:
        encoded = [encode(placed(_rows(inputs, p, pieces), device, packed)) for p in pieces]
        graph = encoded[0] if len(encoded) == 1 else _in_order(encoded, pieces)
        rows = graph.detach().requires_grad_()
        return Representations(rows, encode, inputs, packed, pieces, graph, [])
    states: list[list[Tensor]] = []
    outputs: list[Tensor] = []
    wide: Tensor | None = None
    count = inputs["input_ids"].shape[0]
    left = count
    with torch.no_grad():
        for piece in pieces:
            states.append(_random_state(device))
            output = encode(placed(_rows(inputs, piece, pieces), device, packed))
            if output.dim() != 2:
                outputs.append(output)
                continue
            # Rows as wide as a vocabulary are not held twice.
            wide = output.new_empty((count, output.shape[1])) if wide is None else wide
            if left:  # other pieces repeat a row to keep step
                wide[piece.to(wide.device, non_blocking=True)] = output
                left -= len(piece)
    rows = _in_order(outputs, pieces) if wide is None else wide
    return Representations(rows.requires_grad_(), encode, inputs, packed, pieces, None, states)


def passes(represented: Sequence[Representations]) -> int:
    """Returns the number of scalars that `surrogates` yields."""
    kept = any(item.graph is not None for item in represented)
    return kept + sum(len(item.chunks) for item in represented if item.graph is None)


def surrogates(represented: Sequence[Representations], device: torch.device) -> Iterator[Tensor]:
    """Yields scalars whose back-propagation, one after the other, gives the loss's gradient.

    Uncached representations share one scalar. The random state is afterwards what it was before.

    Args:
        represented: the inputs of the loss, their gradients in `rows.grad`.
        device: where the model is.
    """
    dots = [_dot(item.graph, _gradient(item)) for item in represented if item.graph is not None]
    if dots:
        yield torch.stack(dots).sum()
    after = _random_state(device)
    for item in represented:
        if item.graph is not None:
            continue
        gradient = _gradient(item)
        replayed = 0
        for piece, state in zip(item.chunks, item.states):
            _set_random_state(state, device)
            rows = _rows(item.inputs, piece, item.chunks)
            output = item.encode(placed(rows, device, item.packed))
            part = gradient[piece.to(gradient.device, non_blocking=True)]
            # Chunks beyond the last row only keep step with other ranks.
            yield _dot(output, part if replayed < len(gradient) else torch.zeros_like(part))
            replayed += len(piece)
    _set_random_state(after, device)


def cells(inputs: Inputs, *, device: torch.device, chunk_size: int = 0) -> int:
    """Returns the number of tokens, padding included, that one pass over all rows computes."""
    pieces = _pieces(inputs, device, chunk_size)
    return sum(_rows(inputs, piece, pieces)["input_ids"].numel() for piece in pieces)


def _pieces(
    inputs: Inputs, device: torch.device, chunk_size: int, chunks: int = 0, *, whole: bool = False
) -> list[Tensor]:
    """Returns the row indices of each pass through the model."""
    if not chunk_size and device.type == "cpu" and not whole and world_size() == 1:
        chunk_size = _ROWS_ON_CPU if _padding(inputs) > _MUCH_PADDING else 0
    return split(inputs, chunk_size, chunks=chunks)


def _rows(inputs: Inputs, piece: Tensor, pieces: Sequence[Tensor]) -> Inputs:
    """Returns the inputs of a piece; a single piece is all rows, which need not be copied."""
    return take(inputs, piece if len(pieces) > 1 else slice(None))


def _padding(inputs: Inputs) -> float:
    """Returns the share of padding."""
    mask = inputs.get("attention_mask")
    return 0.0 if mask is None or not mask.numel() else 1.0 - float(mask.float().mean())


def _gradient(item: Representations) -> Tensor:
    return torch.zeros_like(item.rows) if item.rows.grad is None else item.rows.grad


def _dot(output: Tensor, gradient: Tensor) -> Tensor:
    if output.dim() > 2:  # a chunk's vectors of tokens are no wider than its own texts
        gradient = gradient[:, : output.shape[1]]
    return (output.to(gradient.dtype) * gradient).sum()


def _in_order(outputs: Sequence[Tensor], pieces: Sequence[Tensor]) -> Tensor:
    """Returns the chunks' outputs in the order of the rows, each row once."""
    order = torch.cat(list(pieces))
    count = int(order.max()) + 1
    together = joined(outputs)[:count]
    rows = torch.empty_like(together)
    rows[order[:count].to(rows.device, non_blocking=True)] = together
    return rows


def _random_state(device: torch.device) -> list[Tensor]:
    state = [torch.get_rng_state()]
    if device.type == "cuda":
        state.append(torch.cuda.get_rng_state(device))
    return state


def _set_random_state(state: Sequence[Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
