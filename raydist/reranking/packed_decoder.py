"""Decoders without padding: the tails of a batch laid end to end, each after its own prefix.

Linear layers see only real tokens. Attention runs for each stretch of equally long rows with the
same prefix, in blocks of queries, so that no key after a block is looked at; of the last layer, the
last tokens alone are computed. Made for CPUs, where neither padding nor a mask over what a causal
model cannot see is free, and where arithmetic in place saves half of an elementwise pass.

Shapes: n rows, T tokens of all rows together, Q of them that are computed, L tokens of a row, P
prefix tokens, S = P + L, B queries of a block, H heads, D dimensions (of a head beside H).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raydist.reranking.prefix import Layers, Prefix
from raydist.reranking.rows import Row

_BLOCK = 64


@dataclass(slots=True)
class _Stretch:
    """Equally long rows with the same prefix, one after another."""

    begin: int
    rows: int
    length: int
    prefix: Layers | None


def can_pack(decoder: Any) -> bool:
    """Returns whether `last_hidden` knows the decoder's architecture."""
    config = decoder.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        config.model_type == "qwen3" and kinds == {"full_attention"} and config.hidden_act == "silu"
    )


def last_hidden(decoder: Any, layers: Mapping[Prefix, Layers], rows: Sequence[Row]) -> Tensor:
    """Returns the hidden state [n, D] of each row's last token.

    Args:
        decoder: one that `can_pack`.
        layers: keys and values of the rows' prefixes.
        rows: equally long rows of the same prefix should be neighbours.
    """
    hidden_nD = _run(decoder, layers, rows, None)
    return _scaled(decoder.norm, hidden_nD)


def prefix_layers(decoder: Any, prefixes: Sequence[Prefix]) -> list[Layers]:
    """Returns the keys and values of prefixes, computed end to end in one pass."""
    kept: Layers = []
    _run(decoder, {}, [Row(prefix) for prefix in prefixes], kept)
    lengths = list(map(len, prefixes))
    parts = [[torch.split(x, lengths) for x in each] for each in kept]
    return [
        [(keys[n].clone(), values[n].clone()) for keys, values in parts]
        for n in range(len(prefixes))
    ]


def _run(
    decoder: Any, layers: Mapping[Prefix, Layers], rows: Sequence[Row], kept: Layers | None
) -> Tensor:
    """Returns what the last layer gives for each row's last token.

    Args:
        decoder: one that `can_pack`.
        layers: keys and values of the rows' prefixes.
        rows: token ids.
        kept: takes the keys and values [T, H, D] of each layer.
    """
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    ends = np.cumsum(lengths)
    ids_T = np.fromiter((t for row in rows for t in row.tokens), np.int64, int(ends[-1]))
    before = np.fromiter((len(row.prefix) for row in rows), np.int64, len(rows))
    positions_T = np.arange(len(ids_T)) - np.repeat(ends - lengths - before, lengths)
    hidden_TD = decoder.embed_tokens(torch.from_numpy(ids_T))
    cos_1TD, sin_1TD = decoder.rotary_emb(hidden_TD, torch.from_numpy(positions_T)[None])
    # Halves of a head turn against each other: the low one with -sin, the high one with sin.
    sin_1TD[..., : sin_1TD.shape[-1] // 2].neg_()
    turns = cos_1TD[0][:, None], sin_1TD[0][:, None]
    stretches = _stretches(layers, rows)
    mask_BS = _mask(stretches, before, hidden_TD.dtype)
    for layer in decoder.layers[:-1]:
        hidden_TD = _layer(layer, hidden_TD, turns, stretches, mask_BS, None, kept)
    ends_n = torch.from_numpy(ends - 1)
    return _layer(decoder.layers[-1], hidden_TD, turns, stretches, mask_BS, ends_n, kept)


def _layer(
    layer: Any,
    hidden_TD: Tensor,
    turns: tuple[Tensor, Tensor],
    stretches: Sequence[_Stretch],
    mask_BS: Tensor,
    ends_n: Tensor | None,
    kept: Layers | None,
) -> Tensor:
    """Returns a layer's output [Q, D] for all tokens, or for the rows' last ones alone.

    Of the others, the last ones need nothing but keys and values.
    """
    attention, mlp = layer.self_attn, layer.mlp
    normed_TD = _scaled(layer.input_layernorm, hidden_TD)
    query_QD, query_turns = normed_TD, turns
    if ends_n is not None:
        hidden_TD, query_QD = hidden_TD[ends_n], normed_TD[ends_n]
        query_turns = turns[0][ends_n], turns[1][ends_n]

    def heads(values: Tensor) -> Tensor:
        return values.view(len(values), -1, attention.head_dim)

    q_QHD = _turned(_scaled(attention.q_norm, heads(attention.q_proj(query_QD))), query_turns)
    k_THD = _turned(_scaled(attention.k_norm, heads(attention.k_proj(normed_TD))), turns)
    v_THD = heads(attention.v_proj(normed_TD))
    if kept is not None:
        kept.append((k_THD, v_THD))
    mixed_QHD = torch.empty_like(q_QHD)
    done = 0
    for stretch in stretches:
        keys, values = _with_prefix(k_THD, v_THD, stretch, attention.layer_idx)
        each = stretch.length if ends_n is None else 1
        part = slice(done, done + stretch.rows * each)
        done = part.stop
        q_nLHD, out_nLHD = (
            x[part].view(stretch.rows, each, *x.shape[1:]) for x in (q_QHD, mixed_QHD)
        )
        _attend(q_nLHD.transpose(1, 2), keys, values, attention.scaling, mask_BS, out_nLHD)
    hidden_QD = attention.o_proj(mixed_QHD.flatten(1)).add_(hidden_TD)
    normed_QD = _scaled(layer.post_attention_layernorm, hidden_QD)
    gated_QM = F.silu(mlp.gate_proj(normed_QD), inplace=True).mul_(mlp.up_proj(normed_QD))
    return mlp.down_proj(gated_QM).add_(hidden_QD)  # type: ignore[no-any-return]


def _scaled(norm: Any, values: Tensor) -> Tensor:
    """Returns root-mean-square normalised values, as the norm's own forward does."""
    wide = values.float()
    square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
    scale = square.div_(values.shape[-1]).add_(norm.variance_epsilon).rsqrt_()
    return (wide * scale).to(values.dtype).mul_(norm.weight)  # type: ignore[no-any-return]


def _turned(values_QHD: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Returns rotary positions applied; overwrites the values."""
    cos_Q1D, sin_Q1D = turns
    half = values_QHD.shape[-1] // 2
    swapped_QHD = values_QHD.roll(half, dims=-1).mul_(sin_Q1D)
    return values_QHD.mul_(cos_Q1D).add_(swapped_QHD)


def _with_prefix(
    k_THD: Tensor, v_THD: Tensor, stretch: _Stretch, number: int
) -> tuple[Tensor, Tensor]:
    """Returns a stretch's keys and values [n, H, S, D], those of its prefix included."""
    end = stretch.begin + stretch.rows * stretch.length
    tails = (
        x[stretch.begin : end].view(stretch.rows, stretch.length, *x.shape[1:]).transpose(1, 2)
        for x in (k_THD, v_THD)
    )
    if stretch.prefix is None:
        k_nHSD, v_nHSD = tails
        return k_nHSD, v_nHSD
    k_nHSD, v_nHSD = (
        torch.cat([shared.transpose(0, 1).expand(stretch.rows, -1, -1, -1), tail], dim=2)
        for shared, tail in zip(stretch.prefix[number], tails)
    )
    return k_nHSD, v_nHSD


def _stretches(layers: Mapping[Prefix, Layers], rows: Sequence[Row]) -> list[_Stretch]:
    stretches: list[_Stretch] = []
    position, last = 0, None
    for row in rows:
        if (len(row), row.prefix) == last:
            stretches[-1].rows += 1
        else:
            stretches.append(_Stretch(position, 1, len(row), layers.get(row.prefix)))
        last = len(row), row.prefix
        position += len(row)
    return stretches


def _attend(
    q_nHLD: Tensor,
    k_nHSD: Tensor,
    v_nHSD: Tensor,
    scaling: float,
    mask_BS: Tensor,
    out_nLHD: Tensor,
) -> None:
    """Writes attention of L queries that are the last of S positions."""
    length, total = q_nHLD.shape[2], k_nHSD.shape[2]
    for first in range(0, length, _BLOCK):
        last = min(first + _BLOCK, length)
        visible = total - length + last
        end = mask_BS.shape[1] - _BLOCK + last - first
        mixed_nHLD = F.scaled_dot_product_attention(
            q_nHLD[:, :, first:last],
            k_nHSD[:, :, :visible],
            v_nHSD[:, :, :visible],
            attn_mask=mask_BS[: last - first, end - visible : end] if length > 1 else None,
            scale=scaling,
            enable_gqa=True,
        )
        out_nLHD[:, first:last] = mixed_nHLD.transpose(1, 2)


def _mask(stretches: Sequence[_Stretch], before: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Returns the causal mask of every block, to be added to logits.

    A block's B queries read all keys but its last B in full: of one wide mask, each block takes the
    columns up to its own triangle.
    """
    longest = int(before.max()) + max(stretch.length for stretch in stretches)
    wide = torch.full((_BLOCK, longest + _BLOCK), float("-inf"), dtype=dtype)
    return wide.triu_(longest + 1)
