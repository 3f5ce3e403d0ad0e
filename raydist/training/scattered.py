"""A model whose weights lie in parts on all ranks, written shard by shard: no rank holds it whole.

Rank 0 asks for the weights of a part of the model at a time, a layer or what is outside of all
layers, and the other ranks answer until it is done.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor, nn

from raydist.errors import ArtifactError
from raydist.models.adapters import merged_state, unloaded
from raydist.models.backbone import SHARD_BYTES, save_transformer
from raydist.training.skeleton import fill

_FILE = "model.safetensors"


@dataclass
class Scattered:
    """A model to be saved; every rank calls `save`.

    Attributes:
        module: its form, without weights but with its buffers.
        gather: names of parameters -> copies on the CPU on rank 0, nothing elsewhere; every rank
            calls it with the same names.
        first: whether this is rank 0, the one that writes.
        shard: bytes of a file, which may be exceeded by one layer.
    """

    module: Any
    gather: Callable[[Sequence[str]], list[Tensor]]
    first: bool
    shard: int = SHARD_BYTES

    def save(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Writes the model as its own `save` does, every file read again.

        Raises:
            ArtifactError: a file does not hold what was written.
        """
        if not self.first:
            while (names := _broadcast(None)) is not None:
                self.gather(names)
            return
        try:
            module = self.module
            self._names = {id(p): name for name, p in module.named_parameters()}
            # Adapters and projections are small.
            self._fill(
                name
                for name, p in module.named_parameters()
                if "projections." in name or (p.requires_grad and _adapted(module))
            )
            module.save(folder, weights=self._write, settings=dict(settings))
            module.save_adapters(folder)
        finally:
            _broadcast(None)

    def _fetch(self, names: Sequence[str]) -> list[Tensor]:
        if not names:
            return []
        _broadcast(list(names))
        return self.gather(names)

    def _fill(self, names: Iterator[str]) -> None:
        own = dict(self.module.named_parameters())
        wanted = list(names)
        for name, tensor in zip(wanted, self._fetch(wanted), strict=True):
            fill(own[name], tensor)

    def _write(self, tower: Any, place: Path) -> None:
        """Writes a transformer, adapters merged, into a folder."""
        files = _Files(unloaded(tower), place, self.shard)
        written: set[int] = set()
        base = getattr(tower, "get_base_model", lambda: tower)()
        for prefix, part in _parts(base):
            own = {id(p): p for p in part.parameters() if id(p) not in written}
            absent = [key for key, p in own.items() if p.is_meta]
            tensors = self._fetch([self._names[key] for key in absent])
            copies = {
                key: nn.Parameter(tensor, requires_grad=False)
                for key, tensor in zip(absent, tensors, strict=True)
            }
            files.add(prefix, merged_state(copy.deepcopy(part, dict[int, Any](copies))))
            written |= own.keys()
            del copies, tensors
        files.close()


@dataclass
class _Files:
    """The files of one transformer, of which the last one written is still held."""

    form: Any
    place: Path
    limit: int
    state: dict[str, Tensor] = field(default_factory=dict)
    names: list[list[str]] = field(default_factory=list)
    bytes: int = 0

    def add(self, prefix: str, state: Mapping[str, Tensor]) -> None:
        """Adds a part; what is tied to an earlier one is without values, and left out."""
        state = {prefix + name: tensor for name, tensor in state.items() if not tensor.is_meta}
        if self.state and _bytes(self.state) + _bytes(state) > self.limit:
            self._flush()
        self.state |= state

    def close(self) -> None:
        """Writes the rest, and gives the files their names."""
        self._flush()
        count = len(self.names)
        if count == 1:
            os.replace(self._path(0), self.place / _FILE)
            return
        files = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
        for i, file in enumerate(files):
            os.replace(self._path(i), self.place / file)
        index = {
            "metadata": {"total_size": self.bytes},
            "weight_map": {n: file for file, names in zip(files, self.names) for n in names},
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (self.place / f"{_FILE}.index.json").write_text(text, encoding="utf-8")

    def _flush(self) -> None:
        save_transformer(self.form, self.place, state=dict(self.state))
        path = self._path(len(self.names))
        os.replace(self.place / _FILE, path)
        with safe_open(str(path), framework="pt") as tensors:
            names = list(tensors.keys())
            for name in names:
                read = tensors.get_tensor(name)
                self.bytes += read.nbytes
                if name in self.state and not torch.equal(read, self.state[name]):
                    raise ArtifactError(f"{path}: {name} was not written as it was trained")
        self.names.append(names)
        self.state = {}

    def _path(self, number: int) -> Path:
        return self.place / f".{number:05}.part"


def _parts(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yields the parts of a transformer with the prefixes of their names: layers, and the rest."""
    rest = nn.Module()
    for name, parameter in module.named_parameters(recurse=False):
        rest.register_parameter(name, parameter)
    for name, buffer in module.named_buffers(recurse=False):
        rest.register_buffer(name, buffer, name not in module._non_persistent_buffers_set)
    if rest.state_dict():
        yield prefix, rest
    for name, child in module.named_children():
        below = f"{prefix}{name}."
        if hasattr(child, "base_layer") or not _has_layers(child):
            yield prefix, _holding(name, child)
        elif isinstance(child, nn.ModuleList):
            for number, layer in child.named_children():
                yield below, _holding(number, layer)
        else:
            yield from _parts(child, below)


def _holding(name: str, module: nn.Module) -> nn.Module:
    holder = nn.Module()
    holder.add_module(name, module)
    return holder


def _has_layers(module: nn.Module) -> bool:
    return any(isinstance(each, nn.ModuleList) for each in module.modules())


def _adapted(module: nn.Module) -> bool:
    return any(hasattr(each, "merge_and_unload") for each in module.modules())


def _bytes(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in state.values())


def _broadcast(names: list[str] | None) -> list[str] | None:
    """Returns what rank 0 asks for next, None when it is done."""
    asked = [names]
    dist.broadcast_object_list(asked, 0)
    return asked[0]
