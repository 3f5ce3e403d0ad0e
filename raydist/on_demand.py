"""Files of a remote output that are fetched only when they are read.

Who changes little of a large output on an object store, such as one document of an index, reads
little of it. The files that a command names (`ON_DEMAND` of its module) are then not copied to its
disk at first; what opens them asks here. Nothing but these functions sees them: a file that has not
been fetched does not exist, so it is never taken for an empty one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Span = tuple[int, int]
"""The first byte of a part of a file, and the one behind it."""


class Source(Protocol):
    """Where the files are."""

    def fetch(self, names: Sequence[str]) -> None:
        """Puts whole files into the folder."""

    def read(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """Returns parts of a file."""


@dataclass
class _Folder:
    """A folder some of whose files are elsewhere.

    Attributes:
        source: where they are.
        names: of the files that were not fetched yet.
    """

    source: Source
    names: set[str] = field(default_factory=set)


_folders: dict[str, _Folder] = {}


@contextlib.contextmanager
def serving(folder: Path, names: set[str], source: Source) -> Iterator[None]:
    """Fetches files of a folder when they are asked for, while the block runs.

    Args:
        folder: on this disk.
        names: of the files that are not there, relative to it; fetched ones are taken out.
        source: where they are.
    """
    key = os.path.abspath(folder)
    _folders[key] = _Folder(source, names)
    try:
        yield
    finally:
        del _folders[key]


def is_absent(path: Path) -> bool:
    """Returns whether a file was not fetched yet."""
    return _find(path) is not None


def read(path: Path, spans: Sequence[Span]) -> list[bytes]:
    """Returns parts of a file that was not fetched, and leaves it so."""
    place = _find(path)
    assert place is not None, f"{path} is on the disk"
    folder, name = place
    return folder.source.read(name, spans)


def fetch(*paths: Path) -> None:
    """Fetches what is missing of files and folders; does nothing for all others."""
    for key, folder in list(_folders.items()):
        wanted = []
        for path in paths:
            below = os.path.relpath(os.path.abspath(path), key)
            wanted += [n for n in folder.names if n == below or n.startswith(f"{below}/")]
        if wanted:
            folder.source.fetch(sorted(wanted))
            folder.names.difference_update(wanted)


def _find(path: Path) -> tuple[_Folder, str] | None:
    if not _folders:
        return None
    text = os.path.abspath(path)
    for key, folder in _folders.items():
        if text.startswith(f"{key}/") and (name := text[len(key) + 1 :]) in folder.names:
            return folder, name
    return None
