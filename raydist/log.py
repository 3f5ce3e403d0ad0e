"""What a user sees while raydist works: messages, progress and summary tables, all on stderr.

Results go to stdout or to files, so that a verb can be piped.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_EVERY_S = 10.0  # seconds between progress lines where stderr is not a terminal

_SURE_S, _SURE_SHARE, _LATE_S = 3.0, 0.05, 15.0  # the time left is shown after either

is_program = False  # whether stderr is raydist's: the command line, not a library
_diverted: Path | None = None
_LOGS = 20  # files of what other programs wrote that are kept

_originals: dict[str, str] = {}  # of local copies


def stands_for(copy: str | os.PathLike[str], original: str) -> None:
    """Makes messages speak of a URI or stream instead of its local copy, an unknown path."""
    _originals[os.fspath(copy)] = original


def spoken(message: str) -> str:
    """Returns a message with URIs and streams instead of the paths of their local copies."""
    for copy in sorted(_originals, key=len, reverse=True):  # one may end with another
        message = message.replace(copy, _originals[copy])
    return message


def say(message: str) -> None:
    """Prints a message for the user."""
    print(spoken(message), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Prints a message that the user should notice."""
    say(f"warning: {message}")


def error(message: object) -> None:
    """Prints why a command ends; indented lines belong to the one before."""
    for line in spoken(str(message)).splitlines():
        print(line if line.startswith("  ") else f"error: {line}", file=sys.stderr, flush=True)


def divert(folder: Path) -> None:
    """Sends what other programs write to stderr to a file in `folder` from now on.

    Ray writes from C++ and through handlers of its own, whatever its log level. Messages of Python
    programs go to `sys.stderr`, which stays the user's. Only the first call does something, and
    only where this process is a program of raydist's (`is_program`).
    """
    global _diverted
    stderr = sys.__stderr__
    if not is_program or _diverted is not None or stderr is None or sys.stderr is not stderr:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("ray-*.log"))[:-_LOGS]:
            old.unlink(missing_ok=True)
        _diverted = folder / f"ray-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
        target = os.open(_diverted, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:  # no place for a log: everything stays where it was
        return
    atexit.register(_remove_empty, _diverted)
    stderr.flush()
    own = os.dup(2)
    os.dup2(target, 2)
    os.close(target)
    sys.stderr = os.fdopen(
        own, "w", buffering=1, encoding=stderr.encoding, errors="backslashreplace"
    )


def _remove_empty(file: Path) -> None:
    with contextlib.suppress(OSError):
        if not file.stat().st_size:
            file.unlink()


def diverted() -> Path | None:
    """Returns the file of what other programs wrote, None if they wrote nothing."""
    if _diverted is None or not _diverted.exists() or not _diverted.stat().st_size:
        return None
    return _diverted


def size(nbytes: float) -> str:
    """Returns bytes as text with a decimal unit, e.g. `408 MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(nbytes) < 1000 or unit == "TB":
            return (
                f"{nbytes:.0f} {unit}" if nbytes >= 100 or unit == "B" else f"{nbytes:.1f} {unit}"
            )
        nbytes /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """Returns seconds as text, e.g. `1 h 02 min`, `3 min 05 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plural(noun: str) -> str:
    """Returns the plural of a noun, e.g. `queries`."""
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def count(number: int, noun: str) -> str:
    """Returns a number with its noun, e.g. `1 split` or `1,200 queries`."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table to stderr, its numbers aligned right."""
    from rich.console import Console
    from rich.table import Table

    grid = Table()
    for i, column in enumerate(columns):
        number = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        grid.add_column(column, justify="right" if number else "left")
    for row in rows:
        grid.add_row(*(_cell(value) for value in row))
    width = None if sys.stderr.isatty() else 120
    console = Console(file=sys.stderr, width=width, highlight=False)
    # Not as the table's own title, which wraps at the table's width.
    console.print(spoken(title), style="bold", markup=False, soft_wrap=True)
    console.print(grid)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table as Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(_cell(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return spoken(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _tells(elapsed: float, advanced: float, left: float) -> bool:
    """Returns whether enough was done to tell how long the rest takes."""
    if advanced <= 0 or elapsed < _SURE_S:
        return False
    return elapsed >= _LATE_S or advanced >= _SURE_SHARE * (advanced + left)


class Waiting:
    """What is waited for, and for how long, while nothing can be counted.

    On a terminal a line that moves and is removed at the end, otherwise a line when it begins. Use
    it as a context manager; `say` replaces the words.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Waiting:
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._turn, name="waiting", daemon=True)
            self._thread.start()
        else:
            say(f"{self._what} ...")
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def say(self, what: str) -> None:
        """Replaces the words of the line that moves."""
        self._what = what

    def _turn(self) -> None:
        for sign in itertools.cycle("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"):
            seconds = time.monotonic() - self._started
            print(
                f"\r\x1b[K{sign} {self._what}, {seconds:.0f} s", end="", file=sys.stderr, flush=True
            )
            if self._over.wait(0.1):
                return


class Progress:
    """Progress of one stage: done, rate, time left.

    A live line on a terminal, otherwise a plain line every ten seconds. Use it as a context manager
    and call `advance`.

    Args:
        label: the stage.
        total: number of units, None if it is not known.
        unit: what is counted, in the singular.
        share_total: total of an additive weight such as bytes, for the time left without `total`.
        done: units that are done already; they do not count towards the rate.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        unit: str = "document",
        share_total: float = 0.0,
        done: int = 0,
    ) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = self._before = done
        self.nbytes = 0
        self.note = ""
        self._share_total = share_total
        self._share = 0.0
        self._started = self._printed = time.monotonic()
        self._live = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        if self._live:  # the first unit may take long
            self._print()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._print(last=True)
        elif self._live:
            print(file=sys.stderr)

    def advance(self, n: int = 1, nbytes: int = 0, share: float = 0.0, note: str = "") -> None:
        """Counts `n` more units (and bytes, and share of `share_total`) as done."""
        self.done += n
        self.nbytes += nbytes
        self._share += share
        self.note = note or self.note
        now = time.monotonic()
        if now - self._printed >= (0.2 if self._live else _EVERY_S):
            self._printed = now
            self._print()

    def _print(self, last: bool = False) -> None:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        counted = count(self.done, self.unit)
        if self.total is not None:
            counted = f"{self.done:,} of {count(self.total, self.unit)}"
        parts = [f"{self.label}: {counted}"]
        rate = (self.done - self._before) / elapsed
        parts.append(f"{rate:,.{0 if rate >= 10 else 1}f} {plural(self.unit)}/s")
        if self.nbytes:
            parts.append(f"{self.nbytes / elapsed / 1e6:.1f} MB/s")
        advanced, left = self._share, self._share_total - self._share
        if self.total:
            advanced, left = self.done - self._before, self.total - self.done
        if last:
            parts.append(duration(elapsed))
        elif _tells(elapsed, advanced, left):
            parts.append(f"{duration(max(elapsed * left / advanced, 0.0))} left")
        if self.note:
            parts.append(self.note)
        line = ", ".join(parts)
        if self._live:
            print(f"\r\x1b[K{line}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            say(line)
