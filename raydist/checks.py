"""The report of a thorough check of an output: its parts, what was checked of each, every fault."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from raydist.errors import RaydistError


@dataclass(slots=True)
class PartCheck:
    """The check of a part of an output.

    Attributes:
        name: a file or folder of the output, or what is compared.
        checked: what was checked, with counts.
        faults: how many it has.
        seconds: how long it took.
    """

    name: str
    checked: str = ""
    faults: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Report:
    """The findings of a check.

    Attributes:
        parts: in the order in which they were checked.
        faults: one line each: the file, what is wrong, what to do.
        pending: what remains to be done without being a fault.
    """

    parts: list[PartCheck] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[PartCheck]:
        """Times the check of a part; an error of raydist's that it raises is a fault."""
        part = PartCheck(name)
        self.parts.append(part)
        before, started = len(self.faults), time.monotonic()
        try:
            yield part
        except RaydistError as error:
            self.faults.append(str(error))
        part.faults = len(self.faults) - before
        part.seconds = time.monotonic() - started

    def add(self, faults: Iterable[str]) -> bool:
        """Adds faults; returns whether there were none."""
        before = len(self.faults)
        self.faults += faults
        return len(self.faults) == before
