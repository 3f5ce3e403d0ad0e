"""Opening files wherever they lie, and reading them in blocks of whole records.

A path is local unless it has a scheme; `file://`, `s3://`, `gs://` and the like are opened by
pyarrow, any other scheme (`memory://`, `https://`, ...) by fsspec. Compression is told from a
file's first bytes, never from its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.fs as pafs

from raydist.errors import DataError

PathLike = str | os.PathLike[str]
Paths = PathLike | Sequence[PathLike]

BLOCK_BYTES = 4 << 20
"""Bytes that are read and parsed at a time: larger blocks fall out of the processor's caches."""

_MAX_RECORD_BYTES = 256 << 20
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}


def is_uri(path: PathLike) -> bool:
    """Returns whether a path carries a scheme (`s3://...`)."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", os.fspath(path)) is not None


def filesystem(path: PathLike) -> tuple[pafs.FileSystem, str]:
    """Returns the file system of a path or URI and the path inside it.

    Raises:
        DataError: the scheme is unknown, or the package that serves it is not installed.
    """
    text = os.fspath(path)
    if not is_uri(text):
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text))
    try:
        if text.startswith("file://"):
            # Taken apart by hand: blanks and brackets are legal in names but not in URIs.
            return pafs.LocalFileSystem(), "/" + text.removeprefix("file://").lstrip("/")
        found: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(text)
        return found
    except pa.ArrowInvalid:
        pass
    except OSError as error:
        raise DataError(f"{text}: cannot be opened: {error}") from error
    import fsspec

    try:
        inner, name = fsspec.core.url_to_fs(text)
    except (ImportError, ValueError, OSError) as error:
        raise DataError(f"{text}: no file system for this scheme: {error}") from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(inner)), name


def open_input(path: PathLike, compression: str | None = None) -> pa.NativeFile:
    """Opens a file for reading: seekable if not compressed, else the decompressed stream.

    Raises:
        DataError: the file is missing or may not be read.
    """
    where, name = filesystem(path)
    try:
        raw = where.open_input_file(name)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return pa.CompressedInputStream(raw, compression) if compression else raw


def compression_of(path: PathLike) -> str | None:
    """Returns `gzip`, `zstd`, `bz2` or None by a file's first bytes."""
    with open_input(path) as source:
        start = source.read(4)
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return name
    return None


def head(path: PathLike, size: int = 64 << 10) -> bytes:
    """Returns up to `size` first bytes of a file's decompressed content."""
    compression = compression_of(path)
    with open_input(path, compression) as source:
        try:
            return bytes(source.read(size))
        except OSError as error:
            raise _broken(path, compression, 0, error) from error


def read_blocks(
    path: PathLike,
    start: int = 0,
    stop: int | None = None,
    *,
    compression: str | None = None,
    end: bytes = b"\n",
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[tuple[int, bytes]]:
    """Yields `(offset, bytes)` of consecutive blocks that end after `end` or at the end of data.

    Args:
        path: the file.
        start: first byte, a record's first one; 0 if compressed.
        stop: byte after the last one, a record's end; None reads to the end of the file.
        compression: what `compression_of` says; offsets then count decompressed bytes.
        end: what ends a record.
        block_bytes: size of a block; a longer record makes a longer block.

    Raises:
        DataError: unreadable or truncated file, or a record of more than 256 MiB.
    """
    blocks = (
        _stream_blocks(path, compression, end, block_bytes)
        if compression
        else _file_blocks(path, start, stop, end, block_bytes)
    )
    done = start
    try:
        for offset, data in blocks:
            yield offset, data
            done = offset + len(data)
    except (OSError, pa.ArrowInvalid) as error:
        raise _broken(path, compression, done, error) from error


def _file_blocks(
    path: PathLike, start: int, stop: int | None, end: bytes, block_bytes: int
) -> Iterator[tuple[int, bytes]]:
    offset, size = start, block_bytes
    with open_input(path) as source:
        source.seek(offset)
        while stop is None or offset < stop:
            want = size if stop is None else min(size, stop - offset)
            data = source.read(want)
            if not data:
                return
            final = len(data) < want or offset + len(data) == stop
            cut = len(data) if final else data.rfind(end) + len(end)
            if cut < len(end) and not final:
                _refuse_endless(path, offset, data, end)
                size *= 2
                source.seek(offset)
                continue
            if cut < len(data):
                # Reading the rest again is cheaper than joining it to the next block.
                data = data[:cut]
                source.seek(offset + cut)
            yield offset, data
            offset, size = offset + cut, block_bytes


def _stream_blocks(
    path: PathLike, compression: str, end: bytes, block_bytes: int
) -> Iterator[tuple[int, bytes]]:
    offset, pending = 0, b""
    with open_input(path, compression) as source:
        while data := source.read(block_bytes):
            data = pending + data
            cut = data.rfind(end) + len(end)
            if cut < len(end):
                _refuse_endless(path, offset, data, end)
                pending = data
                continue
            yield offset, data[:cut]
            offset, pending = offset + cut, data[cut:]
    if pending:
        yield offset, pending


def _refuse_endless(path: PathLike, offset: int, data: bytes, end: bytes) -> None:
    if len(data) > _MAX_RECORD_BYTES:
        raise DataError(
            f"{path}: more than {_MAX_RECORD_BYTES >> 20} MiB from byte {offset} on without "
            f"{end!r}: these are not text records"
        )


def read_text(path: PathLike, encoding_errors: str = "strict") -> str:
    """Returns a small file's whole decompressed text, without a byte order mark.

    Raises:
        DataError: missing, truncated, or not UTF-8 (the byte offset is named).
    """
    data = b"".join(block for _, block in read_blocks(path, compression=compression_of(path)))
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", encoding_errors)
    except UnicodeDecodeError as error:
        offset = error.start + 3 * data.startswith(b"\xef\xbb\xbf")
        raise DataError(
            f"{path}: byte offset {offset} (0x{data[offset]:02x}) is not UTF-8; "
            "encoding_errors=replace reads it with replacement characters"
        ) from error


def _broken(path: object, compression: str | None, offset: int, error: Exception) -> DataError:
    what = f"{compression} data damaged or truncated" if compression else "cannot be read"
    return DataError(f"{path}: {what} after byte {offset}: {error}")
