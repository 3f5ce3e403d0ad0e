"""Where input comes from: paths, globs, directories and URIs, plain or compressed.

A path is local unless it has a scheme; `file://`, `s3://`, `gs://` and the like are opened by
pyarrow, any other scheme (`memory://`, `https://`, ...) by fsspec. Compression is told from a
file's first bytes, never from its name alone.
"""

from __future__ import annotations

import glob
import hashlib
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from raydist.errors import DataError

__all__ = [
    "BLOCK_BYTES",
    "InputFile",
    "PathLike",
    "Paths",
    "compression_of",
    "expand",
    "filesystem",
    "fingerprint",
    "head",
    "is_uri",
    "open_input",
    "read_blocks",
    "read_text",
]

PathLike = str | os.PathLike[str]
Paths = PathLike | Sequence[PathLike]

BLOCK_BYTES = 4 << 20
"""Bytes that are read and parsed at a time: larger blocks fall out of the processor's caches."""

_MAX_RECORD_BYTES = 256 << 20
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_SAMPLE_BYTES = 64 << 10
_SAMPLES = 64
_WHOLE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of an input: an absolute path or a URI, and its size in bytes on disk."""

    path: str
    size: int


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


def head(path: PathLike, size: int = _SAMPLE_BYTES) -> bytes:
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


def expand(
    paths: Paths, accept: Iterable[str] = (), well_known: Sequence[str] = ()
) -> list[InputFile]:
    """Returns the files behind paths, globs, directories and URIs, in a fixed order.

    A directory stands for its well-known file if it has one (`corpus.jsonl`), else for all files
    below it with an accepted suffix, sorted by path; names that begin with `.` or `_` are left out.

    Args:
        paths: one path or several; several keep their order.
        accept: suffixes (`.jsonl`) taken from a directory, compressed or not; empty takes all.
        well_known: names, best first, of which the first one found represents a directory.

    Raises:
        DataError: nothing is there, or a directory holds no file with an accepted suffix.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise DataError("no input path was given")
    return [
        file
        for path in several
        for file in _expand(os.fspath(path), tuple(accept), tuple(well_known))
    ]


def _expand(path: str, accept: tuple[str, ...], well_known: tuple[str, ...]) -> list[InputFile]:
    where, name = filesystem(path)
    if isinstance(where, pafs.LocalFileSystem):
        before, after = "", ""
    else:
        # What surrounds the inner name in the URI: its scheme, and options after a question mark.
        query = re.search(r"\?[^/?]+=[^/]*$", path)
        after = query.group() if query else ""
        bare = path.removesuffix(after).rstrip("/")
        before = bare.removesuffix(name) if bare.endswith(name) else path.split("//")[0] + "//"
    info = where.get_file_info(name)
    if info.type == pafs.FileType.File:
        found = [info]
    elif info.type == pafs.FileType.Directory:
        known = where.get_file_info([posixpath.join(name, each) for each in well_known])
        found = [each for each in known if each.type == pafs.FileType.File][:1]
        found = found or [each for each in _walk(where, name) if _accepted(each.path, accept)]
        if not found:
            wanted = f" that ends in {', '.join(accept)}" if accept else ""
            raise DataError(f"{path}: this directory holds no file{wanted}")
    elif re.search(r"[*?\[]", name):
        found = _matching(where, name)
        if not found:
            raise DataError(f"{path}: no file matches this pattern")
    else:
        raise DataError(f"{path}: no such file or directory")
    return [InputFile(before + each.path + after, each.size) for each in found]


def _accepted(path: str, accept: tuple[str, ...]) -> bool:
    return not accept or re.sub(r"\.(gz|zst|bz2)$", "", path.lower()).endswith(accept)


def _walk(where: pafs.FileSystem, folder: str) -> list[Any]:
    selector = pafs.FileSelector(folder, recursive=True)
    inside = [each for each in where.get_file_info(selector) if each.type == pafs.FileType.File]
    return sorted(
        (e for e in inside if not re.search(r"/[._]", e.path[len(folder.rstrip("/")) :])),
        key=lambda each: each.path,
    )


def _matching(where: pafs.FileSystem, pattern: str) -> list[Any]:
    if isinstance(where, pafs.LocalFileSystem):
        infos = where.get_file_info(sorted(glob.glob(pattern, recursive=True)))
        return [each for each in infos if each.type == pafs.FileType.File]
    base = posixpath.dirname(re.split(r"[*?\[]", pattern, maxsplit=1)[0]) or "/"
    matcher = re.compile(_glob_to_regex(pattern))
    return [each for each in _walk(where, base) if matcher.fullmatch(each.path)]


def _glob_to_regex(pattern: str) -> str:
    """Returns the expression of a glob: `**/` any folders, `*` and `?` within a name, `[ab]`."""
    tokens = re.findall(r"\*\*/|\*|\?|\[[^\]/]+\]|.", pattern, re.DOTALL)
    meaning = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        meaning.get(t) or (t.replace("[!", "[^") if len(t) > 1 else re.escape(t)) for t in tokens
    )


def fingerprint(paths: Paths) -> str:
    """Returns 32 hex digits that tell inputs apart by content: same bytes, same fingerprint.

    Files up to 16 MiB are hashed whole, larger ones by size and 64 evenly spaced samples of 64 KiB,
    so that a terabyte takes milliseconds. Names of files count, folders and times do not.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    digest = hashlib.blake2b(digest_size=16)
    for path in several:
        if os.fspath(path).startswith("irds:"):
            digest.update(os.fspath(path).encode())
            continue
        for file in expand(path):
            digest.update(f"{Path(file.path).name}\0{file.size}\0".encode())
            with open_input(file.path) as source:
                if file.size <= _WHOLE_BYTES:
                    digest.update(source.read())
                    continue
                step = (file.size - _SAMPLE_BYTES) / (_SAMPLES - 1)
                for sample in range(_SAMPLES):
                    source.seek(round(sample * step))
                    digest.update(source.read(_SAMPLE_BYTES))
    return digest.hexdigest()
