"""The three ways of running a decoder over rows: padded, without padding on a CPU or on any device.

All give the logits of the answers at each row's last token. Rows are collated in one thread while
another computes the rows before them.

Shapes: n rows, T tokens, A tokens that are answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from raydist.errors import ConfigError
from raydist.models.packed_attention import VARLEN, is_fast
from raydist.models.packing import sent
from raydist.models.trial import agree
from raydist.reranking import packed_decoder, packed_model
from raydist.reranking.answers import AnswerHead
from raydist.reranking.prefix import Layers, Prefix, PrefixCache, compute_padded, padded_inputs
from raydist.reranking.rows import Row


class Decoder(Protocol):
    """A causal language model with an `AnswerHead`, and a way to run it."""

    packed: bool
    """Whether a batch costs the sum of its rows."""

    def collate(self, rows: Sequence[Row], /) -> Any:
        """Returns a batch, on the model's device."""
        ...

    def logits(self, batch: Any, prefixes: PrefixCache, /) -> Tensor:
        """Returns the answers' logits of a batch's rows, float32 [n, A]."""
        ...

    def prefix_layers(self, prefixes: Sequence[Prefix], /) -> list[Layers]:
        """Returns the keys and values of prefixes, computed in one pass."""
        ...


class Padded:
    """Rows padded on the right.

    A causal model's tokens do not see what follows them, so rows without prefixes need no mask.
    """

    packed = False

    def __init__(self, model: Any, head: AnswerHead) -> None:
        self._model, self._head = model, head
        self._pad = int(model.config.pad_token_id or 0)

    def collate(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, list[Prefix]]:
        """Returns ids [n, T], where each row's last token is, and the rows' prefixes."""
        lengths = torch.tensor([len(row) for row in rows])
        ids_nT = torch.full((len(rows), int(lengths.max())), self._pad)
        for number, row in enumerate(rows):
            ids_nT[number, : len(row)] = torch.tensor(row.tokens)
        device = self._model.device
        return sent(ids_nT, device), sent(lengths - 1, device), [row.prefix for row in rows]

    def logits(self, batch: tuple[Tensor, Tensor, list[Prefix]], prefixes: PrefixCache) -> Tensor:
        """Returns the answers' logits, float32 [n, A]."""
        ids_nT, self._head.last_n, own = batch
        layers = prefixes.layers_of(own)
        shared = padded_inputs(layers, own, ids_nT.shape[1], ids_nT.device)
        logits_n1A: Tensor = self._model(input_ids=ids_nT, **shared).logits
        return logits_n1A[:, 0].float()

    def prefix_layers(self, prefixes: Sequence[Prefix]) -> list[Layers]:
        """Returns the keys and values of prefixes."""
        return compute_padded(self._model.base_model, prefixes)


class PackedOnCpu:
    """Rows end to end through `packed_decoder`: an architecture that it knows, on a CPU."""

    packed = True

    def __init__(self, model: Any, head: AnswerHead) -> None:
        self._decoder, self._head = model.base_model, head

    def collate(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Returns the rows: collation is a small part of this way."""
        return rows

    def logits(self, batch: Sequence[Row], prefixes: PrefixCache) -> Tensor:
        """Returns the answers' logits, float32 [n, A]."""
        layers = prefixes.layers_of(row.prefix for row in batch)
        last_nD = packed_decoder.last_hidden(self._decoder, layers, batch)
        return self._head.logits(last_nD)

    def prefix_layers(self, prefixes: Sequence[Prefix]) -> list[Layers]:
        """Returns the keys and values of prefixes."""
        return packed_decoder.prefix_layers(self._decoder, prefixes)


class Packed:
    """Rows end to end through transformers' own network, with `packed_attention`."""

    packed = True

    def __init__(self, model: Any, head: AnswerHead) -> None:
        self._model, self._head = model, head

    def collate(self, rows: Sequence[Row]) -> packed_model.PackedRows:
        """Returns the rows on the device."""
        return packed_model.collate(rows, self._model.device)

    def logits(self, batch: packed_model.PackedRows, prefixes: PrefixCache) -> Tensor:
        """Returns the answers' logits, float32 [n, A]."""
        layers = prefixes.layers_of(batch.prefixes)
        self._head.last_n = batch.last_n
        logits_n1A: Tensor = packed_model.packed_output(self._model, batch, layers).logits
        return logits_n1A[:, 0].float()

    def prefix_layers(self, prefixes: Sequence[Prefix]) -> list[Layers]:
        """Returns the keys and values of prefixes."""
        return packed_model.prefix_layers(self._model.base_model, prefixes)


def choose(
    model: Any, head: AnswerHead, attention: str, rows: Sequence[Row], *, packed: bool = True
) -> Decoder:
    """Returns the way that suits a model and its device.

    Args:
        model: the causal language model, with ordinary attention and `head` in place of its own.
        head: the answers' head.
        attention: what was asked for: `varlen` insists on rows end to end; `sdpa` takes them where
            they are fast.
        rows: some to try it with, of different lengths and prefixes.
        packed: take rows end to end where they are fast.

    Raises:
        ConfigError: the model does not take rows end to end, and `attention` insists.
    """
    insists = attention == VARLEN
    if not insists and (not packed or attention != "sdpa"):
        return Padded(model, head)
    if not insists and model.device.type == "cpu":
        known = packed_decoder.can_pack(model.base_model)
        return PackedOnCpu(model, head) if known else Padded(model, head)
    if not insists and not is_fast(model.device, model.dtype):
        return Padded(model, head)
    plain, ends = Padded(model, head), Packed(model, head)
    reason = agree(
        [model],
        lambda: _once(plain, rows),
        lambda: _once(ends, rows),
        half=model.dtype.itemsize < 4,
    )
    if reason and insists:
        kind = model.config.model_type
        raise ConfigError(
            f"attention=varlen: {kind} does not take rows laid end to end ({reason}); leave it out"
        )
    return plain if reason else ends


def _once(decoder: Decoder, rows: Sequence[Row]) -> Tensor:
    return decoder.logits(decoder.collate(rows), PrefixCache(decoder.prefix_layers))
