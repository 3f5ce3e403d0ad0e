"""Checksums of a vector file, section by section, so that damage is found before it does harm.

What Arrow reads when it opens a file (schema, lengths, document ids, footer) is checked at once:
a wrong offset there ends the process, or gives another document's name. The vectors of a record
batch are checked when they are first read, so that opening a large corpus reads little of it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydist.disk import write_json
from raydist.errors import ArtifactError
from raydist.fingerprints import value_fingerprint


class Section:
    """A part of a mapped file, compared with its checksum once."""

    def __init__(self, path: Path, data: memoryview, crc32: int) -> None:
        self._path = path
        self._data: memoryview | None = data
        self._crc32 = crc32

    def check(self) -> None:
        """Raises ArtifactError if the bytes are not those that were written."""
        data = self._data
        if data is not None and zlib.crc32(data) != self._crc32:
            raise _corrupted(self._path, "a checksum does not match")
        self._data = None


def seal(path: Path) -> None:
    """Writes the checksums of a complete Arrow file of vectors beside it."""
    with pa.memory_map(str(path)) as source:
        data = source.read_buffer()
        reader = pa.ipc.open_file(data)
        cuts = [0]
        for i in range(reader.num_record_batches):
            columns: Sequence[Any] = reader.get_batch(i).columns[1:]  # after the ids
            first, last = columns[0].buffers()[-1], columns[-1].buffers()[-1]
            cuts += [first.address - data.address, last.address + last.size - data.address]
        cuts.append(data.size)
        view = memoryview(data)
        sections = [[stop, zlib.crc32(view[start:stop])] for start, stop in pairwise(cuts)]
    write_json(_beside(path), {"sections": sections, "check": value_fingerprint(sections)})


def open_sections(path: Path) -> tuple[pa.Buffer, list[Section]]:
    """Maps a file that `seal` knows; returns it with a section for each record batch's vectors.

    Raises:
        ArtifactError: the file or its checksums are missing or damaged, but for the vectors.
    """
    beside = _beside(path)
    try:
        about = json.loads(beside.read_text(encoding="utf-8"))
        sections, check = about["sections"], about["check"]
    except OSError as error:
        raise _corrupted(beside, error.strerror or str(error)) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _corrupted(beside, str(error)) from None
    if check != value_fingerprint(sections):
        raise _corrupted(beside, "its checksum does not match")
    try:
        size = path.stat().st_size
        if size != sections[-1][0]:
            raise _corrupted(path, f"{size} bytes, expected {sections[-1][0]}")
        data = pa.memory_map(str(path)).read_buffer()
    except OSError as error:
        raise _corrupted(path, error.strerror or str(error)) from None
    view, start, found = memoryview(data), 0, []
    for stop, crc32 in sections:
        found.append(Section(path, view[start:stop], crc32))
        start = stop
    for section in found[::2]:
        section.check()
    return data, found[1::2]


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _corrupted(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{path}: {why}; embed the corpus again")
