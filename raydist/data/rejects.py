"""Bad lines that are skipped: counted, and written to a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from raydist import log
from raydist.data.files import PathLike


class Rejects:
    """Counts bad lines that were skipped and writes them to a jsonl file.

    Each line of the file is `{"file", "line", "excerpt", "reason"}`.

    Attributes:
        path: the file, None to count only.
        count: how many lines were rejected.
        first: the first of them as a sentence, empty if there is none.
    """

    def __init__(self, path: PathLike | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.count = 0
        self.first = ""

    @classmethod
    def of(cls, rejects: Rejects | PathLike | None) -> Rejects:
        """Returns the rejects themselves, or those that go to a file or nowhere."""
        return rejects if isinstance(rejects, Rejects) else cls(rejects)

    def add(self, file: str, line: int, excerpt: str, reason: str) -> None:
        """Records one bad line."""
        self.count += 1
        self.first = self.first or f"{file}, line {line}: {reason}"
        if self.path is not None:
            mode = "a" if self.count > 1 else "w"  # an earlier command's rejects go
            row = {"file": file, "line": line, "excerpt": excerpt[:200], "reason": reason}
            with open(self.path, mode, encoding="utf-8") as out:
                out.write(json.dumps(row, ensure_ascii=True) + "\n")

    def warn(self, name: str) -> None:
        """Warns of the skipped lines of an input, if there are any."""
        if self.count:
            log.warn(f"{name}: {skipped(self.count, self.first, self.path)}")


def skipped(count: int, first: str, file: object) -> str:
    """Returns a sentence on skipped lines: their number, the first one, and where all are."""
    where = f"; see {file}" if file else ""
    return f"{log.count(count, 'bad line')} skipped, the first: {first}{where}"


def collect_rejects(files: Iterable[Path], target: str | None) -> int:
    """Warns of the lines that splits skipped, gathers them in one file, and returns their number.

    Args:
        files: the splits' rejects in the order of the corpus; a split without any has no file.
        target: the file to gather them in; None leaves them where they are.
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
    sentence = f"{first['file']}, line {first['line']}: {first['reason']}"
    log.warn(skipped(count, sentence, target))
    if target is not None:
        with open(target, "wb") as out:
            for file in present:
                with open(file, "rb") as lines:
                    shutil.copyfileobj(lines, out)
    return count
