"""Cuts texts into lower-case words exactly as Lucene's StandardTokenizer does, inside one kernel.

Text is scanned without memory: a token is the longest match of the grammar within the next 255
UTF-16 units, and where none begins one code point is skipped. Stretches of ASCII go 32 bytes at a
time: a bit per byte that belongs to words, and a check of the character between two words. All
else goes through the automaton of `grammar.py`. Tokens wait in a queue while their slots in the
table of words are fetched from memory.

Legend: N texts, W tokens.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from raydist.kernels.addresses import Array, addresses, view
from raydist.kernels.intrinsics import prefetch, trailing_zeros
from raydist.kernels.jit import kernel
from raydist.text.grammar import TABLES
from raydist.text.scan import LONGEST, QUEUED, Tables, joints, match, scan_ascii, strip_possessive
from raydist.text.string_table import (
    PAD,
    SPARE,
    StringTable,
    TableArrays,
    add,
    hash_keys,
    read_keys,
)

U = np.uint64

_BLOCK = 4096  # bytes of text between two checks of the room
_QUEUE = 64
_RING = 1 << 15  # bytes of lower-cased text that queued tokens may lie in


_TEXTS = 3  # arrays of it that are the caller's
WORDS = U(len(Tables._fields))  # of a table of addresses: the row of the table of words
_NO_SPANS = np.zeros(0, np.uint64)


@kernel
def _enqueue(
    tables: Tables, words: TableArrays, at: Any, length: Any, queued: Any, shift: Any
) -> Any:
    """Adds a token to the queue and fetches its slot; returns the tokens waiting."""
    first, second = read_keys(tables.ring, at, length)
    slot = hash_keys(first, second) >> shift
    prefetch(words.slots, slot << U(2))
    token = tables.queue[queued]
    token.at = at
    token.length = length
    token.first = first
    token.second = second
    token.slot = slot
    return queued + U(1)


@kernel
def _resolve(tables: Tables, words: TableArrays, queued: Any, filled: Any) -> Any:
    """Looks up the queued tokens; returns how many tokens there are now."""
    ring, queue, tokens = tables.ring, tables.queue, tables.tokens
    for z in range(queued):
        token = queue[z]
        number = add(ring, token.at, token.length, token.first, token.second, token.slot, words)
        tokens[filled + U(z)] = number
    return filled + queued


@kernel
def tokenize(table: Array, possessive: Any) -> Any:
    """Continues at `place` (text, byte, tokens so far); returns whether it reached the end.

    `table` holds the addresses of a tokenizer's arrays. Where this returns False, the
    table of words or `tokens` need more room.
    """
    tables = view(table, U(0), Tables)
    words = view(table, WORDS, TableArrays)
    data, offsets_N1, ends_N, place = tables.data, tables.offsets, tables.ends, tables.place
    joint_of, ring, edges, used = tables.joints, tables.ring, tables.edges, words.used
    spans = tables.spans
    shift = U(64) - trailing_zeros(U(words.slots.shape[0] >> 2))
    text, i, filled = place[0], place[1], place[2]
    queued = U(0)
    base = U(0)
    half = U(words.slots.shape[0] >> 3)
    while text < U(offsets_N1.shape[0] - 1):
        end = U(offsets_N1[text + U(1)])
        while i < end:
            if (
                used[0] + queued + U(_BLOCK) > half
                or used[1] + U(SPARE) > U(words.heap.shape[0])
                or filled + queued + U(_BLOCK) > U(tables.tokens.shape[0])
            ):
                place[0], place[1], place[2] = text, i, _resolve(tables, words, queued, filled)
                return False
            if base + U(2 * _BLOCK) > U(_RING) or queued == U(_QUEUE):
                filled = _resolve(tables, words, queued, filled)
                queued = U(0)
                base = U(0)
            stop = min(end, i + U(_BLOCK))
            count, clean = U(0), i
            if not spans.shape[0]:
                count, clean = scan_ascii(data, i, stop, ring, base, edges)
            # What is safe to read off: up to the end, or to the last blank before trouble.
            until = clean
            general = clean
            if spans.shape[0]:
                general = stop
            elif clean < end:
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
                first, last = U(edges[e]), U(edges[e + U(1)])
                if first >= length:
                    break
                e += U(2)
                while e < count and U(edges[e]) == last + U(1):
                    joint = joint_of[ring[base + last]]
                    sides = joint_of[ring[base + last - U(1)]] & joint_of[ring[base + last + U(1)]]
                    if joint & (sides >> 2) & 3 == 0:
                        break
                    last = U(edges[e + U(1)])
                    e += U(2)
                if last - first > U(LONGEST):
                    until, general = i + first, i + last
                    break
                if ring[base + first] == 95:  # underscores alone are no word
                    z = first
                    while z < last and ring[base + z] == 95:
                        z += U(1)
                    if z == last:
                        continue
                n = last - first
                if possessive:
                    n = strip_possessive(ring, base + first, base + last) - base - first
                queued = _enqueue(tables, words, base + first, n, queued, shift)
                if queued == U(_QUEUE):
                    filled = _resolve(tables, words, queued, filled)
                    queued = U(0)
            base += length
            i = until
            while i < general:
                if base + U(4 * LONGEST) > U(_RING) or queued == U(_QUEUE):
                    filled = _resolve(tables, words, queued, filled)
                    queued = U(0)
                    base = U(0)
                begin = i
                i, to = match(tables, i, end, base)
                if to > base:
                    if spans.shape[0]:
                        spans[(filled + queued) << U(1)] = begin
                        spans[(filled + queued) << U(1) | U(1)] = i
                    if possessive:
                        to = strip_possessive(ring, base, to)
                    queued = _enqueue(tables, words, base, to - base, queued, shift)
                    base = to
        # Nothing of this text is left; its tokens may still be waiting.
        ends_N[text] = filled + queued
        text += U(1)
        if text < U(offsets_N1.shape[0] - 1):
            i = U(offsets_N1[text])
    place[0], place[1], place[2] = text, i, _resolve(tables, words, queued, filled)
    return True


@cache
def _tables(lower: bool) -> tuple[Array, Array, Array, Array, Array, Array]:
    with np.load(TABLES) as tables:
        return (
            tables["page_of"],
            tables["classes"],
            tables["lower"] if lower else np.zeros_like(tables["lower"]),
            tables["next_state"],
            tables["accepting"],
            joints(),
        )


class Tokenizer:
    """Turns texts into numbers of distinct lower-case words.

    Attributes:
        words: the distinct words.
        possessive: whether a final 's is cut off.
        table: the addresses of all arrays, for `tokenize`.
        place: where `tokenize` is: text, byte, tokens so far.
        tokens: receives the numbers of words.
        spans: receives where words begin and end, in bytes, if that is wanted.
    """

    def __init__(
        self,
        *,
        possessive: bool,
        words: StringTable | None = None,
        lower: bool = True,
        spans: bool = False,
    ) -> None:
        """Creates a tokenizer.

        Args:
            possessive: whether a final 's is cut off.
            words: receives the distinct words; a new table by default.
            lower: whether words are written in lower case.
            spans: whether to note where words begin and end. It is slower, as is `lower=False`:
                ASCII goes through the automaton, too.
        """
        self.words = words or StringTable()
        self.possessive = possessive
        self._lower = lower
        rows = len(Tables._fields) + len(TableArrays._fields)
        self.table = np.zeros((rows, 3), np.uint64)
        self.place = np.zeros(3, np.uint64)
        self._ring = np.zeros(_RING + 64, np.uint8)
        self._queue = np.zeros(_QUEUE, QUEUED)
        self._edges = np.zeros(_BLOCK + 64, np.uint32)
        self.tokens = np.zeros(1 << 14, np.uint32)
        self.spans = np.zeros(2 << 14, np.uint64) if spans or not lower else _NO_SPANS
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
        self.table[:_TEXTS] = addresses([data, offsets_N1, ends_N])
        self.refresh()

    def make_room(self) -> None:
        """Enlarges the arrays that were too small for `tokenize`."""
        self.words.reserve(2 * _BLOCK, SPARE)
        if int(self.place[2]) + 2 * _BLOCK > len(self.tokens):
            self.tokens = np.resize(self.tokens, 2 * len(self.tokens))
            self.spans = np.resize(self.spans, 2 * len(self.spans))
            self._version = -1
        self.refresh()

    def refresh(self) -> None:
        """Enters the addresses of arrays that were replaced."""
        words = self.words
        if self._version != words.version:
            self._version = words.version
            work = [self.place, *_tables(self._lower), self._ring, self._queue, self._edges]
            work += [self.tokens, self.spans]
            self.table[_TEXTS:] = addresses([*work, *words.arrays])


def words_of(text: str, *, lower: bool = True) -> list[str]:
    """Returns the words of one text in order, by default in lower case."""
    tokenizer = Tokenizer(possessive=False, lower=lower)
    data = text.encode("utf-8", "surrogatepass")
    array = np.frombuffer(data + bytes(PAD), np.uint8)
    tokens, _ = tokenizer(array, np.array([0, len(data)], np.int64))
    names = [
        name.decode("utf-8", "surrogatepass") for name in tokenizer.words.strings().to_pylist()
    ]
    return [names[token] for token in tokens.tolist()]
