"""Opening files wherever they are, and reading them in blocks of whole records.

A path is local unless it has a scheme; `file://`, `s3://`, `gs://` and the like are opened by
pyarrow, any other scheme (`memory://`, `hf://`, ...) by fsspec. `-` is standard input. Compression
and encoding are detected from a file's first bytes, never from its name. A byte order mark is
skipped here and nowhere else; offsets count it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from textwrap import shorten
from typing import NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs

from raydist.data.encodings import DAMAGE, START_BYTES, Decoded, codec_of, unread
from raydist.data.spool import is_spooled, is_stream, spooled
from raydist.errors import DataError
from raydist.stores.credentials import hint

PathLike = str | os.PathLike[str]
Paths = PathLike | Sequence[PathLike]

BLOCK_BYTES = 4 << 20
"""Bytes that are read and parsed at a time: larger blocks fall out of the processor's caches."""

_BOM = b"\xef\xbb\xbf"
_MAX_RECORD_BYTES = 256 << 20
_REASON = 400  # characters of somebody else's error message
_GCS_RETRIES = 10  # seconds; pyarrow's default is 15 minutes


class Line(NamedTuple):
    """A line without its end: its number from 1, its byte offset in the decompressed file."""

    number: int
    offset: int
    data: bytes


def is_uri(path: PathLike) -> bool:
    """Returns whether a path has a scheme (`s3://...`)."""
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
            # Parsed by hand: blanks and brackets are legal in names but not in URIs.
            return pafs.LocalFileSystem(), "/" + text.removeprefix("file://").lstrip("/")
        limited = text.startswith(("gs://", "gcs://")) and "?" not in text
        known: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(
            f"{text}?retry_limit_seconds={_GCS_RETRIES}" if limited else text
        )
        return known
    except pa.ArrowInvalid:
        pass
    except (OSError, pa.ArrowException) as error:
        raise unreachable(text, error) from error
    import fsspec

    try:
        inner, name = fsspec.core.url_to_fs(text)
    except (ImportError, ValueError) as error:
        raise DataError(
            f"{text}: no file system for this scheme: {error}{hint(text, error)}"
        ) from error
    except outages() as error:
        raise unreachable(text, error) from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(inner)), name


def outages() -> tuple[type[Exception], ...]:
    """Returns what file systems raise that cannot be reached; call it in an `except` alone."""
    kinds: tuple[type[Exception], ...] = (OSError, pa.ArrowException)
    if "huggingface_hub" in sys.modules:  # hf:// passes on the errors of its HTTP client
        from huggingface_hub.errors import HfHubHTTPError

        kinds = (*kinds, *HfHubHTTPError.__bases__)
    return kinds


def unreachable(path: PathLike, error: Exception) -> DataError:
    """Returns the error of a path that cannot be reached, with what to do."""
    remedy = hint(os.fspath(path), error)
    return DataError(f"{path}: cannot be reached: {shorten(str(error), _REASON)}{remedy}")


def open_input(path: PathLike) -> pa.NativeFile:
    """Opens a file for reading as it is stored, seekable; a stream's content if it is one.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    text = os.fspath(path)
    where, name = filesystem(spooled(text) if is_stream(text) else text)
    try:
        return where.open_input_file(name)
    except FileNotFoundError as error:
        if is_spooled(name):
            raise DataError(
                f"{path}: what came through standard input or a pipe lies on the machine where "
                "the command started, which this worker does not see; write it to a file that "
                "every node sees"
            ) from error
        raise DataError(f"{path}: no such file") from error
    except outages() as error:
        raise DataError(
            f"{path}: cannot be read: {shorten(str(error), _REASON)}{hint(text, error)}"
        ) from error


def compression_of(path: PathLike) -> str | None:
    """Returns how a file is packed: `gzip`, `zstd`, `bz2`, `xz`, `utf-16` and the like, or None.

    Raises:
        DataError: it is missing, cannot be read, or is packed in a way that raydist cannot undo.
    """
    with open_input(path) as source:
        try:
            start = bytes(source.read(START_BYTES))
        except OSError as error:
            raise _broken(path, None, 0, error) from error
    if (what := unread(start)) is not None:
        raise DataError(
            f"{path}: this is {what}; unpack it, or pack it again as .gz, .zst, .bz2 or .xz"
        )
    return codec_of(start)


def head(path: PathLike, size: int = 64 << 10) -> bytes:
    """Returns up to `size` first bytes of a file's content, unpacked and in UTF-8."""
    compression = compression_of(path)
    with open_input(path) as raw:
        try:
            source = Decoded(raw, compression) if compression else raw
            return bytes(source.read(size + len(_BOM))).removeprefix(_BOM)[:size]
        except DAMAGE as error:
            raise _broken(path, compression, 0, error) from error


def first_line(path: PathLike) -> bytes:
    """Returns the first line that is not blank, without its end; empty if there is none."""
    return head(path).lstrip().split(b"\n", 1)[0].rstrip(b"\r")


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
            done = offset + len(data)
            if offset == 0 and data.startswith(_BOM):
                offset, data = len(_BOM), data[len(_BOM) :]
            if data:
                yield offset, data
    except DAMAGE as error:
        raise _broken(path, compression, done, error) from error


def read_lines(path: PathLike) -> Iterator[Line]:
    """Yields the lines of a file that are not blank, compressed or not.

    Raises:
        DataError: as `read_blocks`.
    """
    number = 1
    for offset, block in read_blocks(path, compression=compression_of(path)):
        for data in block.split(b"\n"):
            if data and not data.isspace():
                yield Line(number, offset, data)
            number += 1
            offset += len(data) + 1
        # A block ends with a line end, after which no line begins.
        number -= block.endswith(b"\n")


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
    with open_input(path) as raw:
        source = Decoded(raw, compression)
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
            f"{path}: no {end!r} in the {_MAX_RECORD_BYTES >> 20} MiB after byte {offset}: "
            "this is not a file of text records"
        )


def read_text(path: PathLike, encoding_errors: str = "strict", remedy: str = "") -> str:
    """Returns a small file's whole decompressed text.

    Args:
        path: the file.
        encoding_errors: `strict`, or `replace` for U+FFFD where the file is not UTF-8.
        remedy: what the user can do about broken UTF-8; converting the file if empty.

    Raises:
        DataError: missing, truncated, or not UTF-8 (the byte offset is named).
    """
    blocks = list(read_blocks(path, compression=compression_of(path)))
    data = b"".join(block for _, block in blocks)
    try:
        return data.decode("utf-8", encoding_errors)
    except UnicodeDecodeError as error:
        offset = blocks[0][0] + error.start
        raise DataError(
            f"{path}: byte offset {offset} (0x{data[error.start]:02x}) is not UTF-8; "
            f"{remedy or 'convert the file to UTF-8'}"
        ) from error


def _broken(path: object, compression: str | None, offset: int, error: Exception) -> DataError:
    what = f"{compression} data damaged or truncated" if compression else "cannot be read"
    return DataError(f"{path}: {what} after byte {offset}: {error}")
