"""Lines of `{"id": ..., "vector": {term: weight}}` without a Python object for each weight.

A kernel reads lines as most programs write them: no escapes in strings, no negative numbers, ids
that are strings. It stops at any other line, which Python's parser then reads, or refuses.

Legend: N documents, P entries.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raydist.kernels.addresses import Offsets, Words, view
from raydist.kernels.jit import inlined, kernel
from raydist.text.string_table import PAD, TableArrays, add, hash_keys, read_keys

Array = npt.NDArray[Any]
U = np.uint64

# Outcomes: all lines are read; there is no more room; the next line is for Python's parser.
DONE, FULL, UNUSUAL = 0, 1, 2

_QUOTE, _BACKSLASH, _COLON, _COMMA = 0x22, 0x5C, 0x3A, 0x2C
_OPEN, _CLOSE, _NEWLINE, _RETURN = 0x7B, 0x7D, 0x0A, 0x0D
_ZERO, _POINT, _PLUS, _MINUS = 0x30, 0x2E, 0x2B, 0x2D
_EXACT = U(1 << 53)  # whole numbers up to here are exact in double
_POWERS = np.array([10.0**n for n in range(23)])
_POWERS.flags.writeable = False
_WORD_END = 4_294_967_295.0
_BAD = np.nan
_VECTOR = np.frombuffer(b"vector", np.uint8)


class Lines(NamedTuple):
    """What `read_lines` writes."""

    state: Offsets  # documents so far, entries so far, lines tried so far
    spans: Annotated[Array, np.int64, 2]  # [N, 2] where ids begin and end
    indptr: Offsets  # [N + 1] where documents' entries end
    terms: Words  # [P] numbers of terms
    impacts: Words  # [P] 0 for weights that round to it
    seen: Offsets  # which line tried a term last, by its number


@inlined
def _blanks(data: Array, at: Any) -> Any:
    while data[at] == 0x20 or data[at] == 0x09:
        at += U(1)
    return at


@inlined
def _string(data: Array, at: Any) -> Any:
    """Returns where the string behind the quote at `at` ends; `at` itself for one with escapes."""
    end = at + U(1)
    while data[end] != _QUOTE:
        if data[end] == _BACKSLASH or data[end] < 0x20:
            return at
        end += U(1)
    return end


@kernel
def _number(data: Array, at: Any) -> Any:
    """Returns a number's value, where it ends, and whether it is as Python reads it to the bit.

    The value is NaN for what is no number of this kind.
    """
    mantissa: Any = U(0)
    digits: Any = 0
    scale: Any = 0
    exponent: Any = 0
    start = at
    while _ZERO <= data[at] <= _ZERO + 9:
        if digits < 19:
            mantissa = mantissa * U(10) + U(data[at] - _ZERO)
            digits += mantissa > U(0)
        else:
            scale += 1
        at += U(1)
    if at == start or (data[start] == _ZERO and at > start + U(1)):
        return _BAD, at, False
    if data[at] == _POINT:
        at += U(1)
        start = at
        while _ZERO <= data[at] <= _ZERO + 9:
            if digits < 19:
                mantissa = mantissa * U(10) + U(data[at] - _ZERO)
                digits += mantissa > U(0)
                scale -= 1
            at += U(1)
        if at == start:
            return _BAD, at, False
    if data[at] == 0x65 or data[at] == 0x45:
        at += U(1)
        negative = data[at] == _MINUS
        if negative or data[at] == _PLUS:
            at += U(1)
        start = at
        while _ZERO <= data[at] <= _ZERO + 9 and exponent < 1000:
            exponent = exponent * 10 + np.int64(data[at] - _ZERO)
            at += U(1)
        if at == start or exponent >= 1000:
            return _BAD, at, False
        scale += -exponent if negative else exponent
    value = np.float64(mantissa)
    if mantissa == U(0):
        return 0.0, at, True
    if not -22 <= scale <= 22:
        return _BAD, at, False
    value = value / _POWERS[-scale] if scale < 0 else value * _POWERS[scale]
    return value, at, mantissa <= _EXACT


@kernel
def read_lines(
    data: Array,
    at: Any,
    end: Any,
    unit: Any,
    lines: Array,
    words: Array,
    shift: Any,
) -> Any:
    """Reads whole lines of `data[at : end]` and returns an outcome and where it stopped.

    Args:
        data: text, with PAD zeros behind the end.
        at: where a line begins.
        end: behind the last line's newline, or the end of the text.
        unit: the weight of an impact of 1.
        lines: addresses of `Lines`.
        words: addresses of the table of terms (`TableArrays`).
        shift: of the table.
    """
    out = view(lines, U(0), Lines)
    state, spans_N2, indptr_N1 = out.state, out.spans, out.indptr
    terms_P, impacts_P, seen = out.terms, out.impacts, out.seen
    table = view(words, U(0), TableArrays)
    used, room = table.used, U(table.heap.shape[0])
    at, end = U(at), U(end)
    half = U(table.slots.shape[0] >> 3)
    while at < end:
        line = at
        row, filled = state[0], state[1]
        state[2] += 1
        attempt = state[2]
        at = _blanks(data, at)
        if at >= end or data[at] == _NEWLINE or data[at] == _RETURN:
            at = min(at + U(1), end)
            continue
        if row == spans_N2.shape[0]:
            return FULL, line
        if data[at] != _OPEN:
            return UNUSUAL, line
        at += U(1)
        has_id, has_vector = False, False
        while True:
            at = _blanks(data, at)
            if data[at] != _QUOTE:
                return UNUSUAL, line
            close = _string(data, at)
            is_id = close == at + U(3) and data[at + U(1)] == 0x69 and data[at + U(2)] == 0x64
            is_vector = close == at + U(7)
            for i in range(6):
                is_vector = is_vector and data[at + U(1 + i)] == _VECTOR[i]
            if not (is_id and not has_id) and not (is_vector and not has_vector):
                return UNUSUAL, line
            at = _blanks(data, close + U(1))
            if data[at] != _COLON:
                return UNUSUAL, line
            at = _blanks(data, at + U(1))
            if is_id:
                has_id = True
                if data[at] != _QUOTE:
                    return UNUSUAL, line
                close = _string(data, at)
                if close <= at + U(1):
                    return UNUSUAL, line
                spans_N2[row, 0], spans_N2[row, 1] = np.int64(at) + 1, np.int64(close)
                at = close + U(1)
            else:
                has_vector = True
                if data[at] != _OPEN:
                    return UNUSUAL, line
                at = _blanks(data, at + U(1))
                while data[at] != _CLOSE:
                    if data[at] != _QUOTE:
                        return UNUSUAL, line
                    close = _string(data, at)
                    if close <= at + U(1):
                        return UNUSUAL, line
                    first, length = at + U(1), close - at - U(1)
                    if (
                        filled == terms_P.shape[0]
                        or used[0] >= half
                        or used[1] + length + U(PAD) > room
                    ):
                        return FULL, line
                    a, b = read_keys(data, first, length)
                    slot = hash_keys(a, b) >> shift
                    term = add(data, first, length, a, b, slot, table)
                    if seen[term] == attempt:
                        return UNUSUAL, line
                    seen[term] = attempt
                    at = _blanks(data, close + U(1))
                    if data[at] != _COLON:
                        return UNUSUAL, line
                    at = _blanks(data, at + U(1))
                    value, at, exact = _number(data, at)
                    impact = value / unit
                    near_half = abs(impact - np.floor(impact) - 0.5) < 1e-6
                    if np.isnan(value) or (near_half and not exact) or impact >= _WORD_END:
                        return UNUSUAL, line
                    terms_P[filled] = np.uint32(term)
                    impacts_P[filled] = np.uint32(np.rint(impact))
                    filled += 1
                    at = _blanks(data, at)
                    if data[at] == _COMMA:
                        at = _blanks(data, at + U(1))
                        if data[at] == _CLOSE:
                            return UNUSUAL, line
                    elif data[at] != _CLOSE:
                        return UNUSUAL, line
                at += U(1)
            at = _blanks(data, at)
            if data[at] == _CLOSE:
                break
            if data[at] != _COMMA:
                return UNUSUAL, line
            at += U(1)
        at = _blanks(data, at + U(1))
        if data[at] == _RETURN:
            at += U(1)
        if not (has_id and has_vector) or (at < end and data[at] != _NEWLINE):
            return UNUSUAL, line
        at = min(at + U(1), end)
        state[0] = row + 1
        state[1] = filled
        indptr_N1[row + 1] = filled
    return DONE, at
