"""One pass over a split: its blocks, and an error or a reject for each bad line."""

from __future__ import annotations

from collections.abc import Iterator

from raydist.data.files import read_blocks
from raydist.data.rejects import Rejects
from raydist.errors import DataError

REPLACE = "encoding_errors=replace reads it with replacement characters"
"""The remedy for broken UTF-8 where a corpus or queries are read."""


class SplitScan:
    """Reads a split block by block and reports its bad lines by their numbers in the file.

    The lines of a plain file are counted only when there is something to report; those of a
    compressed one, which cannot be read again from the middle, as they stream by.

    Attributes:
        path: the file.
        start: byte offset of the split, the first byte of a record.
        stop: byte offset of its end; None is the end of the file.
        compression: as `files.compression_of` says.
        replace: broken UTF-8 and lone surrogates become U+FFFD instead of bad lines.
    """

    def __init__(
        self,
        path: str,
        rejects: Rejects | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        compression: str | None = None,
        replace: bool = False,
    ) -> None:
        """Starts a pass; without `rejects` the first bad line is an error."""
        self.path = path
        self.start = start
        self.stop = stop
        self.compression = compression
        self.replace = replace
        self._rejects = rejects
        self._offset, self._line = 0, 1

    def blocks(self, end: bytes = b"\n") -> Iterator[tuple[int, bytes]]:
        """Yields `(offset, bytes)` of blocks of whole records, each of which ends with `end`."""
        blocks = read_blocks(
            self.path, self.start, self.stop, compression=self.compression, end=end
        )
        for offset, data in blocks:
            yield offset, data
            if self.compression:
                self._offset = offset + len(data)
                self._line += data.count(b"\n")

    def report(self, offset: int, row: int, line: bytes, expected: str) -> None:
        """Raises the error for a line of a block, or records it if bad lines are skipped.

        Args:
            offset: byte offset of the block.
            row: number of the line in the block, from 0.
            line: the line, for the excerpt.
            expected: what was expected, for people.

        Raises:
            DataError: bad lines are not skipped.
        """
        if offset > self._offset and not self.compression:
            for _, data in read_blocks(self.path, self._offset, offset):
                self._line += data.count(b"\n")
            self._offset = offset
        excerpt = line[:200].decode("utf-8", "backslashreplace").strip()
        self.report_number(self._line + row, excerpt, expected)

    def report_number(self, number: int, excerpt: str, expected: str) -> None:
        """Does the same for a line, or a row of a table, whose number from 1 is known."""
        if self._rejects is None:
            raise DataError.at(self.path, number, excerpt, f"{expected} (on_bad=skip skips it)")
        self._rejects.add(self.path, number, excerpt, f"expected {expected}")


def utf8_problem(line: bytes, offset: int, remedy: str = REPLACE) -> str | None:
    """Returns what is wrong with a line's encoding, None if it is UTF-8.

    Args:
        line: the line.
        offset: its byte offset in the decompressed file.
        remedy: what the user can do about it.
    """
    try:
        line.decode()
    except UnicodeDecodeError as error:
        byte = f"byte offset {offset + error.start} (0x{line[error.start]:02x})"
        return f"UTF-8; {byte} is not; {remedy}"
    return None
