"""What outputs are, seen from outside: complete or not, from what, how large, who writes them.

Nothing is locked, copied or checked but the manifest; `verify` reads the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from raydist.errors import ArtifactError, DataError
from raydist.locks import OWN_FILES, Holder
from raydist.manifest import MANIFEST, UNFINISHED
from raydist.storage import is_remote

_RECORD = {"format", "kind", "config", "config_hash", "inputs", "versions", "created", "check"}
_RECORD |= {"config_file", "failed", "error"}
_BESIDE = ".raydist"


@dataclass(frozen=True, slots=True)
class State:
    """The state of an output.

    Attributes:
        path: as the user names it.
        kind: what its manifest calls it; `file` or `folder` for what no verb claims.
        state: `complete`, `unfinished`, `damaged`; `other` for what no verb claims.
        created: when it was completed, in UTC.
        version: of the raydist that wrote it.
        bytes: the size of all its files.
        files: how many there are.
        inputs: the fingerprints of its inputs by name.
        config: what decides its result.
        facts: what its manifest says beside that: counts, mostly.
        error: why the last command failed, or what is damaged.
        writer: the process that writes it now.
    """

    path: str
    kind: str
    state: str
    created: str | None = None
    version: str | None = None
    bytes: int = 0
    files: int = 0
    inputs: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    writer: str | None = None

    def sources(self) -> dict[str, str]:
        """Returns where each input lay, by its name."""
        places = {name: _place(self.config, name) for name in self.inputs}
        return {name: place for name, place in places.items() if place}


def state_of(path: str) -> State:
    """Returns the state of an output: a folder, or a file with its manifest beside it.

    Raises:
        DataError: there is nothing at the path.
    """
    root, _, name = path.rstrip("/").rpartition("/")
    tree = _tree(root or ("/" if path.startswith("/") else "."))
    sizes = tree.sizes(name)
    beside = {} if sizes.keys() - {""} else tree.sizes(f"{name}{_BESIDE}")
    if not sizes and not beside:
        raise DataError(f"{path}: no such file or folder")
    return _state(tree, path, name, sizes, beside)


def states_in(folder: str) -> Iterator[State]:
    """Yields the states of what lies in a folder, by name; hidden files are left out.

    Raises:
        DataError: there is no such folder, or it is a file.
    """
    tree = _tree(folder)
    names = tree.names()
    if names is None:
        raise DataError(f"{folder}: no such folder")
    for name in sorted(names):
        if name.startswith(".") or (name.endswith(_BESIDE) and name[: -len(_BESIDE)] in names):
            continue
        plain = name.removesuffix(_BESIDE)
        sizes = tree.sizes(plain)
        beside = {} if sizes.keys() - {""} else tree.sizes(f"{plain}{_BESIDE}")
        yield _state(tree, f"{folder.rstrip('/')}/{plain}", plain, sizes, beside)


class _Tree(Protocol):
    """Files below a folder, local or on an object store."""

    def names(self) -> set[str] | None:
        """Returns the names in the folder, None if there is no folder."""

    def sizes(self, name: str) -> dict[str, int]:
        """Returns the sizes of the files below a name by relative names, a file's own by ``."""

    def read(self, name: str) -> bytes | None:
        """Returns the content of a small file, None if there is none."""


def _tree(folder: str) -> _Tree:
    return _Remote(folder) if is_remote(folder) else _Local(Path(folder))


class _Local:
    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> set[str] | None:
        return set(os.listdir(self._root)) if self._root.is_dir() else None

    def sizes(self, name: str) -> dict[str, int]:
        place = self._root / name
        if not place.is_dir():
            return {"": place.stat().st_size} if place.is_file() else {}
        found = {}
        for folder, _, files in os.walk(place):
            for file in files:
                path = Path(folder, file)
                if not path.is_symlink() or path.exists():
                    found[path.relative_to(place).as_posix()] = path.stat().st_size
        return found or {".": 0}

    def read(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except OSError:
            return None


class _Remote:
    def __init__(self, uri: str) -> None:
        from raydist.stores.objects import Objects

        self._objects = Objects(uri)
        self._listing: dict[str, int] | None = None

    def names(self) -> set[str] | None:
        if self._listing is None:
            self._listing = {name: each.size for name, each in self._objects.names().items()}
        return {PurePosixPath(name).parts[0] for name in self._listing if name} or None

    def sizes(self, name: str) -> dict[str, int]:
        if self._listing is None:
            if (entry := self._objects.head(name)) is not None:
                return {"": entry.size}
            below = {n: each.size for n, each in self._objects.names(f"{name}/").items()}
        else:
            below = self._listing
        start = f"{name}/"
        sizes = {n.removeprefix(start): size for n, size in below.items() if n.startswith(start)}
        return {"": below[name]} if name in below else sizes

    def read(self, name: str) -> bytes | None:
        answer = self._objects.read(name)
        return None if answer is None else answer[0]


def _state(
    tree: _Tree, path: str, name: str, sizes: Mapping[str, int], beside: Mapping[str, int]
) -> State:
    """Returns the state of what has this name in a tree.

    Args:
        tree: of the folder in which it lies.
        path: as the user names it.
        name: of the output.
        sizes: of its files.
        beside: those of the folder that describes a file.
    """
    folder = f"{name}{_BESIDE}" if beside else name
    files = [size for inner, size in sizes.items() if inner != "."]
    described = partial(State, path, bytes=sum(files), files=len(files), writer=_writer(tree, name))
    have = beside or sizes
    if MANIFEST not in have and UNFINISHED not in have:
        kind = "file" if "" in sizes else "folder"
        return described(kind=kind, state="other")
    finished = MANIFEST in have and bool(sizes)
    record = _json(tree.read(f"{folder}/{MANIFEST if MANIFEST in have else UNFINISHED}"))
    if record is None or "kind" not in record:
        return described(kind="unknown", state="damaged", error=f"{MANIFEST} cannot be read")
    error = record.get("failed") or record.get("error")
    if not sizes and MANIFEST in have:
        error = error or "the file itself is missing"
    return described(
        kind=str(record["kind"]),
        state="complete" if finished else "unfinished",
        created=record.get("created"),
        version=record.get("versions", {}).get("raydist"),
        inputs=record.get("inputs", {}),
        config=record.get("config", {}),
        facts={key: value for key, value in record.items() if key not in _RECORD},
        error=error,
    )


def _writer(tree: _Tree, name: str) -> str | None:
    """Returns who writes an output now, as far as its lock or lease says."""
    for record in (f".{name}.lock.json", f"{name}/{OWN_FILES[1]}", f".{name}.lease.json"):
        holder = Holder.read(_json(tree.read(record)))
        if holder is not None and not holder.is_dead:
            return str(holder)
    return None


def _json(data: bytes | None) -> dict[str, Any] | None:
    try:
        parsed = json.loads(data or b"")
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _place(config: Any, name: str) -> str | None:
    """Returns where an input lies by a configuration."""
    for part in name.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    if isinstance(config, Mapping):
        config = config.get("path")
    if isinstance(config, list):
        config = ", ".join(map(str, config))
    return config if isinstance(config, str) else None


def configuration_of(path: str) -> dict[str, Any]:
    """Returns what decided an output: kind, configuration and the fingerprints of its inputs.

    Raises:
        DataError: there is nothing at the path.
        ArtifactError: no verb wrote it.
    """
    state = state_of(path)
    if state.state in ("other", "damaged"):
        raise ArtifactError(f"{path}: a {state.kind} without a manifest.json that says what it is")
    inputs = {f"content of {name}": value for name, value in state.inputs.items()}
    return {"kind": state.kind, **state.config, **inputs}
