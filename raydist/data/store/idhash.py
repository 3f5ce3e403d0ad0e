"""Hashes of ids: sorted in bounded memory, they find ids that occur twice and look others up.

Hashes are uniform, so ids beyond what is sorted in memory are dealt by the first byte of their hash
into buckets on the disk, and each bucket is sorted by itself: the cost is linear, the memory fixed.

Legend: N ids of a collection, Q ids to look up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.kernels.arrays import string_buffers
from raydist.kernels.bits import Bits

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads nearby ids
_FINISH = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)

_RUN = 1 << 22  # ids that are sorted, or dealt into buckets, at once
_SLICE = 1 << 18  # ids that are hashed at once
_BUCKETS = 256
_SUSPECTS = 1 << 18  # repeated ids that are compared as text
GROUP = 4096
"""Sorted hashes for which the first is kept as a fence: a lookup touches one group."""

Chunks = Callable[[], Iterable[pa.Array | pa.ChunkedArray]]
"""Gives the ids of a collection in order, in parts; called again where they are needed twice."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Ids that occur more than once.

    Attributes:
        count: number of rows that repeat an id of an earlier row.
        examples: up to ten `(id, first row, repeated row)`, rows from 0.
    """

    count: int
    examples: tuple[tuple[str, int, int], ...]


def hash_ids(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Returns a 64-bit hash of each id, uint64 [N]; the same on every machine.

    Eight bytes at a time: h = (h ^ word) * K; h ^= h >> 32, over the little-endian words of the id
    padded with zeros, starting from its length; at last h * F.
    """
    parts = [_hashes(part) for part in slices_of([ids])]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def slices_of(
    chunks: Iterable[pa.Array | pa.ChunkedArray], size: int = _SLICE
) -> Iterator[pa.Array]:
    """Yields ids in parts of a bounded size, none empty."""
    for chunk in chunks:
        for part in chunk.chunks if isinstance(chunk, pa.ChunkedArray) else [chunk]:
            for start in range(0, len(part), size):
                yield part.slice(start, size)


def _hashes(ids: pa.Array) -> np.ndarray:
    offsets_N1, data = string_buffers(ids)
    first, last = int(offsets_N1[0]), int(offsets_N1[-1])
    padded = np.zeros(last - first + 8, np.uint8)
    if last > first:
        padded[:-8] = data[first:last]
    words = np.lib.stride_tricks.as_strided(
        padded[:8].view("<u8"), shape=(len(padded) - 7,), strides=(1,), writeable=False
    )
    starts_N = offsets_N1[:-1] - first
    lengths_N = np.diff(offsets_N1)
    hashes_N = lengths_N.astype(np.uint64)
    masks = np.array([(1 << (8 * n)) - 1 for n in range(9)], np.uint64)
    rows = np.arange(len(ids))
    for at in range(0, int(lengths_N.max()), 8):
        if at:
            rows = rows[lengths_N[rows] > at]
        word = words[starts_N[rows] + at] & masks[np.minimum(lengths_N[rows] - at, 8)]
        mixed = (hashes_N[rows] ^ word) * _MULTIPLIER
        hashes_N[rows] = mixed ^ (mixed >> _SHIFT)
    return hashes_N * _FINISH


class _Dealt(NamedTuple):
    """A run of hashes and rows on the disk, by the first byte of the hash."""

    position: int
    ends: np.ndarray
    first_row: int


def sorted_hashes(
    chunks: Iterable[pa.Array | pa.ChunkedArray], scratch: Path | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields all hashes in ascending order with their rows, equal hashes by row, in parts.

    Equal hashes are never in two parts.

    Args:
        chunks: the ids in order.
        scratch: the folder for a temporary file of 12 bytes an id; the system's if None.
    """
    with tempfile.TemporaryFile(dir=scratch) as file:
        dealt: list[_Dealt] = []
        pending: list[np.ndarray] = []
        count = first_row = 0
        for part in slices_of(chunks):
            pending.append(_hashes(part))
            count += len(part)
            if count >= _RUN:
                dealt.append(_deal(np.concatenate(pending), first_row, file))
                pending, first_row, count = [], first_row + count, 0
        if pending and dealt:
            dealt.append(_deal(np.concatenate(pending), first_row, file))
        elif pending:
            hashes_N = np.concatenate(pending)
            order_N = np.argsort(hashes_N, kind="stable")
            yield hashes_N[order_N], order_N
        file.flush()
        for bucket in range(_BUCKETS if dealt else 0):
            hashes_N, rows_N = _read(dealt, bucket, file)
            order_N = np.argsort(hashes_N, kind="stable")
            yield hashes_N[order_N], rows_N[order_N]


def _deal(hashes_N: np.ndarray, first_row: int, file: IO[bytes]) -> _Dealt:
    bucket_N = (hashes_N >> np.uint64(56)).astype(np.uint8)
    order_N = np.argsort(bucket_N, kind="stable")
    ends = np.concatenate(([0], np.cumsum(np.bincount(bucket_N, minlength=_BUCKETS))))
    position = file.tell()
    file.write(hashes_N[order_N].data)
    file.write(order_N.astype(np.uint32).data)
    return _Dealt(position, ends, first_row)


def _read(dealt: list[_Dealt], bucket: int, file: IO[bytes]) -> tuple[np.ndarray, np.ndarray]:
    hashes, rows = [], []
    for run in dealt:
        start, stop = int(run.ends[bucket]), int(run.ends[bucket + 1])
        file.seek(run.position + 8 * start)
        hashes.append(np.frombuffer(file.read(8 * (stop - start)), np.uint64))
        file.seek(run.position + 8 * int(run.ends[-1]) + 4 * start)
        local = np.frombuffer(file.read(4 * (stop - start)), np.uint32)
        rows.append(local.astype(np.int64) + run.first_row)
    return np.concatenate(hashes), np.concatenate(rows)


@dataclass
class Repeats:
    """Rows whose hash occurred before, collected from sorted hashes in bounded memory.

    Attributes:
        count: how many there are.
    """

    count: int = 0
    _pairs: list[np.ndarray] = field(default_factory=list)
    _held: int = 0

    def add(self, hashes_N: np.ndarray, rows_N: np.ndarray) -> None:
        """Takes one part of `sorted_hashes`."""
        same = hashes_N[1:] == hashes_N[:-1]
        again = np.flatnonzero(same) + 1
        if not len(again):
            return
        starts = np.flatnonzero(np.concatenate(([True], ~same)))
        first = starts[np.searchsorted(starts, again, "right") - 1]
        self.count += len(again)
        self._pairs.append(np.stack((rows_N[first], rows_N[again])).astype(np.int64))
        self._held += len(again)
        if self._held > 2 * _SUSPECTS:
            pairs = np.concatenate(self._pairs, axis=1)
            earliest = np.argpartition(pairs[1], _SUSPECTS)[:_SUSPECTS]
            self._pairs, self._held = [pairs[:, earliest]], _SUSPECTS

    def duplicates(self, take: Callable[[np.ndarray], pa.Array]) -> Duplicates:
        """Compares the texts of the earliest; returns what occurs twice.

        Beyond a quarter of a million repeated ids the others are counted by their hash: among 10^9
        different ids, .03 pairs share one.

        Args:
            take: returns the ids of ascending rows.
        """
        if not self.count:
            return Duplicates(0, ())
        pairs = np.concatenate(self._pairs, axis=1)
        suspects = np.unique(pairs)
        first: dict[str, int] = {}
        repeated: list[tuple[str, int, int]] = []
        for text, row in zip(take(suspects).to_pylist(), suspects.tolist()):
            if first.setdefault(text, row) != row:
                repeated.append((text, first[text], row))
        rest = self.count - pairs.shape[1]
        return Duplicates(len(repeated) + rest, tuple(repeated[:10]))


def find_duplicates(
    ids: pa.Array | pa.ChunkedArray | Chunks, scratch: Path | None = None
) -> Duplicates:
    """Returns which ids occur more than once; 1 M ids take about 0.15 s.

    Args:
        ids: all of them, or what gives them in parts.
        scratch: as for `sorted_hashes`.
    """
    chunks: Chunks = (lambda: [ids]) if isinstance(ids, pa.Array | pa.ChunkedArray) else ids
    repeats = Repeats()
    for hashes_N, rows_N in sorted_hashes(chunks(), scratch):
        repeats.add(hashes_N, rows_N)
    return repeats.duplicates(lambda rows: _take(chunks(), rows))


def repeated_rows(ids: Chunks, scratch: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns all rows that repeat an earlier row's id, int64 [D]: the first such rows, and they.

    Memory is that of the repeated ids.

    Args:
        ids: gives all ids in parts.
        scratch: as for `sorted_hashes`.
    """
    suspects = [np.empty(0, np.int64)]
    for hashes_N, rows_N in sorted_hashes(ids(), scratch):
        same = hashes_N[1:] == hashes_N[:-1]
        alike = np.append(same, False) | np.append(False, same)
        suspects.append(rows_N[alike].astype(np.int64))
    rows = np.sort(np.concatenate(suspects))
    codes = pc.dictionary_encode(_take(ids(), rows)).indices.to_numpy()
    first = rows[np.unique(codes, return_index=True)[1][codes]]
    again = first != rows
    return first[again], rows[again]


def _take(chunks: Iterable[pa.Array | pa.ChunkedArray], rows: np.ndarray) -> pa.Array:
    """Returns the ids of ascending rows from one pass over all."""
    parts, before = [pa.array([], pa.large_string())], 0
    for part in slices_of(chunks):
        a, z = np.searchsorted(rows, (before, before + len(part)))
        if a < z:
            parts.append(part.take(pa.array(rows[a:z] - before)).cast(pa.large_string()))
        before += len(part)
    return pa.concat_arrays(parts)


class HashIndex:
    """Rows of ids by their sorted hashes; what a lookup touches is checked first.

    Args:
        hashes_N: ascending; uint64, or uint32 where only their upper half is kept.
        order_N: the row of each.
        fences: every `GROUP`-th of the hashes; taken from them if None.
        take: returns the ids at rows, large_string.
        check: called with the first and the last position before hashes and rows there are used.
    """

    def __init__(
        self,
        hashes_N: np.ndarray,
        order_N: np.ndarray,
        take: Callable[[np.ndarray], pa.Array],
        *,
        fences: np.ndarray | None = None,
        check: Callable[[np.ndarray, np.ndarray], None] | None = None,
    ) -> None:
        self._hashes_N = hashes_N
        self._order_N = order_N
        self._take = take
        self._fences = np.array(hashes_N[::GROUP]) if fences is None else fences
        self._check = check

    @classmethod
    def of(cls, ids: pa.Array) -> HashIndex:
        """Returns the index of ids in memory."""
        return cls.build([ids], len(ids), lambda rows: ids.take(pa.array(rows)))

    @classmethod
    def build(
        cls, chunks: Iterable[pa.Array], count: int, take: Callable[[np.ndarray], pa.Array]
    ) -> HashIndex:
        """Returns the index of `count` ids; that of many lies in a temporary file."""
        order_type = np.dtype(np.uint32 if count < 1 << 32 else np.int64)
        hashes_N = _room(count, np.dtype(np.uint64))
        order_N = _room(count, order_type)
        at = 0
        for hashes, rows in sorted_hashes(chunks):
            hashes_N[at : at + len(rows)], order_N[at : at + len(rows)] = hashes, rows
            at += len(rows)
        return cls(hashes_N, order_N, take)

    def find(self, wanted: pa.Array, among: Bits | None = None) -> np.ndarray:
        """Returns the first row of each wanted id, int64 [Q]; -1 where it does not occur.

        Args:
            wanted: string or large_string [Q].
            among: the rows that count, None for all.
        """
        rows_Q = np.full(len(wanted), -1, np.int64)
        count = len(self._hashes_N)
        if not count or not len(wanted):
            return rows_Q
        hashes_Q = hash_ids(wanted)
        if self._hashes_N.dtype == np.uint32:
            hashes_Q = (hashes_Q >> _SHIFT).astype(np.uint32)
        order_Q = np.argsort(hashes_Q)  # neighbours in memory are looked at together
        hashes_Q = hashes_Q[order_Q]
        at_Q = self._lower_bounds(hashes_Q)
        left = np.arange(len(at_Q))
        while len(left):
            left = left[at_Q[left] < count]
            self._checked(at_Q[left], at_Q[left])
            left = left[self._hashes_N[at_Q[left]] == hashes_Q[left]]
            if not len(left):
                break
            rows = np.asarray(self._order_N[at_Q[left]], np.int64)
            places = order_Q[left]
            same = _equal(self._take(rows), wanted.take(pa.array(places)))
            if among is not None:
                same &= among.has(rows)
            rows_Q[places[same]] = rows[same]
            left = left[~same]
            at_Q[left] += 1
        return rows_Q

    def _lower_bounds(self, hashes_Q: np.ndarray) -> np.ndarray:
        """Returns how many hashes are below each, int64 [Q]: a binary search within its group."""
        group_Q = np.maximum(np.searchsorted(self._fences, hashes_Q, "left") - 1, 0)
        low_Q = group_Q * GROUP
        high_Q = np.minimum(low_Q + GROUP, len(self._hashes_N))
        self._checked(low_Q, high_Q - 1)
        while (open_Q := low_Q < high_Q).any():
            middle_Q = (low_Q + high_Q) >> 1
            below_Q = open_Q & (self._hashes_N[np.minimum(middle_Q, high_Q - 1)] < hashes_Q)
            low_Q = np.where(below_Q, middle_Q + 1, low_Q)
            high_Q = np.where(open_Q & ~below_Q, middle_Q, high_Q)
        return low_Q

    def _checked(self, first_Q: np.ndarray, last_Q: np.ndarray) -> None:
        if self._check is not None and len(first_Q):
            self._check(first_Q, last_Q)


def _room(count: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Returns an array to fill: in memory, or mapped from a file without a name."""
    if count <= _RUN:
        return np.empty(count, dtype)
    with tempfile.TemporaryFile() as file:
        file.truncate(count * dtype.itemsize)
        return np.memmap(file, dtype, "r+", shape=(count,))


def _equal(left: pa.Array, right: pa.Array) -> np.ndarray:
    same = pc.equal(left.cast(pa.large_string()), right.cast(pa.large_string()))
    return np.asarray(same.to_numpy(zero_copy_only=False), bool)
