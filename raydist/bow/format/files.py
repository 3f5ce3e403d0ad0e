"""The files of a segment, or of its deletions: each chunk is checked before it is first used.

A header is written last and names every file with its bytes and a CRC-32 per chunk of 1 MiB.
Opening reads little, a term's postings are checked when a query first needs them, and `verify`
checks everything.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from raydist import on_demand
from raydist.bow.format.order import ORDER
from raydist.disk import atomic
from raydist.errors import ArtifactError
from raydist.kernels.arrays import readonly

Array = npt.NDArray[Any]

CHUNK = 1 << 20
"""Bytes per checksum."""

VERSION = 3
"""The newest version of the formats that can be read.

2 has reordered segments, 3 the second layout of postings and lengths.
"""

Kind = Literal["segment", "deletions"]
"""What a folder holds; its header is `KIND.json`."""

_NAMES: dict[Kind, str] = {"segment": "index segment", "deletions": "folder of deletions"}


def seal(
    folder: Path, names: Sequence[str], about: dict[str, Any], kind: Kind = "segment"
) -> dict[str, Any]:
    """Completes a folder: checksums of the named files, then its header, atomically."""
    files = {name: _entry(folder / name) for name in names}
    return _write_header(folder, about, files, kind)


def extend(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Adds files to a complete segment; returns what its header says of its files."""
    about = _read_header(folder / "segment.json", "segment")
    files = {**about.pop("files"), **{name: _entry(folder / name) for name in names}}
    entries: dict[str, Any] = _write_header(folder, about, files, "segment")["files"]
    return entries


def _entry(path: Path) -> dict[str, Any]:
    sums = []
    size = 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            sums.append(zlib.crc32(chunk))
            size += len(chunk)
    return {"bytes": size, "crc32": sums}


def _write_header(
    folder: Path, about: dict[str, Any], files: dict[str, Any], kind: Kind
) -> dict[str, Any]:
    # The first that reads it
    version = 3 if "layout" in about else 2 if ORDER in files else 1
    header = {"format": f"raydist-bow-{kind}", **about, "version": version, "files": files}
    header["crc32"] = _header_sum(header)
    with atomic(folder / f"{kind}.json") as partial:
        partial.write_text(json.dumps(header, sort_keys=True), encoding="utf-8")
    return header


def header_of(folder: Path, kind: Kind = "segment") -> dict[str, Any]:
    """Returns the header of a folder, without opening its files.

    Raises ArtifactError where it is missing, damaged or newer.
    """
    return _read_header(folder / f"{kind}.json", kind)


def _header_sum(header: dict[str, Any]) -> int:
    body = {key: value for key, value in header.items() if key != "crc32"}
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def _read_header(path: Path, kind: Kind) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArtifactError(
            f"{path.parent} is not a complete {_NAMES[kind]}: {path.name} is missing; "
            "build it again"
        ) from None
    except (UnicodeDecodeError, NotADirectoryError) as error:
        raise ArtifactError(f"{path} is corrupted: {error}") from None
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path} is corrupted: {error}") from None
    if not isinstance(header, dict) or header.get("format") != f"raydist-bow-{kind}":
        raise ArtifactError(f"{path} does not describe a {_NAMES[kind]}")
    if not isinstance(header.get("version"), int):
        raise ArtifactError(f"{path} is corrupted: it has no version; build it again")
    if header["version"] > VERSION:
        raise ArtifactError(
            f"{path} has format version {header['version']}, this raydist reads up to {VERSION}: "
            "upgrade raydist or build the index again"
        )
    if text != json.dumps(header, sort_keys=True) or header.get("crc32") != _header_sum(header):
        raise ArtifactError(f"{path} is corrupted: its checksum does not match; build it again")
    return header


def faults_of(folder: Path, kind: Kind = "segment") -> Iterator[str]:
    """Yields what is wrong with each file of a folder: missing, of another size, or damaged."""
    try:
        entries = _read_header(folder / f"{kind}.json", kind)["files"]
    except ArtifactError as error:
        yield str(error)
        return
    for name, entry in entries.items():
        try:
            with open(folder / name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                sums = [zlib.crc32(chunk) for chunk in iter(lambda: file.read(CHUNK), b"")]
        except OSError as error:
            yield f"{folder / name}: {error.strerror}; build the index again"
            continue
        if size != entry["bytes"]:
            yield f"{folder / name}: {size} bytes, expected {entry['bytes']}; build the index again"
        elif sums != entry["crc32"]:
            chunk = next(i for i, each in enumerate(sums) if each != entry["crc32"][i])
            yield (
                f"{folder / name}: the checksum of bytes {chunk * CHUNK} to "
                f"{min((chunk + 1) * CHUNK, size)} does not match; build the index again"
            )


def write(file: BinaryIO, array: Array) -> None:
    """Writes all bytes of an array to an unbuffered file."""
    if not array.size:
        return
    data = np.ascontiguousarray(array).data.cast("B")
    while len(data):
        data = data[file.write(data) :]


class Files:
    """The opened files of one folder.

    Attributes:
        folder: the one that was opened.
        header: what its header says.
    """

    def __init__(self, folder: Path, kind: Kind = "segment", *, in_memory: bool = False) -> None:
        """Opens the files without reading them, or reads and checks all of them if `in_memory`.

        Raises ArtifactError for a file that is missing, of another size, newer or corrupted.
        """
        self.folder = folder
        self.header = _read_header(folder / f"{kind}.json", kind)
        self._bytes = {
            name: self._open(name, in_memory)
            for name in self.header["files"]
            if not on_demand.is_absent(folder / name)
        }
        self._unchecked = {
            name: np.ones(len(entry["crc32"]), np.bool_)
            for name, entry in self.header["files"].items()
        }
        if in_memory:
            self.verify()

    def _open(self, name: str, in_memory: bool) -> Array:
        path = self.folder / name
        size = self.header["files"][name]["bytes"]
        try:
            with open(path, "rb") as file:
                actual = os.fstat(file.fileno()).st_size
                if actual != size:
                    raise ArtifactError(
                        f"{path} is corrupted: {actual} bytes, expected {size}; build it again"
                    )
                if not size:
                    return readonly(np.empty(0, np.uint8))
                if in_memory:
                    return readonly(np.fromfile(file, np.uint8))
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise ArtifactError(f"{path} is missing; build the index again") from None
        return np.frombuffer(mapped, np.uint8)

    def array(self, name: str, dtype: Any = np.uint8) -> Array:
        """Returns a file as a read-only array, unchecked: call `check` for the bytes you use."""
        return self._data(name).view(dtype)

    def _data(self, name: str) -> Array:
        if name not in self._bytes:  # of a remote index: now it is read
            on_demand.fetch(self.folder / name)
            self._bytes[name] = self._open(name, in_memory=False)
        return self._bytes[name]

    def unchecked(self, name: str) -> Array:
        """Returns which chunks of a file were not checked yet (bool, updated by `check`)."""
        return self._unchecked[name]

    def check(self, name: str, start: int = 0, stop: int | None = None) -> None:
        """Checks the bytes `start:stop`, each chunk once.

        Raises ArtifactError, with the file, where a checksum does not match.
        """
        data = self._data(name)
        last = len(data) if stop is None else stop
        chunks = slice(start // CHUNK, -(-last // CHUNK))
        unchecked = self._unchecked[name]
        if not unchecked[chunks].any():
            return
        for chunk in (np.flatnonzero(unchecked[chunks]) + chunks.start).tolist():
            actual = zlib.crc32(data[chunk * CHUNK : (chunk + 1) * CHUNK].data)
            if actual != self.header["files"][name]["crc32"][chunk]:
                raise ArtifactError(
                    f"{self.folder / name} is corrupted: the checksum of bytes {chunk * CHUNK} to "
                    f"{min((chunk + 1) * CHUNK, len(data))} does not match; build the index again"
                )
            unchecked[chunk] = False

    def release(self) -> None:
        """Drops the mapped pages that were read; the next use reads them again."""
        for array in self._bytes.values():
            mapped = getattr(array.base, "obj", None)
            if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def check_each(self, name: str, first_Q: Array, last_Q: Array) -> None:
        """Checks the bytes from each first to each last one, each chunk once."""
        unchecked = self._unchecked[name]
        if not unchecked.any():
            return
        size = len(unchecked)
        last_chunk_Q = np.minimum(last_Q.astype(np.int64) // CHUNK, size - 1)
        begins = np.bincount(first_Q.astype(np.int64) // CHUNK, minlength=size + 1)
        ends = np.bincount(last_chunk_Q + 1, minlength=size + 1)
        used = np.cumsum(begins - ends)[:-1] > 0
        for chunk in np.flatnonzero(used & unchecked).tolist():
            self.check(name, chunk * CHUNK, min((chunk + 1) * CHUNK, len(self._data(name))))

    def verify(self) -> None:
        """Checks every byte of every file."""
        for name in self.header["files"]:
            self.check(name)
