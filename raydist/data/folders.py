"""The files below a folder of inputs, without what raydist itself wrote there."""

from __future__ import annotations

import functools
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.fs as pafs

from raydist import log
from raydist.manifest import MANIFEST, UNFINISHED, is_manifest

_LARGEST = 64 << 20  # bytes of a manifest


def files_below(where: pafs.FileSystem, folder: str) -> list[Any]:
    """Returns the files below a folder by path, without names that begin with `.` or `_`."""
    return _visible(_all(where, folder), folder)


def inputs_below(where: pafs.FileSystem, folder: str) -> list[Any]:
    """Returns the files below a folder but those of outputs, which a message names."""
    everything, root = _all(where, folder), folder.rstrip("/")
    outputs = {posixpath.dirname(e.path) for e in everything if _is_mark(where, e.path)} - {root}
    # The folder `FILE.raydist` says that a command wrote the file beside it.
    outputs |= {each.removesuffix(".raydist") for each in outputs}
    visible = _visible(everything, folder)
    rest = [e for e in visible if outputs.isdisjoint([e.path, *_parents(e.path, root)])]
    if len(rest) < len(visible):
        _say_skipped(root, tuple(sorted(posixpath.relpath(each, root) for each in outputs)))
    return rest


def _all(where: pafs.FileSystem, folder: str) -> list[Any]:
    infos = where.get_file_info(pafs.FileSelector(folder, recursive=True))
    return [each for each in infos if each.type == pafs.FileType.File]


def _visible(infos: Sequence[Any], folder: str) -> list[Any]:
    start = len(folder.rstrip("/"))
    visible = [each for each in infos if not re.search(r"/[._]", each.path[start:])]
    return sorted(visible, key=lambda each: each.path)


def _parents(path: str, root: str) -> Iterator[str]:
    """Yields the folders between a path and a folder above it."""
    while len(path := posixpath.dirname(path)) > len(root):
        yield path


def _is_mark(where: pafs.FileSystem, path: str) -> bool:
    """Returns whether a file says that its folder is an output."""
    name = posixpath.basename(path)
    if name != MANIFEST:
        return name == UNFINISHED
    try:
        with where.open_input_file(path) as source:
            return is_manifest(json.loads(source.read(_LARGEST)))
    except (OSError, ValueError, RecursionError):
        return False


@functools.cache  # a command lists its inputs several times
def _say_skipped(folder: str, outputs: tuple[str, ...]) -> None:
    log.say(f"{folder}: {', '.join(outputs)}: not read, because raydist wrote it")
