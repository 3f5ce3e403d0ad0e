"""Cuts texts into lower-case words exactly as Lucene's StandardTokenizer does, inside one kernel.

Text is scanned without memory: a token is the longest match of the grammar within the next 255
UTF-16 units, and where none begins one code point is skipped. Stretches of ASCII go 32 bytes at a
time: a bit per byte that belongs to words, and a look at what stands between two words. All else is
walked through the automaton of `grammar.py`. Tokens wait in a queue while the slots of the
dictionary that they will need are on their way from memory.

Legend: N texts, W tokens.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.kernels.addresses import addresses, flat, grid
from raydist.kernels.intrinsics import prefetch, trailing_zeros
from raydist.kernels.jit import kernel
from raydist.text.dictionary import SPARE, Dictionary, add, hash_keys, read_keys
from raydist.text.grammar import TABLES
from raydist.text.scan import LONGEST, joints, match, scan_ascii, strip_possessive

Array = npt.NDArray[Any]
U = np.uint64

_BLOCK = 4096  # bytes of text between two checks of the room
_QUEUE = 64
_RING = 1 << 15  # bytes of lower-cased text that queued tokens may lie in

# Rows of a tokenizer's table of addresses.
_DATA = U(0)
OFFSETS = U(1)
_ENDS = U(2)
PLACE = U(3)
TOKENS = U(13)
USED = U(17)


@kernel
def _enqueue(
    ring: Array, at: Any, length: Any, queue: Array, queued: Any, slots: Array, shift: Any
) -> Any:
    """Adds a token to the queue and fetches its slot; returns the tokens waiting."""
    first, second = read_keys(ring, at, length)
    slot = hash_keys(first, second) >> shift
    prefetch(slots, slot << U(2))
    q = queued * U(5)
    queue[q] = at
    queue[q + U(1)] = length
    queue[q + U(2)] = first
    queue[q + U(3)] = second
    queue[q + U(4)] = slot
    return queued + U(1)


@kernel
def _resolve(
    ring: Array,
    queue: Array,
    queued: Any,
    tokens: Array,
    filled: Any,
    slots: Array,
    starts: Array,
    heap: Array,
    used: Array,
) -> None:
    """Looks up the queued tokens."""
    for z in range(queued):
        q = U(z) * U(5)
        tokens[filled + U(z)] = add(
            ring,
            queue[q],
            queue[q + U(1)],
            queue[q + U(2)],
            queue[q + U(3)],
            queue[q + U(4)],
            slots,
            starts,
            heap,
            used,
        )


@kernel
def tokenize(table: Array, possessive: Any) -> Any:
    """Goes on at `place` (text, byte, tokens so far); returns whether it came to the end.

    `table` holds the addresses of a tokenizer's arrays. Where this returns False, the dictionary or
    `tokens` need more room.
    """
    data = flat(table, _DATA, np.uint8)
    offsets_N1 = flat(table, OFFSETS, np.int64)
    ends_N = flat(table, _ENDS, np.uint64)
    place = flat(table, PLACE, np.uint64)
    page_of = flat(table, U(4), np.uint16)
    classes = flat(table, U(5), np.uint8)
    lower = flat(table, U(6), np.int32)
    next_state = grid(table, U(7), np.uint8)
    accepting = flat(table, U(8), np.bool_)
    joint_of = flat(table, U(9), np.uint8)
    ring = flat(table, U(10), np.uint8)
    queue = flat(table, U(11), np.uint64)
    edges = flat(table, U(12), np.uint32)
    tokens = flat(table, TOKENS, np.uint32)
    slots = flat(table, U(14), np.uint64)
    starts = flat(table, U(15), np.uint64)
    heap = flat(table, U(16), np.uint8)
    used = flat(table, USED, np.uint64)
    shift = U(64) - trailing_zeros(U(slots.shape[0] >> 2))
    text, i, filled = place[0], place[1], place[2]
    queued = U(0)
    base = U(0)
    half = U(slots.shape[0] >> 3)
    while text < U(offsets_N1.shape[0] - 1):
        end = U(offsets_N1[text + U(1)])
        while i < end:
            if (
                used[0] + queued + U(_BLOCK) > half
                or used[1] + U(SPARE) > U(heap.shape[0])
                or filled + queued + U(_BLOCK) > U(tokens.shape[0])
            ):
                _resolve(ring, queue, queued, tokens, filled, slots, starts, heap, used)
                place[0], place[1], place[2] = text, i, filled + queued
                return False
            if base + U(2 * _BLOCK) > U(_RING) or queued == U(_QUEUE):
                _resolve(ring, queue, queued, tokens, filled, slots, starts, heap, used)
                filled += queued
                queued = U(0)
                base = U(0)
            stop = min(end, i + U(_BLOCK))
            count, clean = scan_ascii(data, i, stop, ring, base, edges)
            # What is safe to read off: up to the end, or to the last blank before trouble.
            until = clean
            general = clean
            if clean < end:
                while until > i and data[until - U(1)] > 32:
                    until -= U(1)
                if clean < stop:
                    while general < stop and data[general] > 32:
                        general += U(1)
                elif until > i:
                    general = until
            length = until - i
            e = U(0)
            while e < count:
                s, t = U(edges[e]), U(edges[e + U(1)])
                if s >= length:
                    break
                e += U(2)
                while e < count and U(edges[e]) == t + U(1):
                    joint = joint_of[ring[base + t]]
                    sides = joint_of[ring[base + t - U(1)]] & joint_of[ring[base + t + U(1)]]
                    if joint & (sides >> 2) & 3 == 0:
                        break
                    t = U(edges[e + U(1)])
                    e += U(2)
                if t - s > U(LONGEST):
                    until, general = i + s, i + t
                    break
                if ring[base + s] == 95:  # underscores alone are no word
                    z = s
                    while z < t and ring[base + z] == 95:
                        z += U(1)
                    if z == t:
                        continue
                n = t - s
                if possessive:
                    n = strip_possessive(ring, base + s, base + t) - base - s
                queued = _enqueue(ring, base + s, n, queue, queued, slots, shift)
                if queued == U(_QUEUE):
                    _resolve(ring, queue, queued, tokens, filled, slots, starts, heap, used)
                    filled += queued
                    queued = U(0)
            base += length
            i = until
            while i < general:
                if base + U(4 * LONGEST) > U(_RING) or queued == U(_QUEUE):
                    _resolve(ring, queue, queued, tokens, filled, slots, starts, heap, used)
                    filled += queued
                    queued = U(0)
                    base = U(0)
                i, to = match(
                    data, i, end, page_of, classes, lower, next_state, accepting, ring, base
                )
                if to > base:
                    if possessive:
                        to = strip_possessive(ring, base, to)
                    queued = _enqueue(ring, base, to - base, queue, queued, slots, shift)
                    base = to
        # Nothing of this text is left; its tokens may still be waiting.
        ends_N[text] = filled + queued
        text += U(1)
        if text < U(offsets_N1.shape[0] - 1):
            i = U(offsets_N1[text])
    _resolve(ring, queue, queued, tokens, filled, slots, starts, heap, used)
    place[0], place[1], place[2] = text, i, filled + queued
    return True


@cache
def _tables() -> tuple[Array, Array, Array, Array, Array, Array]:
    with np.load(TABLES) as t:
        return (
            t["page_of"],
            t["classes"],
            t["lower"],
            t["next_state"],
            t["accepting"],
            joints(),
        )


class Tokenizer:
    """Turns texts into numbers of distinct lower-case words.

    Attributes:
        words: the dictionary of distinct words.
        possessive: whether a final 's is cut off.
        table: the addresses of all arrays, for `tokenize`.
        place: where `tokenize` is: text, byte, tokens so far.
        tokens: receives the numbers of words.
    """

    def __init__(self, *, possessive: bool, words: Dictionary | None = None) -> None:
        self.words = words or Dictionary()
        self.possessive = possessive
        self.table = np.zeros((18, 3), np.uint64)
        self.place = np.zeros(3, np.uint64)
        self._ring = np.zeros(_RING + 64, np.uint8)
        self._queue = np.zeros(5 * _QUEUE, np.uint64)
        self._edges = np.zeros(_BLOCK + 64, np.uint32)
        self.tokens = np.zeros(1 << 14, np.uint32)
        self._version = -1
        self.refresh()

    def __call__(self, data: Array, offsets_N1: Array) -> tuple[Array, Array]:
        """Tokenizes the UTF-8 texts `data[offsets[n] : offsets[n + 1]]`.

        Args:
            data: uint8, read-only.
            offsets_N1: int64, read-only, ascending.

        Returns:
            words of all tokens, uint32 [W], valid until the next call; where each text's end, [N].
        """
        ends_N = np.zeros(len(offsets_N1) - 1, np.uint64)
        self.aim(data, offsets_N1, ends_N)
        self.place[:] = 0, offsets_N1[0], 0
        while not tokenize(self.table, self.possessive):
            self.make_room()
        return self.tokens[: int(self.place[2])], ends_N

    def aim(self, data: Array, offsets_N1: Array, ends_N: Array) -> None:
        """Enters texts (uint8), where they begin (int64) and room for their ends (uint64)."""
        assert data.dtype == np.uint8 and offsets_N1.dtype == np.int64 and ends_N.dtype == np.uint64
        self.table[:3] = addresses([data, offsets_N1, ends_N])
        self.refresh()

    def make_room(self) -> None:
        """Enlarges what `tokenize` found too small."""
        self.words.reserve(2 * _BLOCK, SPARE)
        if int(self.place[2]) + 2 * _BLOCK > len(self.tokens):
            self.tokens = np.resize(self.tokens, 2 * len(self.tokens))
            self._version = -1
        self.refresh()

    def refresh(self) -> None:
        """Enters what has been replaced."""
        words = self.words
        if self._version != words.version:
            self._version = words.version
            work = [self.place, *_tables(), self._ring, self._queue, self._edges, self.tokens]
            arrays = [*work, words.slots, words.starts, words.heap, words.used]
            self.table[3:] = addresses(arrays)
