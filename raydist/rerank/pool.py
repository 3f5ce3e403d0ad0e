"""The rows that wait for a micro-batch: sorted by length, taken fairly by request."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from raydist.rerank.rows import Row

__all__ = ["Pool", "Unit"]

Owner = TypeVar("Owner", bound=Hashable)
_serial = count()


@dataclass(eq=False, slots=True)
class Unit(Generic[Owner]):
    """One row of one owner (a request); `number` is the row's position within its owner."""

    length: int
    row: Row
    owner: Owner
    number: int
    serial: int = field(default_factory=lambda: next(_serial))
    taken: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """What units are sorted by."""
        return self.length, self.serial


def _key(unit: Unit[Owner]) -> tuple[int, int]:
    return unit.key


class Pool(Generic[Owner]):
    """Waiting units. Not thread-safe: the engine holds its lock around every call."""

    def __init__(self) -> None:
        self.tokens = 0
        self._groups: dict[Hashable, list[Unit[Owner]]] = {}
        self._own: dict[Owner, list[Unit[Owner]]] = {}
        self._served: dict[Owner, int] = {}

    def __bool__(self) -> bool:
        return bool(self._own)

    def owners(self) -> list[Owner]:
        """Returns who has units waiting, oldest first."""
        return list(self._own)

    def add(self, owner: Owner, units: Sequence[Unit[Owner]]) -> None:
        """Adds an owner's units; it starts level with the least served owner of those waiting."""
        assert owner not in self._own and units
        self._served[owner] = min(self._served.values(), default=0)
        self._own[owner] = sorted(units, key=_key)
        self.tokens += sum(unit.length for unit in units)
        touched = set()
        for unit in units:
            group = self._groups.setdefault(unit.row.prefix, [])
            if len(units) > 8:
                group.append(unit)
                touched.add(unit.row.prefix)
            else:
                insort(group, unit, key=_key)
        for prefix in touched:
            self._groups[prefix].sort(key=_key)

    def drop(self, owner: Owner) -> None:
        """Removes all units of `owner` that were not taken."""
        for unit in self._own.pop(owner):
            if not unit.taken:
                unit.taken = True
                self.tokens -= unit.length
        del self._served[owner]
        for prefix in list(self._groups):
            self._groups[prefix] = [unit for unit in self._groups[prefix] if not unit.taken]
            if not self._groups[prefix]:
                del self._groups[prefix]

    def take(self, budget: int, *, packed: bool) -> list[Unit[Owner]]:
        """Removes and returns the next micro-batch, longest row first; empty if nothing waits.

        Args:
            budget: the most tokens of the batch. A longer single row is returned alone.
            packed: whether a row costs its own tokens (True) or the longest row's (False).
        """
        if not self._own:
            return []
        owner = min(self._own, key=self._served.__getitem__)
        mine = self._own[owner]
        while mine[-1].taken:
            mine.pop()
        seed = mine[-1]
        batch: list[Unit[Owner]] = []
        left = budget
        for prefix in [seed.row.prefix, *(p for p in self._groups if p != seed.row.prefix)]:
            group = self._groups[prefix]
            # Rows as long as the seed cost what it costs; then ever shorter ones.
            equal = bisect_left(group, (seed.length + 1, 0), key=_key)
            begin = end = bisect_left(group, seed.key, key=_key)
            while end < equal and (seed.length <= left or not (batch or begin < end)):
                left -= seed.length
                end += 1
            while begin:
                cost = group[begin - 1].length if packed else seed.length
                if cost > left:
                    break
                left -= cost
                begin -= 1
            batch.extend(reversed(group[begin:end]))
            del group[begin:end]
            if left < (1 if packed else seed.length):
                break
        self._remove(batch)
        return batch

    def _remove(self, batch: Sequence[Unit[Owner]]) -> None:
        for unit in batch:
            unit.taken = True
            self.tokens -= unit.length
            self._served[unit.owner] += unit.length
            if not self._groups.get(unit.row.prefix, True):
                del self._groups[unit.row.prefix]
        for owner in dict.fromkeys(unit.owner for unit in batch):
            mine = self._own[owner]
            while mine and mine[-1].taken:
                mine.pop()
            if not mine or all(unit.taken for unit in mine):
                del self._own[owner], self._served[owner]
