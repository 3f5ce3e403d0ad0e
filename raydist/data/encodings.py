"""Compression and encoding of a file, detected from its first bytes, and undone as it is read."""

from __future__ import annotations

import codecs
import gzip
import lzma
import re
import zlib
from typing import Any, Protocol

import pyarrow as pa

_MAGIC = (
    (rb"\x1f\x8b", "gzip"),
    (rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", "zstd"),  # pzstd begins with a skippable frame
    (rb"BZh[1-9](?:1AY&SY|\x17rE8P)", "bz2"),
    (rb"\xfd7zXZ\0", "xz"),
    (rb"\xff\xfe\0\0|\0\0\xfe\xff", "utf-32"),
    (rb"\xff\xfe|\xfe\xff", "utf-16"),
    (rb"(?:[\t\r\n -~]\0){2}", "utf-16-le"),  # no mark: two ASCII characters show it
    (rb"(?:\0[\t\r\n -~]){2}", "utf-16-be"),
)
_UNREAD = (
    (rb"PK\x03\x04", "a zip archive"),
    (rb"\x1f[\x9d\xa0]", "packed by compress (.Z)"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (rb"\x04\x22\x4d\x18", "packed by lz4"),
    (rb"(?s).{257}ustar", "a tar archive"),
)
START_BYTES = 512
"""How many first bytes are enough to tell."""

DAMAGE = (OSError, EOFError, pa.ArrowInvalid, lzma.LZMAError, zlib.error, UnicodeDecodeError)
"""What reading a damaged file raises."""


class Readable(Protocol):
    """What is read from the front."""

    def read(self, size: int = -1, /) -> bytes:
        """Returns up to so many bytes, none at the end."""
        ...


def codec_of(start: bytes) -> str | None:
    """Returns `gzip`, `zstd`, `bz2`, `xz`, `utf-16` and the like, None for what is read as is."""
    return next((name for magic, name in _MAGIC if re.match(magic, start)), None)


def unread(start: bytes) -> str | None:
    """Returns what a file is if raydist cannot unpack it."""
    return next((name for magic, name in _UNREAD if re.match(magic, start)), None)


class Decoded:
    """A file's content: decompressed, and in UTF-8 if it is UTF-16 or UTF-32.

    Members that follow each other are one content; zeros after those of gzip are padding.
    """

    def __init__(self, raw: Any, codec: str) -> None:
        packed = not codec.startswith("utf")
        self._source: Readable = _decompressed(raw, codec) if packed else raw
        self._start = b""
        if packed:
            self._start = self._read(4)
            codec = codec_of(self._start) or ""
        self._decoder = codecs.getincrementaldecoder(codec)() if codec.startswith("utf") else None

    def read(self, size: int) -> bytes:
        """Returns `size` bytes or a few more, fewer at the end only."""
        parts: list[bytes] = []
        while size > 0:
            data, self._start = self._start or self._read(size), b""
            ended = not data
            if self._decoder is not None:
                data = self._decoder.decode(data, final=ended).encode()
            parts.append(data)
            size -= len(data)
            if ended:
                break
        return b"".join(parts)

    def _read(self, size: int) -> bytes:
        return bytes(self._source.read(size))


def _decompressed(raw: Any, codec: str) -> Readable:
    if codec == "gzip":
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if codec == "xz":
        return lzma.LZMAFile(raw)
    stream: Readable = pa.CompressedInputStream(raw, codec)
    return stream
