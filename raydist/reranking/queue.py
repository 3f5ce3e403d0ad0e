"""The rows that wait for a micro-batch: sorted by length, taken fairly by request."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Generic, Protocol, TypeVar

Owner = TypeVar("Owner", bound=Hashable)
_serial = count()

_LOOKAHEAD = 8
"""How many budgets' worth of tokens are searched for rows of similar length."""
_MAX_PREFIX_RATIO = 1.5
"""How many times as long as another a prefix may be in the same padded batch."""


class Row(Protocol):
    """One sequence to compute."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """Token ids that come first and are shared with other rows."""
        ...

    def __len__(self) -> int:
        """Its cost without the prefix."""
        ...


@dataclass(eq=False, slots=True)
class Unit(Generic[Owner]):
    """A waiting row of one owner (a request); `number` is its position within the owner."""

    length: int
    row: Row
    owner: Owner
    number: int
    serial: int = 0
    """In the order of arrival in the queue."""
    taken: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """The order of units."""
        return self.length, self.serial


def _key(unit: Unit[Owner]) -> tuple[int, int]:
    return unit.key


class FairQueue(Generic[Owner]):
    """Waiting units. Not thread-safe: the batcher holds its lock around every call.

    Weighted fair queueing (Demers, Keshav & Shenker 1989): owners are served in the order in which
    they would finish if all that wait shared the model equally. So equal requests are served in
    the order of their arrival, and a small one does not wait for a large one. Where `quantum` is
    given, an owner stands in line with so many tokens at a time: then a large one begins soon, too,
    whatever small ones keep coming.

    Args:
        quantum: tokens; the whole of an owner by default.
    """

    def __init__(self, quantum: float = float("inf")) -> None:
        self.tokens = 0
        self._quantum = quantum
        self._clock = 0.0
        self._by_prefix: dict[tuple[int, ...], list[Unit[Owner]]] = {}
        self._by_owner: dict[Owner, list[Unit[Owner]]] = {}
        self._tokens_left: dict[Owner, int] = {}
        self._order: list[tuple[float, int, Owner]] = []
        self._rank: dict[Owner, tuple[float, int, Owner]] = {}
        self._rest: dict[Owner, float] = {}
        """The tokens that each owner has left when its quantum ends."""

    def __bool__(self) -> bool:
        return bool(self._by_owner)

    def owners(self) -> list[Owner]:
        """Returns the owners with waiting units, oldest first."""
        return list(self._by_owner)

    def add(self, owner: Owner, units: Sequence[Unit[Owner]]) -> None:
        """Adds an owner's units."""
        assert owner not in self._by_owner and units
        for unit in units:
            unit.serial = next(_serial)
        self._by_owner[owner] = sorted(units, key=_key)
        size = self._tokens_left[owner] = sum(unit.length for unit in units)
        self.tokens += size
        self._stand_in_line(owner, self._clock)
        unsorted = set()
        for unit in units:
            group = self._by_prefix.setdefault(unit.row.prefix, [])
            if len(units) > 8:
                group.append(unit)
                unsorted.add(unit.row.prefix)
            else:
                insort(group, unit, key=_key)
        for prefix in unsorted:
            self._by_prefix[prefix].sort(key=_key)

    def _stand_in_line(self, owner: Owner, begin: float) -> None:
        """Puts an owner where its next quantum ends, if it is served from `begin` on."""
        end = begin + min(self._tokens_left[owner], self._quantum)
        self._rank[owner] = end, next(_serial), owner
        self._rest[owner] = max(0, self._tokens_left[owner] - self._quantum)
        insort(self._order, self._rank[owner])

    def _leave_line(self, owner: Owner) -> float:
        """Removes an owner from the line; returns where its quantum ended."""
        rank = self._rank.pop(owner)
        del self._rest[owner]
        self._order.pop(bisect_left(self._order, rank))
        return rank[0]

    def drop(self, owner: Owner) -> None:
        """Removes all units of `owner` that were not taken, if there are any."""
        if owner not in self._by_owner:
            return
        self._remove([unit for unit in self._by_owner[owner] if not unit.taken])

    def take(self, budget: int, *, packed: bool) -> list[Unit[Owner]]:
        """Removes and returns the next micro-batch, its longest row first; empty if none waits.

        The next owner's longest row is the seed; rows of nearly its length, of the next few owners,
        fill the batch.

        Args:
            budget: the most tokens of the batch. A longer single row is returned alone.
            packed: whether a row costs its own tokens (True), or as many as the longest row and the
                longest prefix have, to which all are padded (False).
        """
        if not self._by_owner:
            return []
        next_owners = self._next_owners(_LOOKAHEAD * budget)
        own = self._by_owner[self._order[0][-1]]
        while own[-1].taken:
            own.pop()
        seed = own[-1]
        batch: list[Unit[Owner]] = []
        tokens, longest = 0, len(seed.row.prefix)

        def cost(length: int, prefix: int) -> int:
            """Returns the cost of the batch with one more row."""
            if packed:
                return tokens + length
            return (len(batch) + 1) * (seed.length + max(longest, prefix))

        for prefix in [seed.row.prefix, *(p for p in self._by_prefix if p != seed.row.prefix)]:
            width = len(prefix)
            if batch and cost(1, longest) > budget:
                break
            if not packed and not _similar(width, longest):
                continue
            group = [unit for unit in self._by_prefix[prefix] if unit.owner in next_owners]
            for unit in _nearest(group, seed):
                if batch and cost(unit.length, width) > budget:
                    break
                batch.append(unit)
                tokens, longest = tokens + unit.length, max(longest, width)
        self._clock += sum(unit.length for unit in batch) / len(self._by_owner)
        self._remove(batch)
        return batch

    def _next_owners(self, tokens: int) -> set[Owner]:
        """Returns the next owners: as many as have `tokens` together, or all."""
        owners: set[Owner] = set()
        for _, _, owner in self._order:
            if tokens <= 0:
                break
            owners.add(owner)
            tokens -= self._tokens_left[owner]
        return owners

    def _remove(self, units: Sequence[Unit[Owner]]) -> None:
        for unit in units:
            unit.taken = True
            self.tokens -= unit.length
            self._tokens_left[unit.owner] -= unit.length
        for prefix in {unit.row.prefix for unit in units}:
            waiting = [unit for unit in self._by_prefix[prefix] if not unit.taken]
            if waiting:
                self._by_prefix[prefix] = waiting
            else:
                del self._by_prefix[prefix]
        for owner in {unit.owner for unit in units}:
            if not self._tokens_left[owner]:
                del self._by_owner[owner], self._tokens_left[owner]
                self._leave_line(owner)
            elif self._tokens_left[owner] <= self._rest[owner]:
                end = self._leave_line(owner)
                self._stand_in_line(owner, end)


def _similar(one: int, other: int) -> bool:
    """Returns whether prefixes of these lengths may be padded to the longer one."""
    return max(one, other) <= _MAX_PREFIX_RATIO * min(one, other)


def _nearest(group: Sequence[Unit[Owner]], seed: Unit[Owner]) -> Iterator[Unit[Owner]]:
    """Yields the rows that are as long as the seed, itself first, then ever shorter ones."""
    begin = bisect_left(group, seed.key, key=_key)
    equal = bisect_left(group, (seed.length + 1, 0), key=_key)
    yield from islice(group, begin, equal)
    yield from (group[number] for number in range(begin - 1, -1, -1))
