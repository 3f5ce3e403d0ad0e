"""Texts laid end to end instead of padded (`attention=varlen`), and how inputs reach a device.

Linear layers see real tokens alone; for attention see `packed_attention`.

Shapes: n texts, T tokens of all of them, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raydist.models.architecture import first_position, names_positions
from raydist.models.packed_attention import Edges
from raydist.models.spec import Pooling

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
        name: value if name == "longest" else sent(value, device) for name, value in inputs.items()
    }


def sent(value: Tensor, device: torch.device) -> Tensor:
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


def edges_of(inputs: Mapping[str, Tensor]) -> Edges:
    """Returns where the texts of packed inputs begin and end."""
    return Edges(inputs["edges"], int(inputs["longest"]))


def packed_options(transformer: Any, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the arguments of a transformer whose attention takes packed rows."""
    options = {"input_ids": inputs["input_ids"], **edges_of(inputs).options()}
    if names_positions(transformer):
        options["position_ids"] = inputs["positions"] + first_position(transformer)
    return options


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
