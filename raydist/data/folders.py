"""The files below a folder of inputs, without what raydist itself wrote there."""

from __future__ import annotations

import functools
import json
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raydist import log
from raydist.errors import DataError
from raydist.manifest import MANIFEST, UNFINISHED, is_manifest
from raydist.records import RUN

_LARGEST = 64 << 20  # bytes of a manifest
_RUN_LINE = re.compile(
    rb"[^\s]+[ \t]Q0[ \t][^\s]+[ \t]\d+[ \t][^\s]+[ \t][^\r\n]+\r?(\n|\Z)"
    rb"|query_id([,\t])doc_id\2rank\2score\r?\n"
    rb'|\{"query_id": "[^\n]*", "doc_id": "[^\n]*", "rank": \d+, "score": '
)


def files_below(where: pafs.FileSystem, folder: str) -> list[Any]:
    """Returns the files below a folder by path, without names that begin with `.` or `_`."""
    return _visible(_all(where, folder), folder)


def inputs_below(where: pafs.FileSystem, folder: str) -> list[Any]:
    """Returns the files below a folder but those of outputs, which a message names.

    Raises:
        DataError: the folder itself is an index or vectors.
    """
    everything, root = _all(where, folder), folder.rstrip("/")
    outputs = {posixpath.dirname(e.path) for e in everything if _is_mark(where, e.path)}
    if root in outputs:
        _refuse_index(where, root)
    outputs.discard(root)
    # The folder `FILE.raydist` says that a command wrote the file beside it.
    outputs |= {each.removesuffix(".raydist") for each in outputs}
    visible = _visible(everything, folder)
    rest = [e for e in visible if outputs.isdisjoint([e.path, *_parents(e.path, root)])]
    if len(rest) < len(visible):
        _say_skipped(root, tuple(sorted(posixpath.relpath(each, root) for each in outputs)))
    return rest


def _refuse_index(where: pafs.FileSystem, folder: str) -> None:
    try:
        with where.open_input_file(f"{folder}/{MANIFEST}") as source:
            manifest = json.loads(source.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return
    if manifest.get("kind") in ("bow-index", "bow-fields", "vectors", "multivector-index"):
        raise DataError(
            f"{folder}: is a {manifest['kind']} that raydist wrote, no documents; name the files "
            "that it was made from (raydist status shows them)"
        )


def _all(where: pafs.FileSystem, folder: str) -> list[Any]:
    local = isinstance(where, pafs.LocalFileSystem)
    infos = where.get_file_info(
        list(_local_files(folder)) if local else pafs.FileSelector(folder, recursive=True)
    )
    return [each for each in infos if each.type == pafs.FileType.File]


def _local_files(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields the files below a folder: no link is followed to a folder that it lies in.

    Raises:
        DataError: a folder cannot be listed, or a name is not UTF-8.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        entries = list(os.scandir(folder))
    except PermissionError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    for entry in entries:
        try:
            entry.name.encode()
        except UnicodeEncodeError as error:  # Python keeps other bytes as half surrogates
            raise DataError(f"{folder}: the name {entry.name!a} is not UTF-8; rename it") from error
        if entry.is_dir():
            yield from _local_files(entry.path, (*above, real))
        elif entry.is_file():
            yield entry.path


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


def is_run(path: str) -> bool:
    """Returns whether a local file is a run as `search` writes them, in any of their forms."""
    try:
        with open(path, "rb") as file:
            start = file.read(1 << 12)
        if not start.startswith(b"PAR1"):
            return _RUN_LINE.match(start) is not None
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):  # its reader will say so
        return False
    return schema.names == RUN.names and b"tag" in (schema.metadata or {})


def say_runs(folder: str, runs: Sequence[str]) -> None:
    """Says which files below a folder are runs, and so no documents."""
    _say_skipped(folder, tuple(posixpath.relpath(each, folder) for each in runs), "it is a run")


@functools.cache  # a command lists its inputs several times
def _say_skipped(folder: str, names: tuple[str, ...], reason: str = "raydist wrote it") -> None:
    log.say(f"{folder}: {', '.join(names)}: not read, because {reason}")
