"""Decoders without padding: the tails of a batch laid end to end, each after its own prefix.

Linear layers see only real tokens. Attention runs for each stretch of equally long rows with the
same prefix, in blocks of queries, so that no key after a block is looked at; of the last layer, the
last tokens alone are computed. Made for CPUs, where neither padding nor a mask over what a causal
model cannot see is free.

Shapes: n rows, T tokens of all rows together, L tokens of a row, P prefix tokens, H heads,
D dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from raydist.rerank.prefix import PrefixCache
from raydist.rerank.rows import Row

__all__ = ["can_pack", "last_hidden", "use_packed_attention"]

_NAME = "raydist_packed_decoder"
_BLOCK = 128

# (first token, rows, length, prefix keys and values of every layer or None)
_Stretch = tuple[int, int, int, Any]


def can_pack(decoder: Any) -> bool:
    """Returns whether `last_hidden` knows the decoder's architecture."""
    kinds = set(getattr(decoder.config, "layer_types", None) or ["full_attention"])
    return decoder.config.model_type == "qwen3" and kinds == {"full_attention"}


def use_packed_attention(model: Any) -> None:
    """Makes a model's attention take packed rows as well as single sequences."""
    AttentionInterface.register(_NAME, _attention)
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = _NAME


def last_hidden(decoder: Any, prefixes: PrefixCache, rows: Sequence[Row]) -> Tensor:
    """Returns the hidden state [n, hidden] of each row's last token.

    Args:
        decoder: one that `can_pack`, after `use_packed_attention`.
        prefixes: where the keys and values of the rows' prefixes come from.
        rows: equally long rows of the same prefix should be neighbours.
    """
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    ends = np.cumsum(lengths)
    ids_T = np.fromiter((t for row in rows for t in row.tokens), np.int64, int(ends[-1]))
    before = np.fromiter((len(row.prefix) for row in rows), np.int64, len(rows))
    positions_T = np.arange(len(ids_T)) - np.repeat(ends - lengths - before, lengths)
    position_ids = torch.from_numpy(positions_T)[None]
    hidden_1TD = decoder.embed_tokens(torch.from_numpy(ids_T)[None])
    turns = decoder.rotary_emb(hidden_1TD, position_ids)
    stretches = _stretches(prefixes, rows)
    for layer in decoder.layers[:-1]:
        hidden_1TD = layer(
            hidden_1TD,
            attention_mask=None,
            position_ids=position_ids,
            position_embeddings=turns,
            use_cache=False,
            raydist_stretches=stretches,
        )
    ends_n = torch.from_numpy(ends - 1)
    hidden_1nD = _last_layer(decoder.layers[-1], hidden_1TD, turns, ends_n, stretches)
    return decoder.norm(hidden_1nD)[0]  # type: ignore[no-any-return]


def _last_layer(
    layer: Any,
    hidden_1TD: Tensor,
    turns: tuple[Tensor, Tensor],
    ends_n: Tensor,
    stretches: Sequence[_Stretch],
) -> Tensor:
    """Returns what the last layer gives for the rows' last tokens, [1, n, hidden].

    The other tokens are needed for their keys and values alone; and a row's last token sees all of
    its keys, so nothing is masked.
    """
    attention = layer.self_attn
    normed_1TD = layer.input_layernorm(hidden_1TD)

    def heads(values_1TD: Tensor) -> Tensor:
        return values_1TD.view(1, values_1TD.shape[1], -1, attention.head_dim).transpose(1, 2)

    q_1HnD = attention.q_norm(heads(attention.q_proj(normed_1TD[:, ends_n])))
    k_1HTD = attention.k_norm(heads(attention.k_proj(normed_1TD)))
    v_1HTD = heads(attention.v_proj(normed_1TD))
    cos_1TD, sin_1TD = turns
    q_1HnD = _turned(q_1HnD, cos_1TD[:, ends_n], sin_1TD[:, ends_n])
    k_1HTD = _turned(k_1HTD, cos_1TD, sin_1TD)
    mixed, first = [], 0
    for begin, rows, length, layers in stretches:
        k_nHSD, v_nHSD = _keys(k_1HTD, v_1HTD, begin, rows, length, layers, attention.layer_idx)
        q_nH1D = q_1HnD[0, :, first : first + rows].transpose(0, 1)[:, :, None]
        mixed.append(
            F.scaled_dot_product_attention(
                q_nH1D, k_nHSD, v_nHSD, scale=attention.scaling, enable_gqa=True
            )[:, :, 0]
        )
        first += rows
    hidden_1nD = hidden_1TD[:, ends_n] + attention.o_proj(torch.cat(mixed).flatten(1))
    return hidden_1nD + layer.mlp(layer.post_attention_layernorm(hidden_1nD))  # type: ignore[no-any-return]


def _turned(values_1HTD: Tensor, cos_1TD: Tensor, sin_1TD: Tensor) -> Tensor:
    """Returns rotary positions applied: halves of a head turn against each other."""
    low, high = values_1HTD.chunk(2, dim=-1)
    return values_1HTD * cos_1TD[:, None] + torch.cat([-high, low], dim=-1) * sin_1TD[:, None]


def _keys(
    k_1HTD: Tensor, v_1HTD: Tensor, begin: int, rows: int, length: int, layers: Any, number: int
) -> tuple[Tensor, Tensor]:
    """Returns a stretch's keys and values [n, H, P + L, D], those of its prefix included."""
    k_nHSD, v_nHSD = (
        x[0, :, begin : begin + rows * length]
        .reshape(-1, rows, length, x.shape[-1])
        .transpose(0, 1)
        for x in (k_1HTD, v_1HTD)
    )
    if layers is None:
        return k_nHSD, v_nHSD
    keys, values = (x.expand(rows, -1, -1, -1) for x in layers[number])
    return torch.cat([keys, k_nHSD], dim=2), torch.cat([values, v_nHSD], dim=2)


def _stretches(prefixes: PrefixCache, rows: Sequence[Row]) -> list[_Stretch]:
    distinct = dict.fromkeys(row.prefix for row in rows)
    layers = {prefix: prefixes.layers(prefix) if prefix else None for prefix in distinct}
    stretches: list[_Stretch] = []
    position, last = 0, None
    for row in rows:
        if (len(row), row.prefix) == last:
            begin, count, length, shared = stretches[-1]
            stretches[-1] = begin, count + 1, length, shared
        else:
            stretches.append((position, 1, len(row), layers[row.prefix]))
        last = len(row), row.prefix
        position += len(row)
    return stretches


def _attention(
    module: Any,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    raydist_stretches: Sequence[_Stretch] = (),
    **_: Any,
) -> tuple[Tensor, None]:
    if not raydist_stretches:  # one sequence: a prefix
        whole = F.scaled_dot_product_attention(
            query_1HTD, key_1HTD, value_1HTD, is_causal=True, scale=scaling, enable_gqa=True
        )
        return whole.transpose(1, 2).contiguous(), None
    heads, total, width = query_1HTD.shape[1:]
    out_THD = query_1HTD.new_empty(total, heads, width)
    for begin, rows, length, layers in raydist_stretches:
        end = begin + rows * length
        q_nHLD = query_1HTD[0, :, begin:end].reshape(-1, rows, length, width).transpose(0, 1)
        k_nHSD, v_nHSD = _keys(key_1HTD, value_1HTD, begin, rows, length, layers, module.layer_idx)
        mixed_nHLD = _causal(q_nHLD, k_nHSD, v_nHSD, scaling)
        out_THD[begin:end] = mixed_nHLD.transpose(1, 2).reshape(rows * length, heads, width)
    return out_THD[None], None


def _causal(q_nHLD: Tensor, k_nHSD: Tensor, v_nHSD: Tensor, scaling: float | None) -> Tensor:
    """Returns attention of L queries that are the last of S = P + L positions."""
    length, whole = q_nHLD.shape[2], k_nHSD.shape[2]
    parts = []
    for first in range(0, length, _BLOCK):
        last = min(first + _BLOCK, length)
        seen = whole - length + last
        mask = torch.ones(last - first, seen, dtype=torch.bool).tril(seen - (last - first))
        parts.append(
            F.scaled_dot_product_attention(
                q_nHLD[:, :, first:last],
                k_nHSD[:, :, :seen],
                v_nHSD[:, :, :seen],
                attn_mask=mask,
                scale=scaling,
                enable_gqa=True,
            )
        )
    return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
