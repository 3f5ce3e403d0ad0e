"""Cross-encoders without padding: the rows of a batch laid end to end.

Linear layers see only real tokens; attention runs for each stretch of equally long rows without a
mask; of the last layer, the first tokens alone are computed, for the head reads no other. On a CPU
this is faster than padding even when rows are sorted by length. The encoders below are those whose
layers hand keyword arguments through to the attention function, and have the parts of BERT's.

Shapes: n rows, T tokens of all rows together, H heads, D dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from raydist.reranking.rows import Row

_NAME = "raydist_packed"
# Position of a row's first token: these number positions from the padding id on.
_OFFSET = frozenset({"roberta", "xlm-roberta", "camembert"})
_FAMILY = _OFFSET | {"bert", "electra"}


def can_pack(model: nn.Module) -> bool:
    """Returns whether `packed_logits` knows this sequence classifier's architecture."""
    config: Any = model.config
    return (
        config.model_type in _FAMILY
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not config.is_decoder
    )


def use_packed_attention(model: Any) -> None:
    """Makes a model's attention take packed rows; its ordinary forward is no longer usable."""
    AttentionInterface.register(_NAME, _attention)
    model.config._attn_implementation = _NAME


def packed_logits(model: Any, rows: Sequence[Row]) -> Tensor:
    """Returns the logits [n, labels] of rows given without padding.

    Args:
        model: a sequence classifier that `can_pack`, after `use_packed_attention`.
        rows: token ids with their segments; equally long rows should be neighbours.
    """
    config = model.config
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    ids_T = np.fromiter((t for row in rows for t in row.tokens), np.int64, int(lengths.sum()))
    within_T = np.arange(len(ids_T)) - np.repeat(starts, lengths)
    segments = np.fromiter((row.segment for row in rows), np.int64, len(rows))
    types_T = (within_T >= np.repeat(segments, lengths)).astype(np.int64)
    if getattr(config, "type_vocab_size", 1) < 2:
        types_T[:] = 0
    first = config.pad_token_id + 1 if config.model_type in _OFFSET else 0
    device = model.device
    base = model.base_model
    hidden = base.embeddings(
        input_ids=torch.from_numpy(ids_T)[None].to(device),
        token_type_ids=torch.from_numpy(types_T)[None].to(device),
        position_ids=torch.from_numpy(within_T + first)[None].to(device),
    )
    if hasattr(base, "embeddings_project"):
        hidden = base.embeddings_project(hidden)
    stretches = _stretches(lengths)
    *layers, last = base.encoder.layer
    for layer in layers:
        hidden = layer(hidden, raydist_stretches=stretches)
    starts_n = torch.from_numpy(starts).to(device)
    heads_n1D = _last_layer(last, hidden, starts_n, stretches)[0][:, None]
    if getattr(base, "pooler", None) is not None:
        return model.classifier(model.dropout(base.pooler(heads_n1D)))  # type: ignore[no-any-return]
    return model.classifier(heads_n1D)  # type: ignore[no-any-return]


def _last_layer(
    layer: Any,
    hidden_1TD: Tensor,
    starts_n: Tensor,
    stretches: Sequence[tuple[int, int, int]],
) -> Tensor:
    """Returns the last layer's output for the rows' first tokens, [1, n, hidden].

    Of the other tokens, only keys and values are needed.
    """
    attention = layer.attention.self
    first_1nD = hidden_1TD[:, starts_n]

    def heads(values_1TD: Tensor) -> Tensor:
        return values_1TD.view(values_1TD.shape[1], -1, attention.attention_head_size)

    q_nHD = heads(attention.query(first_1nD))
    k_THD, v_THD = heads(attention.key(hidden_1TD)), heads(attention.value(hidden_1TD))
    mixed, row = [], 0
    for begin, rows, length in stretches:
        k_nHLD, v_nHLD = (
            x[begin : begin + rows * length].reshape(rows, length, *x.shape[1:]).transpose(1, 2)
            for x in (k_THD, v_THD)
        )
        q_nH1D = q_nHD[row : row + rows, :, None]
        mixed.append(
            F.scaled_dot_product_attention(q_nH1D, k_nHLD, v_nHLD, scale=attention.scaling)
        )
        row += rows
    mixed_1nD = torch.cat(mixed).flatten(1)[None]
    after_1nD = layer.attention.output(mixed_1nD, first_1nD)
    return layer.output(layer.intermediate(after_1nD), after_1nD)  # type: ignore[no-any-return]


def _stretches(lengths: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns (first token, rows, length) of each stretch of equally long rows."""
    stretches: list[tuple[int, int, int]] = []
    position = 0
    for length in lengths.tolist():
        if stretches and stretches[-1][2] == length:
            begin, rows, _ = stretches[-1]
            stretches[-1] = begin, rows + 1, length
        else:
            stretches.append((position, 1, length))
        position += length
    return stretches


def _attention(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    raydist_stretches: Sequence[tuple[int, int, int]],
    **_: Any,
) -> tuple[Tensor, None]:
    _one, heads, total, width = query_1HTD.shape
    out_THD = query_1HTD.new_empty(total, heads, width)
    for begin, rows, length in raydist_stretches:
        end = begin + rows * length
        q, k, v = (
            x[0, :, begin:end].reshape(heads, rows, length, width).transpose(0, 1)
            for x in (query_1HTD, key_1HTD, value_1HTD)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, scale=scaling)
        out_THD[begin:end] = mixed.transpose(1, 2).reshape(rows * length, heads, width)
    return out_THD[None], None
