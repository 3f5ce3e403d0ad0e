"""The three ways of running a cross-encoder over rows: padded, and end to end in two forms.

All give each row's logit. Rows are collated in one thread while another computes those before them.

Shapes: n rows, L tokens of the longest, T tokens of all, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from raydist.errors import ConfigError
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.packed_attention import VARLEN, is_fast, use_packed_attention
from raydist.models.packing import packed_options, placed, sent
from raydist.models.texts.tokens import Pair
from raydist.models.trial import agree
from raydist.reranking import packed_encoder
from raydist.reranking.rows import Row


class Classifier(Protocol):
    """A cross-encoder and a way to run it."""

    packed: bool
    """Whether a batch costs the sum of its rows."""

    def collate(self, rows: Sequence[Row], /) -> Any:
        """Returns a batch, on the model's device."""
        ...

    def logits(self, batch: Any, /) -> Tensor:
        """Returns the logits of a batch's rows, float32 [n]."""
        ...


class Padded:
    """Rows padded to the longest, as the model's own folder says."""

    packed = False

    def __init__(self, model: CrossEncoderModel) -> None:
        self._model = model

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Returns the inputs of a cross-encoder."""
        inputs = self._model.pad([Pair(list(row.tokens), row.segment) for row in rows])
        return placed(inputs, self._model.device)

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """Returns the logits, float32 [n]."""
        logits_n: Tensor = self._model(batch)
        return logits_n.float()


class PackedEncoder:
    """Rows end to end through `packed_encoder`: an architecture that it knows."""

    packed = True

    def __init__(self, model: CrossEncoderModel) -> None:
        self._model = model
        use_packed_attention(model.transformer)

    def collate(self, rows: Sequence[Row]) -> packed_encoder.PackedPairs:
        """Returns rows end to end."""
        return packed_encoder.collate(self._model.transformer, rows)

    def logits(self, batch: packed_encoder.PackedPairs) -> Tensor:
        """Returns the logits, float32 [n]."""
        with _autocast(self._model):
            return packed_encoder.packed_logits(self._model.transformer, batch)[:, 0].float()


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Padded inputs for the head; beside them the same end to end for what is below it."""

    padded: dict[str, Tensor]
    packed: dict[str, Tensor]
    place_T: Tensor
    """Where each token is in the padded rows."""


class Packed:
    """Rows end to end below the head, through transformers' own network; the head sees them padded.

    Heads read the first token, the last, or the mean of all, and are small.
    """

    packed = True

    def __init__(self, model: CrossEncoderModel) -> None:
        self._model = model
        transformer: Any = model.transformer
        self._prefix = transformer.base_model_prefix
        self._body = _Body(transformer.base_model)

    def collate(self, rows: Sequence[Row]) -> _Pairs:
        """Returns rows in both forms."""
        inputs = self._model.pad([Pair(list(row.tokens), row.segment) for row in rows])
        if "token_type_ids" in inputs:
            raise ConfigError("its tokens have types")
        device = self._model.device
        place_T = inputs["attention_mask"].flatten().nonzero()[:, 0]
        return _Pairs(
            placed(inputs, device), placed(inputs, device, packed=True), sent(place_T, device)
        )

    def logits(self, batch: _Pairs) -> Tensor:
        """Returns the logits, float32 [n]."""
        transformer: Any = self._model.transformer
        self._body.batch = batch
        setattr(transformer, self._prefix, self._body)
        try:
            with _autocast(self._model):
                return transformer(**batch.padded).logits[:, 0].float()  # type: ignore[no-any-return]
        finally:
            setattr(transformer, self._prefix, self._body.inner)


class _Body(nn.Module):
    """What a classifier has below its head; computes the packed form of what it is called with."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.batch: _Pairs | None = None

    def forward(self, *_: Any, **__: Any) -> BaseModelOutputWithPast:
        """Returns the last hidden states [n, L, D], zeros where there is padding."""
        assert self.batch is not None
        packed = self.batch.packed
        hidden_TD = self.inner(**packed_options(self.inner, packed)).last_hidden_state[0]
        shape = self.batch.padded["input_ids"].shape
        padded = hidden_TD.new_zeros(shape.numel(), hidden_TD.shape[1])
        padded[self.batch.place_T] = hidden_TD
        return BaseModelOutputWithPast(last_hidden_state=padded.view(*shape, -1))


def choose(
    model: CrossEncoderModel, attention: str, rows: Sequence[Row], *, packed: bool = True
) -> Classifier:
    """Returns the way that suits a model and its device.

    Args:
        model: the cross-encoder, with ordinary attention unless it was asked for another.
        attention: what was asked for: `varlen` insists on rows end to end; `sdpa` takes them where
            they are fast.
        rows: some to try it with, of different lengths.
        packed: take rows end to end where they are fast.

    Raises:
        ConfigError: the model does not take rows end to end, and `attention` insists.
    """
    insists = attention == VARLEN
    transformer: Any = model.transformer
    dtype: torch.dtype = model.autocast or transformer.dtype
    fast = packed and attention == "sdpa" and is_fast(model.device, dtype)
    plain = Padded(model)
    if packed_encoder.can_pack(transformer):
        return PackedEncoder(model) if insists or fast else plain
    if not insists and (not fast or model.device.type == "cpu"):
        return plain
    ends = Packed(model)
    reason = agree(
        [transformer],
        lambda: plain.logits(plain.collate(rows)),
        lambda: ends.logits(ends.collate(rows)),
        half=dtype.itemsize < 4,
    )
    if reason and insists:
        kind = transformer.config.model_type
        raise ConfigError(
            f"attention=varlen: {kind} does not take rows laid end to end ({reason}); leave it out"
        )
    return plain if reason else ends


def _autocast(model: CrossEncoderModel) -> AbstractContextManager[Any]:
    if model.autocast is None:
        return nullcontext()
    return torch.autocast(model.device.type, model.autocast)
