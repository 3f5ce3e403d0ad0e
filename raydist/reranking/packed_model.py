"""Any decoder without padding: rows laid end to end, each after its own prefix.

The network is transformers' own; its attention is `raydist.models.packed_attention`, which joins
each row's keys with those of its prefix. Nothing is masked and no heads are repeated, so that flash
kernels run, and rows of any prefixes share a batch.

Shapes: n rows, T tokens of all rows together, P tokens of all distinct prefixes together, S keys of
all rows, those of their prefixes included, H heads, D dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from raydist.models.packed_attention import Edges
from raydist.models.packing import packed_options, packed_rows, sent
from raydist.reranking.prefix import Layers, Prefix
from raydist.reranking.rows import Row


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows as the decoder reads them, on its device.

    Attributes:
        inputs: as `packed_rows` returns them; positions count prefixes.
        last_n: where each row's last token is.
        prefixes: the distinct ones, in the order of `source_S`.
        keys: the rows among the keys.
        source_S: where each key lies: in the prefixes, and behind them in the rows.
    """

    inputs: dict[str, Tensor]
    last_n: Tensor
    prefixes: list[Prefix]
    keys: Edges
    source_S: Tensor


def collate(rows: Sequence[Row], device: torch.device) -> PackedRows:
    """Returns rows laid end to end, on a device."""
    inputs = packed_rows([row.tokens for row in rows])
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    before = np.fromiter((len(row.prefix) for row in rows), np.int64, len(rows))
    prefixes = list(dict.fromkeys(row.prefix for row in rows if row.prefix))
    begins, total = dict[Prefix, int](), 0
    for prefix in prefixes:
        begins[prefix] = total
        total += len(prefix)
    first = np.fromiter((begins.get(row.prefix, 0) for row in rows), np.int64, len(rows))
    ends = np.cumsum(lengths)
    # Each row's keys are two stretches: of its prefix, and of its own.
    begin = np.stack([first, total + ends - lengths], 1).ravel()
    size = np.stack([before, lengths], 1).ravel()
    source = np.arange(int(size.sum())) + np.repeat(begin - (np.cumsum(size) - size), size)
    both = before + lengths
    inputs["positions"] = inputs["positions"] + torch.from_numpy(np.repeat(before, lengths))[None]
    edges = np.concatenate(([0], np.cumsum(both))).astype(np.int32)
    return PackedRows(
        {name: x if name == "longest" else sent(x, device) for name, x in inputs.items()},
        sent(torch.from_numpy(ends - 1), device),
        prefixes,
        Edges(sent(torch.from_numpy(edges), device), int(both.max())),
        sent(torch.from_numpy(source), device),
    )


class _Joined:
    """Prefixes' keys and values before those of packed rows, layer by layer."""

    def __init__(self, rows: PackedRows, layers: Mapping[Prefix, Layers]) -> None:
        self._rows = rows
        self._layers = [layers[prefix] for prefix in rows.prefixes]

    def join(self, layer: int, k_THD: Tensor, v_THD: Tensor) -> tuple[Tensor, Tensor, Edges]:
        """Returns keys and values [S, H, D] of all rows, and where each row has its own."""
        k_SHD, v_SHD = (
            torch.cat([*(each[layer][kind] for each in self._layers), own])[self._rows.source_S]
            for kind, own in ((0, k_THD), (1, v_THD))
        )
        return k_SHD, v_SHD, self._rows.keys


def packed_output(model: Any, rows: PackedRows, layers: Mapping[Prefix, Layers]) -> Any:
    """Returns the output of a decoder or of a model around one, whose batch is 1.

    Args:
        model: after `raydist.models.packed_attention.use_packed_attention`.
        rows: the rows.
        layers: keys and values of their prefixes.
    """
    joined = {"prefixes": _Joined(rows, layers)} if rows.prefixes else {}
    return model(**packed_options(model, rows.inputs), use_cache=False, **joined)


def prefix_layers(decoder: Any, prefixes: Sequence[Prefix]) -> list[Layers]:
    """Returns the keys and values of prefixes, computed end to end in one pass."""
    rows = collate([Row(prefix) for prefix in prefixes], decoder.device)
    cache = DynamicCache(config=decoder.config)
    decoder(**packed_options(decoder, rows.inputs), past_key_values=cache, use_cache=True)
    lengths = list(map(len, prefixes))
    parts = [
        [x[0].transpose(0, 1).split(lengths) for x in (layer.keys, layer.values)]
        for layer in cache.layers
    ]
    return [
        [(keys[n].clone(), values[n].clone()) for keys, values in parts]
        for n in range(len(prefixes))
    ]
