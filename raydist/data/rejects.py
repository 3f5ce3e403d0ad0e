"""What happens to a bad line: an error that names it, or a line in the rejects file."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from raydist import log
from raydist.data.files import PathLike, read_blocks
from raydist.errors import DataError


class Rejects:
    """Counts bad lines that were skipped and writes them to a jsonl file.

    Each line of the file is `{"file", "line", "excerpt", "reason"}`.

    Attributes:
        count: how many lines were rejected.
        reasons: how often each reason occurred (the first words of it).
        first: the first rejected line as a sentence, empty if there is none.
    """

    def __init__(self, path: PathLike | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.count = 0
        self.first = ""
        self.reasons: Counter[str] = Counter()

    def add(self, file: str, line: int, excerpt: str, reason: str) -> None:
        """Records one bad line."""
        self.count += 1
        self.reasons[reason.split(";")[0].split(":")[0]] += 1
        self.first = self.first or f"{file}, line {line}: {reason}"
        if self.path is not None:
            mode = "a" if self.count > 1 else "w"  # not behind what an earlier command left
            row = {"file": file, "line": line, "excerpt": excerpt[:200], "reason": reason}
            with open(self.path, mode, encoding="utf-8") as out:
                out.write(json.dumps(row, ensure_ascii=True) + "\n")

    def warn(self, name: str) -> None:
        """Tells the user how many lines of `name` were skipped, if any were."""
        if self.count:
            where = f"; all are in {self.path}" if self.path else ""
            log.warn(f"{name}: {self.count:,} bad lines skipped, the first: {self.first}{where}")


def collect_rejects(files: Iterable[Path], target: str | None) -> int:
    """Says how many lines the splits skipped, puts them into one file, and returns their number.

    Args:
        files: the splits' rejects, in the order of the corpus; those that are absent count nothing.
        target: the file that has them all in the end; None leaves them where they are.
    """
    present = [file for file in files if file.is_file() and file.stat().st_size]
    count = 0
    for file in present:
        with open(file, "rb") as lines:
            count += sum(1 for _ in lines)
    if not count:
        return 0
    with open(present[0], encoding="utf-8") as source:
        first = json.loads(source.readline())
    where = f"; all are in {target}" if target else ""
    log.warn(
        f"{count:,} bad lines skipped, the first: {first['file']}, line {first['line']}: "
        f"{first['reason']}{where}"
    )
    if target is not None:
        with open(target, "wb") as out:
            for file in present:
                with open(file, "rb") as lines:
                    shutil.copyfileobj(lines, out)
    return count


class BadLines:
    """Reports the bad lines of one file with their absolute line numbers.

    A plain file's line ends are counted only when there is something to report, from the last known
    place on; a compressed one is counted block by block as it streams by (`passed`).
    """

    def __init__(
        self, path: str, rejects: Rejects | None, *, compression: str | None = None
    ) -> None:
        self.path = path
        self.rejects = rejects
        self._compression = compression
        self._offset, self._line = 0, 1

    def passed(self, data: bytes) -> None:
        """Notes that a block was done with, so that the next one's first line is known."""
        if self._compression:
            self._offset += len(data)
            self._line += data.count(b"\n")

    def report(self, offset: int, row: int, line: bytes, expected: str) -> None:
        """Raises the error for a line of a block, or records it when bad lines are skipped.

        Args:
            offset: byte offset of the block in the (decompressed) file.
            row: the line's 0-based number within the block.
            line: the line itself, for the excerpt.
            expected: what was expected, for people.

        Raises:
            DataError: bad lines are not to be skipped.
        """
        if offset != self._offset:
            for _, data in read_blocks(self.path, self._offset, offset):
                self._line += data.count(b"\n")
            self._offset = offset
        excerpt = line[:200].decode("utf-8", "backslashreplace").strip()
        self.report_number(self._line + row, excerpt, expected)

    def report_number(self, number: int, excerpt: str, expected: str) -> None:
        """Does the same for a line, or a row of a table, whose 1-based number is known."""
        if self.rejects is None:
            raise DataError.at(self.path, number, excerpt, f"{expected} (on_bad=skip goes on)")
        self.rejects.add(self.path, number, excerpt, f"expected {expected}")


def utf8_problem(line: bytes, offset: int) -> str | None:
    """Returns what is wrong with a line's encoding, None if it is UTF-8.

    Args:
        line: bytes of the line.
        offset: byte offset of the line in the (decompressed) file.
    """
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return (
            f"UTF-8; byte offset {offset + error.start} (0x{line[error.start]:02x}) is not; "
            "encoding_errors=replace reads it with replacement characters"
        )
    return None
