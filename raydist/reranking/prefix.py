"""Keys and values of shared prompt prefixes: computed once, cached (LRU), read by rows.

Shapes: n rows, P prefix tokens, T tail tokens, H key heads, D dimensions of a head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

_Layers = list[tuple[Tensor, Tensor]]


class _ReadOnlyLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's prefixes: new keys and values are joined for the caller, but not stored.

    So that of all layers only the one at work holds the prefixes once per row.
    """

    def __init__(self, keys: Tensor, values: Tensor, which_n: Tensor | None = None) -> None:
        """Takes one prefix for all rows, or several and which of them each row continues."""
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._which_n = which_n

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Returns prefix and new states, [n, H, P + T, D]."""
        rows = key_states.shape[0]
        if self._which_n is None:
            keys = self.keys.expand(rows, -1, -1, -1)
            values = self.values.expand(rows, -1, -1, -1)
        else:
            keys, values = self.keys[self._which_n], self.values[self._which_n]
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)


def can_share(config: Any) -> bool:
    """Returns whether prefixes of a decoder can be shared: all its layers attend to all before."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


class PrefixCache:
    """Computes prefixes with a decoder and keeps the most recently used.

    Args:
        decoder: the model without its head.
        size: the most prefixes.
        tokens: how many tokens they may have together: one of an 8-billion model has 150 kB.

    Attributes:
        hits: prefixes that were in the cache.
        misses: prefixes that were computed.
    """

    def __init__(self, decoder: Any, *, size: int = 16, tokens: int = 16_384) -> None:
        assert size > 0
        self.decoder = decoder
        self.size = size
        self.tokens = tokens
        self.hits = 0
        self.misses = 0
        self._cache: OrderedDict[tuple[int, ...], _Layers] = OrderedDict()

    def inputs(self, prefixes: Sequence[tuple[int, ...]], tail: int) -> dict[str, Any]:
        """Returns the decoder's arguments for rows that continue `prefixes`.

        Args:
            prefixes: each row's prefix; all empty where nothing is shared.
            tail: T, the longest row's tokens after the prefix.

        Returns:
            `past_key_values`, `position_ids` [n, T], and `attention_mask` [n, P + T] where
            prefixes differ in length: shorter ones are padded on the left.
        """
        if not any(prefixes):
            return {"use_cache": False}
        device = self.decoder.device
        distinct = list(dict.fromkeys(prefixes))
        layers = [self.layers(prefix) for prefix in distinct]
        sizes = torch.tensor([len(prefix) for prefix in prefixes])
        position_ids = sizes[:, None] + torch.arange(tail)
        if len(distinct) == 1:
            cache = Cache(layers=[_ReadOnlyLayer(k, v) for k, v in layers[0]])
            return {
                "past_key_values": cache,
                "position_ids": position_ids[:1].to(device),
                "use_cache": True,
            }
        longest = int(sizes.max())
        which_n = torch.tensor([distinct.index(prefix) for prefix in prefixes], device=device)
        joined = [
            _ReadOnlyLayer(
                _left_padded([keys for keys, _ in layer], longest),
                _left_padded([values for _, values in layer], longest),
                which_n,
            )
            for layer in zip(*layers)
        ]
        mask = torch.arange(longest + tail) >= (longest - sizes)[:, None]
        return {
            "past_key_values": Cache(layers=joined),
            "position_ids": position_ids.to(device),
            "attention_mask": mask.long().to(device),
            "use_cache": True,
        }

    def layers(self, prefix: tuple[int, ...]) -> _Layers:
        """Returns the keys and values [1, H, P, D] of each layer after `prefix`."""
        cached = self._cache.get(prefix)
        if cached is not None:
            self._cache.move_to_end(prefix)
            self.hits += 1
            return cached
        self.misses += 1
        cache = DynamicCache(config=self.decoder.config)
        ids = torch.tensor([prefix], device=self.decoder.device)
        self.decoder(input_ids=ids, past_key_values=cache, use_cache=True)
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        self._cache[prefix] = layers
        while len(self._cache) > self.size or (
            len(self._cache) > 1 and sum(map(len, self._cache)) > self.tokens
        ):
            self._cache.popitem(last=False)
        return layers


def _left_padded(tensors: Sequence[Tensor], length: int) -> Tensor:
    """Returns [1, H, P, D] tensors as one [len, H, length, D], zeros before the shorter ones."""
    _, heads, _, width = tensors[0].shape
    out = tensors[0].new_zeros(len(tensors), heads, length, width)
    for number, tensor in enumerate(tensors):
        out[number, :, length - tensor.shape[2] :] = tensor[0]
    return out
