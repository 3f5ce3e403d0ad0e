"""Sorted or unsorted strings with numbers beside them, front-coded in groups.

An entry is `[bytes shared with the previous][bytes more][those bytes][numbers ...]`, the counts
and numbers as variable-length integers (7 bits a byte, low first). Every `GROUP`-th entry shares
nothing, so a group is read from its start, and sorted strings are found by binary search over the
groups' first entries: nothing is in memory but the map of the file.

Legend: S strings, G groups, K numbers per entry. A table of groups is uint64 [G + 1, 1 + K]: where
the group's entries begin and the sums of the numbers of all entries before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.kernels.arrays import readonly, string_array
from raydist.kernels.jit import kernel
from raydist.kernels.varint import get_varint, put_varint
from raydist.strings import LIMIT

Array = npt.NDArray[Any]
U = np.uint64

GROUP = 16
"""Entries per group."""


@kernel
def put(
    offsets_S1: Array,
    data: Array,
    numbers_SK: Array,
    before: Any,
    previous: Array,
    sums: Array,
    written: Any,
    groups: Array,
    out: Array,
) -> Any:
    """Encodes strings behind `before` others; returns bytes put to `out`, rows put to `groups`.

    `previous` is the last string of the call before, `sums` [K] the running sums (updated),
    `written` the bytes of all calls before. `out` needs the strings' bytes and 10 (2 + K) each.
    """
    o = U(0)
    g = 0
    width = numbers_SK.shape[1]
    for i in range(offsets_S1.shape[0] - 1):
        start = offsets_S1[i]
        length = offsets_S1[i + 1] - start
        shared = 0
        if (before + i) % GROUP == 0:
            groups[g, 0] = U(written) + o
            for n in range(width):
                groups[g, 1 + n] = sums[n]
            g += 1
        elif i == 0:
            limit = min(length, previous.shape[0])
            while shared < limit and previous[shared] == data[start + shared]:
                shared += 1
        else:
            other = offsets_S1[i - 1]
            limit = min(length, start - other)
            while shared < limit and data[other + shared] == data[start + shared]:
                shared += 1
        o = put_varint(out, o, U(shared))
        o = put_varint(out, o, U(length - shared))
        for j in range(start + shared, start + length):
            out[o] = data[j]
            o += U(1)
        for n in range(width):
            o = put_varint(out, o, U(numbers_SK[i, n]))
            sums[n] += numbers_SK[i, n]
    return np.int64(o), g


@kernel
def measure(data: Array, o: Any, skip: Any, count: Any, width: Any) -> Any:
    """Returns the bytes of `count` strings behind the first `skip` of the group at `o`."""
    o = U(o)
    total = U(0)
    for i in range(skip + count):
        shared, o = get_varint(data, o)
        more, o = get_varint(data, o)
        o += more
        for _ in range(width):
            _, o = get_varint(data, o)
        if i >= skip:
            total += shared + more
    return np.int64(total)


@kernel
def _grown(buffer: Array, size: Any) -> Any:
    """Returns a longer copy; numba's own assignment of slices takes two seconds to compile."""
    larger = np.empty(size, np.uint8)
    for i in range(buffer.shape[0]):
        larger[i] = buffer[i]
    return larger


@kernel
def take(
    data: Array, o: Any, skip: Any, sums: Array, offsets_S1: Array, out: Array, numbers_SK: Array
) -> None:
    """Decodes the strings behind the first `skip` of the group at `o`, as many as the outputs hold.

    `out` has the room that `measure` names; `sums` [K] grow by the numbers of skipped entries.
    """
    o = U(o)
    width = sums.shape[0]
    buffer = np.empty(256, np.uint8)
    for _ in range(skip):
        shared, o = get_varint(data, o)
        more, o = get_varint(data, o)
        if shared + more > U(buffer.shape[0]):
            buffer = _grown(buffer, 2 * (shared + more))
        for j in range(more):
            buffer[shared + j] = data[o + j]
        o += more
        for n in range(width):
            value, o = get_varint(data, o)
            sums[n] += value
    to = U(0)
    before = U(0)
    offsets_S1[0] = 0
    for i in range(offsets_S1.shape[0] - 1):
        shared, o = get_varint(data, o)
        more, o = get_varint(data, o)
        if i == 0:
            for j in range(shared):
                out[j] = buffer[j]
        else:
            for j in range(shared):
                out[to + j] = out[before + j]
        before = to
        to += shared
        for j in range(more):
            out[to + j] = data[o + j]
        to += more
        o += more
        for n in range(width):
            value, o = get_varint(data, o)
            numbers_SK[i, n] = value
        offsets_S1[i + 1] = np.int64(to)


@kernel
def pick(data: Array, groups: Array, which: Array, offsets: Array, out: Array) -> Any:
    """Decodes the strings at the positions `which`, without their numbers.

    Writes as far as `out` holds and returns the bytes that all of them need.
    """
    to = U(0)
    room = U(out.shape[0])
    buffer = np.empty(256, np.uint8)
    width = groups.shape[1] - 1
    offsets[0] = 0
    for i in range(which.shape[0]):
        position = U(which[i])
        o = groups[position // U(GROUP), 0]
        length = U(0)
        for _ in range(position % U(GROUP) + U(1)):
            shared, o = get_varint(data, o)
            more, o = get_varint(data, o)
            length = shared + more
            if length > U(buffer.shape[0]):
                buffer = _grown(buffer, 2 * length)
            for j in range(more):
                buffer[shared + j] = data[o + j]
            o += more
            for _ in range(width):
                _, o = get_varint(data, o)
        if to + length <= room:
            for j in range(length):
                out[to + j] = buffer[j]
        to += length
        offsets[i + 1] = np.int64(to)
    return np.int64(to)


@kernel
def _head_above(data: Array, o: Any, keys: Array, start: Any, stop: Any) -> Any:
    """Returns whether the string at the head of the group at `o` is above the key."""
    _, o = get_varint(data, o)
    length, o = get_varint(data, o)
    limit = min(length, stop - start)
    for i in range(limit):
        a = data[o + i]
        b = keys[start + i]
        if a != b:
            return a > b
    return length > stop - start


@kernel
def find_one(
    data: Array, groups: Array, strings: Any, keys: Array, start: Any, stop: Any, row: Array
) -> None:
    """Looks up the key `keys[start : stop]` among sorted strings.

    `row` (uint64 [2 + 2 K]) receives 1 if it occurs, its position (or the one that it would have),
    its numbers (or 0) and the sums of the numbers before it.
    """
    width = U(groups.shape[1] - 1)
    low = U(0)
    high = U(groups.shape[0] - 1)
    while low < high:
        middle = (low + high) >> U(1)
        if _head_above(data, groups[middle, 0], keys, start, stop):
            high = middle
        else:
            low = middle + U(1)
    for n in range(U(2) + U(2) * width):
        row[n] = U(0)
    if low == U(0):
        return
    group = low - U(1)
    for n in range(width):
        row[U(2) + width + n] = groups[group, U(1) + n]
    o = groups[group, 0]
    position = group * U(GROUP)
    end = min(position + U(GROUP), U(strings))
    length = stop - start
    match = U(0)  # bytes that the key shares with the entry before, which is below the key
    equal = False
    while position < end:
        shared, o = get_varint(data, o)
        more, o = get_varint(data, o)
        if shared < match:
            break
        if shared == match:
            m = U(0)
            while m < more and match + m < length and data[o + m] == keys[start + match + m]:
                m += U(1)
            if m == more:
                equal = match + m == length
            elif match + m == length or data[o + m] > keys[start + match + m]:
                break
            match += m
        o += more
        for n in range(width):
            value, o = get_varint(data, o)
            if equal:
                row[U(2) + n] = value
            else:
                row[U(2) + width + n] += value
        if equal:
            break
        position += U(1)
    row[0] = U(equal)
    row[1] = position


@kernel
def find(
    data: Array, groups: Array, strings: Any, offsets_S1: Array, keys: Array, rows: Array
) -> None:
    """Looks up many keys, one after another in `keys`; see `find_one` for `rows` [S, 2 + 2 K]."""
    for i in range(offsets_S1.shape[0] - 1):
        start, stop = U(offsets_S1[i]), U(offsets_S1[i + 1])
        find_one(data, groups, strings, keys, start, stop, rows[i])


def look_up(data: Array, groups: Array, strings: int, wanted: Sequence[bytes]) -> Array:
    """Looks up strings; returns uint64 [S, 2 + 2 K], rows as `find_one` writes them."""
    offsets = np.array([0, *accumulate(map(len, wanted))])
    offsets.flags.writeable = False
    keys = np.frombuffer(b"".join(wanted) or b"\0", np.uint8)
    rows = np.empty((len(wanted), 2 * groups.shape[1]), np.uint64)
    find(data, groups, strings, offsets, keys, rows)
    return rows


def decode(
    data: Array, groups: Array, first: int, last: int
) -> tuple[pa.LargeBinaryArray, Array, Array]:
    """Returns the strings `first <= s < last`, their numbers and the sums of those before."""
    columns = groups.shape[1] - 1
    if first == last:
        nothing = np.empty((0, columns), np.uint64), np.zeros(columns, np.uint64)
        return pa.array([], pa.large_binary()), *nothing
    group, skip = divmod(first, GROUP)
    sums = groups[group, 1:].copy()
    count = last - first
    begin = int(groups[group, 0])
    room = measure(data, begin, skip, count, columns)
    offsets = np.empty(count + 1, np.int64)
    out = np.empty(room, np.uint8)
    numbers_SK = np.empty((count, columns), np.uint64)
    take(data, begin, skip, sums, offsets, out, numbers_SK)
    return string_array(offsets, out), numbers_SK, sums


def pick_strings(
    data: Array, groups: Array, which: Array, kind: pa.DataType | None = None
) -> pa.Array:
    """Returns the strings at the positions `which`.

    They are large_binary or as `kind` says: large_string, or string where its offsets suffice.
    """
    which = readonly(which, np.int64)
    offsets = np.empty(len(which) + 1, np.int64)
    out = np.empty(16 * len(which) + 64, np.uint8)
    need = pick(data, groups, which, offsets, out)
    if need > len(out):
        out = np.empty(need, np.uint8)
        pick(data, groups, which, offsets, out)
    if kind == pa.string():
        if need > LIMIT:
            kind = pa.large_string()
        else:
            offsets = offsets.astype(np.int32)
    return string_array(offsets, out, kind)
