"""Attention over texts laid end to end: `attention=varlen`.

On CUDA by `torch.nn.attention.varlen` (torch 2.11 or newer), which has flash kernels and takes no
masks; elsewhere by torch's ordinary attention over texts of one length at a time.

Shapes: n texts, T tokens of all of them, S keys of all of them, H heads, D dimensions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from raydist.errors import ConfigError

VARLEN = "varlen"


@dataclass(frozen=True, slots=True)
class Edges:
    """Where packed rows begin and end.

    Attributes:
        at: int32 [n + 1], from 0 on.
        longest: the tokens of the longest row.
    """

    at: Tensor
    longest: int

    def options(self) -> dict[str, Any]:
        """Returns what a transformer hands through to its attention, as transformers names it."""
        return {
            "cu_seq_lens_q": self.at,
            "cu_seq_lens_k": self.at,
            "max_length_q": self.longest,
            "max_length_k": self.longest,
        }


class Prefixes(Protocol):
    """Keys and values that come before those of packed rows."""

    def join(self, layer: int, k_THD: Tensor, v_THD: Tensor) -> tuple[Tensor, Tensor, Edges]:
        """Returns a layer's keys and values with those before them, and where each row has its."""
        ...


def register() -> None:
    """Makes transformers know `varlen`."""
    AttentionInterface.register(VARLEN, _attention)


def use_packed_attention(model: Any) -> Callable[[], None]:
    """Makes a model's attention take packed rows, and them alone; returns what undoes that."""
    register()
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    before = [(config, config._attn_implementation) for config in configs.values()]

    def restore() -> None:
        for config, attention in before:
            config._attn_implementation = attention

    for config in configs.values():
        config._attn_implementation = VARLEN
    return restore


def is_fast(device: torch.device, dtype: torch.dtype) -> bool:
    """Returns whether packed rows have an attention of their own there, in this precision."""
    if device.type == "cpu":
        return True
    half = dtype in (torch.bfloat16, torch.float16)
    return device.type == "cuda" and half and find_spec("torch.nn.attention.varlen") is not None


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
    prefixes: Prefixes | None = None,
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
    q, k, v = (x[0].transpose(0, 1) for x in (query_1HTD, key_1HTD, value_1HTD))
    queries = keys = Edges(cu_seq_lens_q, max_length_q)
    if prefixes is not None:
        k, v, keys = prefixes.join(module.layer_idx, k, v)  # type: ignore[arg-type]
    # Each side sees a window less itself, a causal model nothing on its right.
    side = sliding_window - 1 if sliding_window else -1
    window = (side, 0 if is_causal else side)
    return attend(q, k, v, queries, keys, window, scaling)[None], None


def attend(
    q_THD: Tensor,
    k_SHD: Tensor,
    v_SHD: Tensor,
    queries: Edges,
    keys: Edges,
    window: tuple[int, int] = (-1, -1),
    scaling: float | None = None,
) -> Tensor:
    """Returns attention [T, H, D] within each row, whose queries are the last of its keys.

    Args:
        q_THD: queries of all rows, end to end.
        k_SHD: keys, of as many heads or fewer.
        v_SHD: values.
        queries: the rows among the queries.
        keys: the rows among keys and values.
        window: how many keys before a query's own and after it are seen; -1: all.
        scaling: of the products; by the root of D if None.
    """
    there = _on_cpu if q_THD.device.type == "cpu" else _on_cuda
    return there(q_THD, k_SHD, v_SHD, queries, keys, window, scaling)


def _on_cuda(
    q_THD: Tensor,
    k_SHD: Tensor,
    v_SHD: Tensor,
    queries: Edges,
    keys: Edges,
    window: tuple[int, int],
    scaling: float | None,
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    if torch.is_autocast_enabled("cuda"):  # norms may have left float32
        dtype = torch.get_autocast_dtype("cuda")
        q_THD, k_SHD, v_SHD = (x.to(dtype) for x in (q_THD, k_SHD, v_SHD))
    if q_THD.dtype == torch.float32:
        raise ConfigError(
            "attention=varlen: computes in half precision on a GPU; model.autocast=bfloat16 or "
            "dtype=bfloat16"
        )
    known = _parameters(varlen_attn)
    options: dict[str, Any] = {"window_size": window}
    if "window_size" not in known:  # the first versions
        if window not in ((-1, -1), (-1, 0)):
            raise ConfigError("attention=varlen: this torch has no sliding windows; use sdpa")
        options = {"is_causal": window == (-1, 0)}
    groups = q_THD.shape[1] // k_SHD.shape[1]
    if groups > 1 and "enable_gqa" in known:
        options["enable_gqa"] = True
    elif groups > 1:
        k_SHD, v_SHD = (x.repeat_interleave(groups, 1) for x in (k_SHD, v_SHD))
    mixed = varlen_attn(
        q_THD.contiguous(),
        k_SHD.contiguous(),
        v_SHD.contiguous(),
        queries.at,
        keys.at,
        queries.longest,
        keys.longest,
        scale=scaling,
        **options,
    )
    assert isinstance(mixed, Tensor)
    return mixed


@cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    """Returns the names of a function's parameters, looked up once and not in every layer."""
    return frozenset(inspect.signature(function).parameters)


def _on_cpu(
    q_THD: Tensor,
    k_SHD: Tensor,
    v_SHD: Tensor,
    queries: Edges,
    keys: Edges,
    window: tuple[int, int],
    scaling: float | None,
) -> Tensor:
    mixed = []
    lengths = zip(queries.at.diff().tolist(), keys.at.diff().tolist())
    first = first_key = 0
    # Neighbours of the same lengths are computed together.
    for (length, seen), group in groupby(lengths):
        rows = len(list(group))
        end, end_key = first + rows * length, first_key + rows * seen
        q = q_THD[first:end].view(rows, length, *q_THD.shape[1:]).transpose(1, 2)
        k, v = (
            x[first_key:end_key].view(rows, seen, *x.shape[1:]).transpose(1, 2)
            for x in (k_SHD, v_SHD)
        )
        whole = window == (-1, 0) and length == seen
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if whole else _visible(length, seen, window),
            is_causal=whole,
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        mixed.append(out.transpose(1, 2).flatten(0, 1))
        first, first_key = end, end_key
    return torch.cat(mixed)


def _visible(length: int, seen: int, window: tuple[int, int]) -> Tensor | None:
    """Returns which keys each of the last `length` positions sees; None: all."""
    left, right = window
    if 0 <= left < seen - 1 or 0 <= right < length - 1:
        ahead = torch.arange(seen) - torch.arange(seen - length, seen)[:, None]
        mask = torch.ones_like(ahead, dtype=torch.bool)
        if left >= 0:
            mask &= ahead >= -left
        if right >= 0:
            mask &= ahead <= right
        return mask
    return None
