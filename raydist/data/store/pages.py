"""A mapped file whose pages are compared with their checksums when they are first used."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

PAGE = 64 << 10
"""Bytes per checksum: a lookup of one id checks four pages, not gigabytes."""


class Pages:
    """The bytes of a file, checked a page at a time.

    Args:
        data: the mapped file.
        sums: CRC-32 of each page.
        page: bytes of a page.
        damaged: what to raise where a page does not match.
    """

    def __init__(
        self, data: pa.Buffer, sums: np.ndarray, page: int, damaged: Callable[[], Exception]
    ) -> None:
        self.data = data
        self._sums = sums
        self._page = page
        self._damaged = damaged
        self._unchecked = np.ones(len(sums), bool)
        self._left = len(sums)

    def check(self, starts: np.ndarray, stops: np.ndarray) -> None:
        """Checks the pages of the bytes `start` to `stop` of each range."""
        if not self._left:
            return
        inside = stops > starts
        first, last = starts[inside] // self._page, (stops[inside] - 1) // self._page
        pages = np.unique(np.concatenate((first, last)))
        for number in np.flatnonzero(last - first > 1).tolist():
            pages = np.union1d(pages, np.arange(first[number], last[number]))
        self._check(pages[self._unchecked[pages]])

    def check_all(self) -> None:
        """Checks every byte."""
        self._check(np.flatnonzero(self._unchecked))

    def _check(self, pages: np.ndarray) -> None:
        for number in pages.tolist():
            start = number * self._page
            part = self.data.slice(start, min(self._page, self.data.size - start))
            if zlib.crc32(part) != self._sums[number]:
                raise self._damaged()
            self._unchecked[number] = False
        if len(pages):
            self._left = int(np.count_nonzero(self._unchecked))


def page_sums(path: Path) -> np.ndarray:
    """Returns the CRC-32 of each page of a file, uint32."""
    sums = []
    with open(path, "rb") as source:
        while page := source.read(PAGE):
            sums.append(zlib.crc32(page))
    return np.array(sums, np.uint32)
