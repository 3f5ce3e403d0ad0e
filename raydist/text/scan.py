"""The two ways to find the next words in UTF-8 text: 32 bytes at a time, or through the automaton.

Nothing here knows of documents or of the table of words. Words are written in lower case.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np

from raydist.kernels.addresses import (
    Array,
    ByteGrid,
    Bytes,
    Flags,
    Ints,
    Longs,
    Offsets,
    Shorts,
    Words,
)
from raydist.kernels.intrinsics import classify_32, trailing_zeros
from raydist.kernels.jit import kernel
from raydist.text.grammar import PAGE

U = np.uint64

LONGEST = 255
"""UTF-16 units of a token; longer ones are cut."""

_LETTERS, _DIGITS = 1, 2

QUEUED = np.dtype(
    [
        ("at", np.uint64),  # where its bytes begin in the ring
        ("length", np.uint64),
        ("first", np.uint64),  # its key words
        ("second", np.uint64),
        ("slot", np.uint64),  # where to look for it first
    ]
)
"""A token that waits to be looked up."""


class Tables(NamedTuple):
    """The arrays of `tokenize`."""

    data: Bytes  # the texts, UTF-8
    offsets: Offsets  # [N + 1] where each begins
    ends: Longs  # [N] receives the tokens up to the end of each
    place: Longs  # where it is: text, byte, tokens so far
    page_of: Shorts  # the grammar, see grammar.py
    classes: Bytes
    lower: Ints
    next_state: ByteGrid
    accepting: Flags
    joints: Bytes
    ring: Bytes  # lower-cased text that queued tokens lie in
    queue: Annotated[Array, QUEUED, 1]  # tokens whose slots are on their way from memory
    edges: Words  # where words of ASCII begin and end
    tokens: Words  # [W] receives the numbers of words
    spans: Longs  # [2 W] receives where they begin and end; empty where nobody asks


def joints() -> Array:
    """Returns flags by ASCII character: joins letters 1, digits 2; is a letter 4, a digit 8."""
    joints = np.zeros(128, np.uint8)
    for characters, kind in ((":.'", _LETTERS), (",;.'", _DIGITS)):
        for character in characters:
            joints[ord(character)] |= kind
    joints[ord("a") : ord("z") + 1] = _LETTERS << 2
    joints[ord("0") : ord("9") + 1] = _DIGITS << 2
    return joints


@kernel
def _follows(data: Array, i: Any) -> Any:
    return data[i] & 0xC0 == 0x80


@kernel
def _decode(data: Array, i: Any, end: Any) -> Any:
    """Returns the code point at `data[i]` and its bytes; a broken one is U+FFFD, one byte."""
    byte = U(data[i])
    if byte < U(0x80):
        return byte, U(1)
    if byte >= U(0xC0):
        if byte < U(0xE0):
            if i + U(2) <= end and _follows(data, i + U(1)):
                return (byte & U(0x1F)) << U(6) | U(data[i + U(1)]) & U(0x3F), U(2)
        elif byte < U(0xF0):
            if i + U(3) <= end and _follows(data, i + U(1)) and _follows(data, i + U(2)):
                tail = (U(data[i + U(1)]) & U(0x3F)) << U(6) | U(data[i + U(2)]) & U(0x3F)
                return (byte & U(0x0F)) << U(12) | tail, U(3)
        elif byte < U(0xF5) and i + U(4) <= end and _follows(data, i + U(1)):
            tail = (U(data[i + U(2)]) & U(0x3F)) << U(6) | U(data[i + U(3)]) & U(0x3F)
            code = (byte & U(7)) << U(18) | (U(data[i + U(1)]) & U(0x3F)) << U(12) | tail
            if code < U(0x110000) and _follows(data, i + U(2)) and _follows(data, i + U(3)):
                return code, U(4)
    return U(0xFFFD), U(1)


@kernel
def _encode(code: Any, out: Array, o: Any) -> Any:
    """Writes a code point as UTF-8 and returns where the next one goes."""
    if code < U(0x80):
        out[o] = np.uint8(code)
        return o + U(1)
    if code < U(0x800):
        out[o] = np.uint8(U(0xC0) | code >> U(6))
    else:
        if code < U(0x10000):
            out[o] = np.uint8(U(0xE0) | code >> U(12))
        else:
            out[o] = np.uint8(U(0xF0) | code >> U(18))
            o += U(1)
            out[o] = np.uint8(U(0x80) | code >> U(12) & U(0x3F))
        o += U(1)
        out[o] = np.uint8(U(0x80) | code >> U(6) & U(0x3F))
    out[o + U(1)] = np.uint8(U(0x80) | code & U(0x3F))
    return o + U(2)


@kernel
def match(tables: Tables, i: Any, end: Any, o: Any) -> Any:
    """Returns where to continue behind `data[i]`, and the end of the token put to `ring[o:]`.

    The second is `o` if no token begins here.
    """
    data, page_of, classes, lower = tables.data, tables.page_of, tables.classes, tables.lower
    next_state, accepting, out = tables.next_state, tables.accepting, tables.ring
    state = 1
    at, after, to, ends = i, i, o, o
    units = U(0)
    skip = U(1)
    while at < end:
        code, width = _decode(data, at, end)
        if at == i:
            skip = width
        units += U(2) if code > U(0xFFFF) else U(1)
        if units > U(LONGEST):
            break
        cell = U(page_of[code // U(PAGE)]) * U(PAGE) + code % U(PAGE)
        state = next_state[state, classes[cell]]
        if state == 0:
            break
        to = _encode(U(np.int64(code) + np.int64(lower[cell])), out, to)
        at += width
        if accepting[state]:
            after, ends = at, to
    if ends == o:
        return i + skip, o
    return after, ends


@kernel
def strip_possessive(out: Array, o: Any, ends: Any) -> Any:
    """Returns the end of a token without its 's."""
    if ends - o >= U(3) and out[ends - U(1)] == 115:
        if out[ends - U(2)] == 39:
            return ends - U(2)
        if ends - o >= U(5):
            a, b, c = out[ends - U(4)], out[ends - U(3)], out[ends - U(2)]
            if (a == 0xE2 and b == 0x80 and c == 0x99) or (a == 0xEF and b == 0xBC and c == 0x87):
                return ends - U(4)
    return ends


@kernel
def scan_ascii(data: Array, i: Any, stop: Any, ring: Array, base: Any, edges: Array) -> Any:
    """Lower-cases `data[i:stop]` into `ring[base:]` and notes where words begin and end.

    Returns the number of edges and the first position that is not ASCII, `stop` if all are.
    """
    count = U(0)
    carry = U(0)
    at = i
    readable = U(data.shape[0])
    while at < stop:
        to = base + (at - i)
        if at + U(32) <= readable:
            flags = classify_32(data, at, ring, to)
        else:
            for j in range(readable - at):
                ring[to + U(j)] = data[at + U(j)]
            flags = classify_32(ring, to, ring, to)
        left = stop - at
        valid = U(0xFFFFFFFF) if left >= U(32) else (U(1) << left) - U(1)
        word = flags & valid
        foreign = (flags >> U(32)) & valid
        changes = (word ^ (word << U(1) | carry)) & U(0xFFFFFFFF)
        carry = word >> U(31)
        while changes:
            edges[count] = np.uint32(at - i + trailing_zeros(changes))
            count += U(1)
            changes &= changes - U(1)
        if foreign:
            return count, at + trailing_zeros(foreign)
        at += U(32)
    edges[count] = np.uint32(stop - i)
    return count, stop
