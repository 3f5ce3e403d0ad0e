"""Keys and values of shared prompt prefixes: computed together, cached (LRU), read by rows.

Shapes: n rows, P prefix tokens, T tail tokens, H key heads, D dimensions of a head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

Prefix: TypeAlias = tuple[int, ...]
Layers: TypeAlias = list[tuple[Tensor, Tensor]]
"""A prefix's keys and values [P, H, D], layer by layer."""


def can_share(config: Any) -> bool:
    """Returns whether prefixes of a decoder can be shared: all its layers attend to all before."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


class PrefixCache:
    """Computes prefixes, those that are missing together, and keeps the most recently used.

    Args:
        compute: returns the layers of prefixes in one pass.
        size: the most prefixes that are kept.
        tokens: how many tokens they may have together: one of an 8-billion model has 150 kB.
        pass_tokens: the most tokens of prefixes in one pass (a longer one goes alone).

    Attributes:
        hits: prefixes that were in the cache.
        misses: prefixes that were computed.
        passes: how often some were.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Prefix]], Sequence[Layers]],
        *,
        size: int = 16,
        tokens: int = 16_384,
        pass_tokens: int = 1024,
    ) -> None:
        assert size > 0
        self.size = size
        self.tokens = tokens
        self.pass_tokens = pass_tokens
        self.hits = 0
        self.misses = 0
        self.passes = 0
        self._compute = compute
        self._cache: OrderedDict[Prefix, Layers] = OrderedDict()

    def layers_of(self, prefixes: Iterable[Prefix]) -> dict[Prefix, Layers]:
        """Returns the layers of each distinct prefix that is not empty."""
        layers = {prefix: self._cache.get(prefix) for prefix in prefixes if prefix}
        missing = [prefix for prefix, cached in layers.items() if cached is None]
        self.hits += len(layers) - len(missing)
        self.misses += len(missing)
        for group in _groups(missing, self.pass_tokens):
            self.passes += 1
            layers.update(zip(group, self._compute(group)))
        complete = {prefix: each for prefix, each in layers.items() if each is not None}
        for prefix, each in complete.items():
            self._cache[prefix] = each
            self._cache.move_to_end(prefix)
        while len(self._cache) > self.size or (
            len(self._cache) > 1 and sum(map(len, self._cache)) > self.tokens
        ):
            self._cache.popitem(last=False)
        return complete

    def clear(self) -> None:
        """Forgets all prefixes."""
        self._cache.clear()


def _groups(prefixes: Iterable[Prefix], most: int) -> Iterator[list[Prefix]]:
    """Yields prefixes of at most `most` tokens together, shorter ones first, or a longer one."""
    group: list[Prefix] = []
    for prefix in sorted(prefixes, key=len):
        if group and sum(map(len, group)) + len(prefix) > most:
            yield group
            group = []
        group.append(prefix)
    if group:
        yield group


def compute_padded(decoder: Any, prefixes: Sequence[Prefix]) -> list[Layers]:
    """Returns the layers of prefixes in one pass of a decoder without its head.

    Padding is on the right, where a causal model's tokens do not see it: there is no mask.
    """
    longest = max(map(len, prefixes))
    ids = [[*prefix, *[prefix[0]] * (longest - len(prefix))] for prefix in prefixes]
    cache = DynamicCache(config=decoder.config)
    decoder(
        input_ids=torch.tensor(ids, device=decoder.device), past_key_values=cache, use_cache=True
    )
    layers: list[Layers] = [[] for _ in prefixes]
    for layer in cache.layers:
        for own, prefix, keys, values in zip(layers, prefixes, layer.keys, layer.values):
            end = len(prefix)
            own.append((keys[:, :end].transpose(0, 1), values[:, :end].transpose(0, 1)))
    return layers


def padded_inputs(
    layers: Mapping[Prefix, Layers],
    prefixes: Sequence[Prefix],
    tail: int,
    device: torch.device,
) -> dict[str, Any]:
    """Returns a decoder's arguments for padded rows that continue `prefixes`.

    Args:
        layers: of the prefixes.
        prefixes: each row's prefix; all empty where nothing is shared.
        tail: T, the longest row's tokens after the prefix.
        device: where the decoder is.

    Returns:
        `past_key_values`, `position_ids` [n, T], and `attention_mask` [n, P + T] where prefixes
        differ in length: shorter ones are padded on the left.
    """
    if not layers:
        return {"use_cache": False}
    distinct = list(layers)
    sizes = torch.tensor([len(prefix) for prefix in prefixes])
    longest = int(sizes.max())
    position_ids = sizes[:, None] + torch.arange(tail)
    which_n = None
    if len(distinct) > 1:
        which_n = torch.tensor([distinct.index(prefix) for prefix in prefixes], device=device)
    joined = [
        _ReadOnlyLayer(
            _left_padded([keys for keys, _ in layer], longest),
            _left_padded([values for _, values in layer], longest),
            which_n,
        )
        for layer in zip(*layers.values())
    ]
    inputs = {
        "past_key_values": Cache(layers=joined),
        "position_ids": position_ids.to(device),
        "use_cache": True,
    }
    if int(sizes.min()) < longest:
        mask = torch.arange(longest + tail) >= (longest - sizes)[:, None]
        inputs["attention_mask"] = mask.long().to(device)
    return inputs


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


def _left_padded(tensors: Sequence[Tensor], length: int) -> Tensor:
    """Returns [P, H, D] tensors as one [len, H, length, D], zeros before the shorter ones."""
    _, heads, width = tensors[0].shape
    out = tensors[0].new_zeros(len(tensors), heads, length, width)
    for number, tensor in enumerate(tensors):
        out[number, :, length - len(tensor) :] = tensor.transpose(0, 1)
    return out
