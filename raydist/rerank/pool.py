"""The rows that wait for a micro-batch: sorted by length, taken fairly by request."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Generic, TypeVar

from raydist.rerank.rows import Row

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


_AHEAD = 8
"""How many budgets' worth of tokens are looked through for rows of like length."""
_UNLIKE = 1.5
"""How many times as long a prefix may be as another one in the same padded batch."""


class Pool(Generic[Owner]):
    """Waiting units. Not thread-safe: the engine holds its lock around every call.

    Weighted fair queueing (Demers, Keshav & Shenker 1989): owners are served in the order in which
    they would be done if all that wait shared the model equally. So equal requests are served in
    the order of their arrival, and a small one does not wait for a large one.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._clock = 0.0
        self._groups: dict[tuple[int, ...], list[Unit[Owner]]] = {}
        self._own: dict[Owner, list[Unit[Owner]]] = {}
        self._left: dict[Owner, int] = {}
        self._order: list[tuple[float, int, Owner]] = []
        self._place: dict[Owner, tuple[float, int, Owner]] = {}

    def __bool__(self) -> bool:
        return bool(self._own)

    def owners(self) -> list[Owner]:
        """Returns who has units waiting, oldest first."""
        return list(self._own)

    def add(self, owner: Owner, units: Sequence[Unit[Owner]]) -> None:
        """Adds an owner's units."""
        assert owner not in self._own and units
        self._own[owner] = sorted(units, key=_key)
        size = self._left[owner] = sum(unit.length for unit in units)
        self.tokens += size
        self._place[owner] = self._clock + size, next(_serial), owner
        insort(self._order, self._place[owner])
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
        self._remove([unit for unit in self._own[owner] if not unit.taken])

    def take(self, budget: int, *, packed: bool) -> list[Unit[Owner]]:
        """Removes and returns the next micro-batch, the first row the longest; empty if none waits.

        Args:
            budget: the most tokens of the batch. A longer single row is returned alone.
            packed: whether a row costs its own tokens (True), or as many as the longest row and the
                longest prefix have, to which all are padded (False).
        """
        if not self._own:
            return []
        front = self._front(_AHEAD * budget)
        mine = self._own[self._order[0][-1]]
        while mine[-1].taken:
            mine.pop()
        seed = mine[-1]
        batch: list[Unit[Owner]] = []
        tokens, longest = 0, len(seed.row.prefix)

        def cost(length: int, prefix: int) -> int:
            """Returns what the batch costs with one more row."""
            if packed:
                return tokens + length
            return (len(batch) + 1) * (seed.length + max(longest, prefix))

        for prefix in [seed.row.prefix, *(p for p in self._groups if p != seed.row.prefix)]:
            width = len(prefix)
            if batch and cost(1, longest) > budget:
                break
            if not packed and not _alike(width, longest):
                continue
            group = [unit for unit in self._groups[prefix] if unit.owner in front]
            for unit in _like(group, seed):
                if batch and cost(unit.length, width) > budget:
                    break
                batch.append(unit)
                tokens, longest = tokens + unit.length, max(longest, width)
        self._clock += sum(unit.length for unit in batch) / len(self._own)
        self._remove(batch)
        return batch

    def _front(self, tokens: int) -> set[Owner]:
        """Returns the next owners: as many as have `tokens` together, or all."""
        front: set[Owner] = set()
        for _, _, owner in self._order:
            if tokens <= 0:
                break
            front.add(owner)
            tokens -= self._left[owner]
        return front

    def _remove(self, units: Sequence[Unit[Owner]]) -> None:
        for unit in units:
            unit.taken = True
            self.tokens -= unit.length
            self._left[unit.owner] -= unit.length
        for prefix in {unit.row.prefix for unit in units}:
            waiting = [unit for unit in self._groups[prefix] if not unit.taken]
            if waiting:
                self._groups[prefix] = waiting
            else:
                del self._groups[prefix]
        for owner in {unit.owner for unit in units}:
            if not self._left[owner]:
                del self._own[owner], self._left[owner]
                self._order.pop(bisect_left(self._order, self._place.pop(owner)))


def _alike(one: int, other: int) -> bool:
    """Returns whether prefixes of these lengths may be padded to the longer one."""
    return max(one, other) <= _UNLIKE * min(one, other)


def _like(group: Sequence[Unit[Owner]], seed: Unit[Owner]) -> Iterator[Unit[Owner]]:
    """Yields the rows that are as long as the seed, itself first, then ever shorter ones."""
    begin = bisect_left(group, seed.key, key=_key)
    equal = bisect_left(group, (seed.length + 1, 0), key=_key)
    yield from islice(group, begin, equal)
    yield from (group[place] for place in range(begin - 1, -1, -1))
