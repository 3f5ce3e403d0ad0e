"""Numbers distinct strings in the order of their first appearance, inside kernels.

An open-addressing table of 32-byte slots: the string's first 8 bytes, its next 8 bytes (from 17
bytes on: a hash of all behind the first 8), its number + 1 and length, and where its bytes begin.
So all but long strings are compared without a look at their bytes.

Legend: S strings, H bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.kernels.addresses import Bytes, Longs, addresses, view
from raydist.kernels.arrays import string_array
from raydist.kernels.intrinsics import load64, trailing_zeros
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64

PAD = 16
"""Bytes that a kernel may read behind the end of a string."""
SPARE = 1 << 16
"""Free bytes that a dictionary keeps: strings added between two checks of its room fit in here."""

_FULL = U(0xFFFFFFFFFFFFFFFF)
_LOW = U(0xFFFFFFFF)
_MIX_1 = U(0x9E3779B97F4A7C15)
_MIX_2 = U(0xC2B2AE3D27D4EB4F)

_LENGTH = U(32)  # of a string, above its number + 1, in a slot's third word


class TableArrays(NamedTuple):
    """The arrays of a table of strings; see `StringTable`."""

    slots: Longs
    starts: Longs
    heap: Bytes
    used: Longs


@kernel
def read_keys(data: Array, at: Any, length: Any) -> Any:
    """Returns the two key words of the string `data[at : at + length]`; length is at least 1."""
    if length <= U(8):
        return load64(data, at) & (_FULL >> (U(64) - (length << U(3)))), U(0)
    first = load64(data, at)
    if length <= U(16):
        return first, load64(data, at + U(8)) & (_FULL >> (U(128) - (length << U(3))))
    second = length * _MIX_2
    done = U(8)
    while done < length:
        word = load64(data, at + done)
        left = length - done
        if left < U(8):
            word &= _FULL >> (U(64) - (left << U(3)))
        second = (second ^ word) * _MIX_1
        second ^= second >> U(29)
        done += U(8)
    return first, second


@kernel
def hash_keys(first: Any, second: Any) -> Any:
    """Returns a hash whose upper bits choose the slot."""
    mixed = (first ^ (first >> U(32))) * _MIX_1 + second * _MIX_2
    return mixed ^ (mixed << U(29))


@kernel
def add(
    data: Array,
    at: Any,
    length: Any,
    first: Any,
    second: Any,
    slot: Any,
    table: TableArrays,
) -> Any:
    """Returns the number of the string `data[at : at + length]`, a new one if it is new.

    `first`, `second` are its key words, `slot` is where to look first. One more must fit.
    """
    slots, starts_S1, heap_H, used = table.slots, table.starts, table.heap, table.used
    last = U(slots.shape[0] >> 2) - U(1)
    while True:
        place = slot << U(2)
        meta = slots[place + U(2)]
        if meta == U(0):
            number, begin = used[0], used[1]
            slots[place] = first
            slots[place + U(1)] = second
            slots[place + U(2)] = (number + U(1)) | (length << _LENGTH)
            slots[place + U(3)] = begin
            for i in range(length):
                heap_H[begin + U(i)] = data[at + U(i)]
            starts_S1[number + U(1)] = begin + length
            used[0] = number + U(1)
            used[1] = begin + length
            return number
        if slots[place] == first and slots[place + U(1)] == second and meta >> _LENGTH == length:
            number = (meta & _LOW) - U(1)
            if length <= U(16):
                return number
            begin = slots[place + U(3)]
            same = True
            for i in range(length):
                if heap_H[begin + U(i)] != data[at + U(i)]:
                    same = False
                    break
            if same:
                return number
        slot = (slot + U(1)) & last


@kernel
def _rehash(old: Array, slots: Array) -> None:
    count = U(slots.shape[0] >> 2)
    shift = U(64) - trailing_zeros(count)
    for i in range(U(old.shape[0] >> 2)):
        place = U(i) << U(2)
        if old[place + U(2)]:
            slot = hash_keys(old[place], old[place + U(1)]) >> shift
            while slots[(slot << U(2)) + U(2)]:
                slot = (slot + U(1)) & (count - U(1))
            for word in range(U(4)):
                slots[(slot << U(2)) + U(word)] = old[place + U(word)]


@kernel
def _add_all(
    data: Array, starts: Array, begin: Any, shift: Any, arrays: Array, numbers: Array
) -> Any:
    """Adds strings from `begin` on as long as they fit; returns where it stopped."""
    table = view(arrays, U(0), TableArrays)
    used, room = table.used, U(table.heap.shape[0])
    half = U(table.slots.shape[0] >> 3)
    for i in range(begin, starts.shape[0] - 1):
        at, length = U(starts[i]), U(starts[i + 1]) - U(starts[i])
        if used[0] >= half or used[1] + length + U(PAD) > room:
            return i
        if length == U(0):
            numbers[i] = _LOW
            continue
        first, second = read_keys(data, at, length)
        slot = hash_keys(first, second) >> shift
        numbers[i] = add(data, at, length, first, second, slot, table)
    return starts.shape[0] - 1


class StringTable:
    """A growing set of strings, numbered from 0.

    Attributes:
        slots: the table, uint64 [4 × capacity].
        starts: where each string begins in `heap`, uint64, one more than strings.
        heap: all strings one after another, uint8.
        used: uint64 [2]: strings, bytes.
        version: changes where one of these arrays is replaced by a larger one.
    """

    def __init__(self, capacity: int = 1 << 12) -> None:
        self.slots = np.zeros(4 * capacity, np.uint64)
        self.starts = np.zeros(capacity // 2 + 1, np.uint64)
        self.heap = np.zeros(SPARE, np.uint8)
        self.used = np.zeros(2, np.uint64)
        self.version = 0

    def __len__(self) -> int:
        return int(self.used[0])

    @property
    def shift(self) -> np.uint64:
        """By how much a hash is shifted to give a slot."""
        return U(65 - (len(self.slots) >> 2).bit_length())

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the dictionary holds."""
        return self.slots.nbytes + self.starts.nbytes + self.heap.nbytes

    @property
    def arrays(self) -> TableArrays:
        """The present arrays, for kernels."""
        return TableArrays(self.slots, self.starts, self.heap, self.used)

    def reserve(self, strings: int, nbytes: int) -> None:
        """Makes room for more strings, at most half of the slots being used, and bytes."""
        capacity = len(self.slots) >> 2
        while 2 * (len(self) + strings) > capacity:
            capacity *= 2
        if 4 * capacity > len(self.slots):
            slots = np.zeros(4 * capacity, np.uint64)
            _rehash(self.slots, slots)
            self.slots = slots
            self.version += 1
            self.starts = _grown(self.starts, capacity // 2 + 1)
        need = int(self.used[1]) + nbytes + PAD
        if need > len(self.heap):
            self.version += 1
            self.heap = _grown(self.heap, max(need, 2 * len(self.heap)))

    def add(self, data: Array, starts: Array) -> Array:
        """Returns the numbers (uint32) of the strings in `data`, adding those that are new.

        `starts` (uint64) tells where strings begin, with the end behind; `data` (uint8) is PAD
        bytes longer. An empty string has no number: 0xFFFFFFFF.
        """
        count = len(starts) - 1
        numbers = np.empty(count, np.uint32)
        begin = 0
        while True:
            begin = _add_all(data, starts, begin, self.shift, addresses(self.arrays), numbers)
            if begin == count:
                return numbers
            self.reserve(count - begin, int(starts[-1] - starts[begin]))

    def strings(self, first: int = 0, last: int | None = None) -> pa.LargeBinaryArray:
        """Returns a copy of the strings numbered `first` to `last`."""
        offsets = self.starts[first : (len(self) if last is None else last) + 1].astype(np.int64)
        data = self.heap[offsets[0] : offsets[-1]].copy()
        return string_array(offsets - offsets[0], data)


def joined(strings: Sequence[bytes]) -> tuple[Array, Array]:
    """Returns strings as kernels read them: their bytes and PAD zeros, and where each starts."""
    starts = np.zeros(len(strings) + 1, np.uint64)
    np.cumsum([len(string) for string in strings], out=starts[1:])
    return np.frombuffer(bytearray(b"".join(strings) + bytes(PAD)), np.uint8), starts


def _grown(array: Array, size: int) -> Array:
    larger = np.zeros(size, array.dtype)
    larger[: len(array)] = array
    return larger
