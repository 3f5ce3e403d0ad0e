"""Which format a file has: by its suffix, by its first bytes where the suffix does not say."""

from __future__ import annotations

import re

from raydist.data.files import head
from raydist.errors import DataError

FORMATS = ("jsonl", "tsv", "parquet", "trec")

_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".trec": "trec",
    ".trectext": "trec",
    ".sgml": "trec",
    ".sgm": "trec",
}

SUFFIXES = tuple(_BY_SUFFIX)
"""Suffixes that a directory's files are chosen by; `.gz`, `.zst` and `.bz2` may follow."""


def detect(path: str, format: str | None = None) -> str:
    """Returns `jsonl`, `tsv`, `parquet` or `trec`.

    Args:
        path: a file.
        format: the user's word, which wins.

    Raises:
        DataError: the user's word is unknown, or neither suffix nor content say anything.
    """
    if format is not None:
        if format not in FORMATS:
            raise DataError(f"format {format!r}: expected one of {', '.join(FORMATS)}")
        return format
    name = re.sub(r"\.(gz|zst|bz2)$", "", path.lower())
    for suffix, known in _BY_SUFFIX.items():
        if name.endswith(suffix):
            return known
    start = head(path, 4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"PAR1"):
        return "parquet"
    if start[:1] in (b"{", b"["):
        return "jsonl"
    if re.search(rb"(?i)<(doc|top|topic)[>\s]", start):
        return "trec"
    if b"\t" in start.split(b"\n", 1)[0] or not start:
        return "tsv"
    raise DataError(
        f"{path}: neither the name nor the first line tells the format; say format=, one of "
        f"{', '.join(FORMATS)}"
    )
