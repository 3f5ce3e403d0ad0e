"""Documents that share an id: one of them is live, so that every output can be searched.

    error   the build, or the append, ends
    first   the earliest stays; `warn` does the same and says so
    last    the latest stays: what is appended takes the place of what was there

All are written; those that do not stay are deleted in the same generation.

Legend: D documents that repeat an earlier one's id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist import log
from raydist.data.store.idhash import repeated_rows, slices_of
from raydist.errors import DataError

Array = npt.NDArray[np.int64]


class Rows(Protocol):
    """Documents in rows, of which some are deleted: an index, or vectors.

    A position counts all rows, a number the live ones alone.
    """

    @property
    def end(self) -> int:
        """The position behind the last row."""

    def __len__(self) -> int:
        """The number of live rows."""

    def id_parts(self) -> Iterator[pa.Array]:
        """Yields the ids of the live rows in order, in parts."""

    def numbers(self, positions: Array) -> Array:
        """Returns the numbers of live rows by their positions."""

    def at_numbers(self, numbers: Array) -> Array:
        """Returns the positions of live rows by their numbers."""

    def find(self, doc_ids: pa.Array) -> Array:
        """Returns the position of the live row with each id; -1 where there is none."""

    def pick_ids(self, positions: Array) -> pa.Array:
        """Returns the ids at positions."""


REMEDY = "duplicates=first or duplicates=last keeps one of them"


def description(count: int, doc_id: str, first: int, again: int) -> str:
    """Returns a sentence on repeated ids, with the first that is repeated and where."""
    return (
        f"{log.count(count, 'document')} with the id of an earlier one; the first: document "
        f"{again + 1:,} has the id {doc_id!r} of document {first + 1:,}"
    )


@dataclass(frozen=True, slots=True)
class Repeats:
    """New documents whose ids occurred before.

    Attributes:
        first_D: the positions of the earliest documents with these ids.
        again_D: the positions of the documents that repeat them.
        example: an id that occurs twice, empty if there is none.
    """

    first_D: Array
    again_D: Array
    example: str = ""

    def superfluous(self, duplicates: str) -> Array:
        """Returns the positions of the documents that do not stay.

        Raises:
            DataError: there are any, and `duplicates` is `error`.
        """
        if not len(self.again_D):
            return self.again_D
        at = int(np.argmin(self.again_D))
        first, again = int(self.first_D[at]), int(self.again_D[at])
        message = description(len(self.again_D), self.example, first, again)
        if duplicates == "error":
            raise DataError(f"{message} ({REMEDY})")
        if duplicates != "last":
            report = log.warn if duplicates == "warn" else log.say
            report(f"{message}; the earlier ones stay")
            return self.again_D
        log.say(f"{message}; the later ones stay")
        order = np.lexsort((self.again_D, self.first_D))
        first_D, again_D = self.first_D[order], self.again_D[order]
        latest = np.append(first_D[1:] != first_D[:-1], True)
        return np.concatenate([first_D[latest], again_D[~latest]])


def repeats_within(index: Rows) -> Repeats:
    """Returns the documents that repeat the id of another one."""
    first_D, again_D = repeated_rows(index.id_parts)
    return _of(index, index.at_numbers(first_D), index.at_numbers(again_D), 0)


def repeats_of(old: Rows, new: Rows) -> Repeats:
    """Returns the documents that repeat an id if `new` is appended to `old`."""
    earlier = np.concatenate([np.empty(0, np.int64), *_earlier(old, new)])
    again = np.flatnonzero(earlier >= 0)
    within = repeats_within(new)
    alone = earlier[new.numbers(within.again_D)] < 0
    first_D = [earlier[again], within.first_D[alone] + old.end]
    again_D = [new.at_numbers(again) + old.end, within.again_D[alone] + old.end]
    return _of(new, np.concatenate(first_D), np.concatenate(again_D), old.end)


def _earlier(old: Rows, new: Rows) -> Iterator[Array]:
    for part in slices_of(new.id_parts()):
        yield old.find(part)


def _of(index: Rows, first_D: Array, again_D: Array, base: int) -> Repeats:
    if not len(again_D):
        return Repeats(first_D, again_D)
    earliest = again_D[[int(np.argmin(again_D))]] - base
    example: pa.StringArray = index.pick_ids(earliest)
    return Repeats(first_D, again_D, example[0].as_py())
