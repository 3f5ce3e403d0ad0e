"""Texts laid end to end instead of padded: `attention=varlen`, and how inputs reach a device.

Linear layers see real tokens alone, and attention runs text by text: on CUDA by
`torch.nn.attention.varlen` (torch 2.11 or newer), elsewhere by a loop over the texts, which gives
the same vectors and shows that packing is right, but is not fast.

Shapes: n texts, T tokens of all of them, H heads, D dimensions.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from raydist.errors import ConfigError
from raydist.models.spec import Pooling

VARLEN = "varlen"
Inputs = dict[str, Tensor]
"""Padded: `input_ids` and `attention_mask` [n, L], `token_type_ids` where used. Packed: `input_ids`
and `positions` [1, T], `edges` int32 [n + 1], and on the CPU the length of the `longest` text."""


def placed(inputs: Inputs, device: torch.device, packed: bool = False) -> Inputs:
    """Returns padded inputs on the device, without a mask that hides nothing (which is faster).

    Args:
        inputs: padded, on the CPU (elsewhere they stay as they are).
        device: where to.
        packed: lay the texts end to end instead.
    """
    mask = inputs.get("attention_mask")
    if mask is not None and mask.device.type == "cpu":
        if packed:
            inputs = unpadded(inputs)
        elif bool(mask.all()):
            inputs = {name: value for name, value in inputs.items() if name != "attention_mask"}
    return {
        name: value if name == "longest" else _sent(value, device) for name, value in inputs.items()
    }


def _sent(value: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor on a device; a GPU fetches it by itself, from memory that stays in place."""
    if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
        value = value.pin_memory()
    return value.to(device, non_blocking=True)


def unpadded(inputs: Mapping[str, Tensor]) -> Inputs:
    """Returns the packed inputs of padded ones; on a device, this waits for it."""
    ids_nL, mask_nL = inputs["input_ids"], inputs.get("attention_mask")
    if mask_nL is None:
        mask_nL = torch.ones_like(ids_nL)
    return packed_ids(ids_nL[mask_nL.bool()], mask_nL.sum(1))


def packed_rows(rows: Sequence[Sequence[int]]) -> Inputs:
    """Returns the packed inputs of tokenised texts."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    flat = np.concatenate([np.asarray(row, np.int64) for row in rows])
    return packed_ids(torch.from_numpy(flat), torch.from_numpy(lengths))


def packed_ids(ids_T: Tensor, lengths_n: Tensor) -> Inputs:
    """Returns the packed inputs of texts whose ids lie end to end already."""
    edges = F.pad(lengths_n.cumsum(0), (1, 0))
    positions_T = torch.arange(len(ids_T), device=ids_T.device)
    positions_T = positions_T - edges[:-1].repeat_interleave(lengths_n)
    return {
        "input_ids": ids_T[None],
        "positions": positions_T[None],
        "edges": edges.to(torch.int32),
        "longest": lengths_n.max(),
    }


def attention_options(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns what a transformer hands through to its attention, under transformers' own names."""
    longest = int(inputs["longest"])
    return {
        "cu_seq_lens_q": inputs["edges"],
        "cu_seq_lens_k": inputs["edges"],
        "max_length_q": longest,
        "max_length_k": longest,
    }


def register() -> None:
    """Makes transformers know `varlen`."""
    AttentionInterface.register(VARLEN, _attention)


def _attention(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    **other: Any,
) -> tuple[Tensor, None]:
    """Attention within each text; the signature is that of transformers' attention functions."""
    if attention_mask is not None or any(
        other.get(name) is not None for name in ("position_bias", "softcap", "s_aux")
    ):
        raise ConfigError("attention=varlen: this model adds something to its attention; use sdpa")
    if dropout:
        raise ConfigError(
            "attention=varlen: has no dropout of attention; model.dropout=0 trains without any, "
            "attention=sdpa with it"
        )
    if is_causal is None:
        is_causal = bool(getattr(module, "is_causal", True))
    # Each side sees a window less itself, a causal model nothing on its right.
    side = sliding_window - 1 if sliding_window else -1
    window = (side, 0 if is_causal else side)
    q, k, v = (x[0].transpose(0, 1) for x in (query_1HTD, key_1HTD, value_1HTD))
    attend = _on_cpu if q.device.type == "cpu" else _on_cuda
    return attend(q, k, v, cu_seq_lens_q, max_length_q, window, scaling)[None], None


def _on_cuda(
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    edges: Tensor,
    longest: int,
    window: tuple[int, int],
    scaling: float | None,
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    if torch.is_autocast_enabled("cuda"):  # norms may have left float32
        dtype = torch.get_autocast_dtype("cuda")
        q_THD, k_THD, v_THD = (x.to(dtype) for x in (q_THD, k_THD, v_THD))
    groups = q_THD.shape[1] // k_THD.shape[1]
    if groups > 1:
        k_THD, v_THD = (x.repeat_interleave(groups, 1) for x in (k_THD, v_THD))
    if q_THD.dtype == torch.float32:
        raise ConfigError(
            "attention=varlen: computes in half precision on a GPU; model.autocast=bfloat16 or "
            "dtype=bfloat16"
        )
    options: dict[str, Any] = {"window_size": window}
    if "window_size" not in inspect.signature(varlen_attn).parameters:  # the first versions
        if window not in ((-1, -1), (-1, 0)):
            raise ConfigError("attention=varlen: this torch has no sliding windows; use sdpa")
        options = {"is_causal": window == (-1, 0)}
    q_THD, k_THD, v_THD = (x.contiguous() for x in (q_THD, k_THD, v_THD))
    mixed = varlen_attn(
        q_THD, k_THD, v_THD, edges, edges, longest, longest, scale=scaling, **options
    )
    assert isinstance(mixed, Tensor)
    return mixed


def _on_cpu(
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    edges: Tensor,
    longest: int,
    window: tuple[int, int],
    scaling: float | None,
) -> Tensor:
    del longest
    left, right = window
    mixed = []
    for start, end in pairwise(edges.tolist()):
        q, k, v = (x[start:end].transpose(0, 1)[None] for x in (q_THD, k_THD, v_THD))
        mask = None
        if left >= 0 or right >= 0:
            places = torch.arange(end - start)
            ahead = places[None, :] - places[:, None]
            mask = torch.ones_like(ahead, dtype=torch.bool)
            if left >= 0:
                mask &= ahead >= -left
            if right >= 0:
                mask &= ahead <= right
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        mixed.append(out[0].transpose(0, 1))
    return torch.cat(mixed)


def pool_packed(hidden_TD: Tensor, inputs: Mapping[str, Tensor], pooling: Pooling) -> Tensor:
    """Returns what `raydist.models.pooling.pool` gives for the same texts, padded.

    Args:
        hidden_TD: the backbone's last hidden state, in any floating dtype.
        inputs: the packed inputs.
        pooling: as there.
    """
    exact = torch.promote_types(hidden_TD.dtype, torch.float32)
    edges = inputs["edges"].long()
    if pooling == "cls":
        return hidden_TD[edges[:-1]].to(exact)
    if pooling == "last_token":
        return hidden_TD[edges[1:] - 1].to(exact)
    hidden_TD = hidden_TD.to(exact)
    if pooling == "max":
        return _by_text(hidden_TD, edges, "max")
    totals_n1 = edges.diff()[:, None].to(exact)
    if pooling == "weighted_mean":
        hidden_TD = hidden_TD * (inputs["positions"][0] + 1)[:, None].to(exact)
        totals_n1 = totals_n1 * (totals_n1 + 1) / 2
    if pooling == "mean_sqrt_len":
        totals_n1 = totals_n1.sqrt()
    return _by_text(hidden_TD, edges, "sum") / totals_n1


def _by_text(values_TD: Tensor, edges: Tensor, reduce: str) -> Tensor:
    # To check the edges is to wait for an accelerator.
    return torch.segment_reduce(values_TD, reduce, offsets=edges, axis=0, unsafe=True)


def wide_mask(mask_BT: Tensor, causal: bool) -> Tensor:
    """Returns a mask [B, 1, T, T] of what each token sees.

    transformers makes the same of [B, T] after it has looked whether anything is padded at all,
    for which the program waits for the device.
    """
    wide = mask_BT.bool()[:, None, None, :]
    length = mask_BT.shape[1]
    if not causal:
        return wide.expand(-1, 1, length, -1)
    places = torch.arange(length, device=mask_BT.device)
    # Padding sees itself, so that no row is without anything to see.
    return (wide & (places <= places[:, None])) | (places == places[:, None])
