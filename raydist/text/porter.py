"""Lucene's English stemmer, as a kernel over distinct words.

M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, with the author's two later
departures (`bli` to `ble`, `logi` to `log`) and words of one or two letters untouched. A letter is
a UTF-16 unit, as in Lucene; all but a, e, i, o, u and some y are consonants.

Legend: S words, H bytes, L letters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64

# Steps 2 to 4: the least measure of the stem, and the rules, of which the longest suffix applies.
_SUFFIXES = (
    (
        1,
        "ational:ate tional:tion enci:ence anci:ance izer:ize bli:ble alli:al entli:ent eli:e "
        "ousli:ous ization:ize ation:ate ator:ate alism:al iveness:ive fulness:ful ousness:ous "
        "aliti:al iviti:ive biliti:ble logi:log",
    ),
    (1, "icate:ic ative: alize:al iciti:ic ical:ic ful: ness:"),
    (
        2,
        "al: ance: ence: er: ic: able: ible: ant: ement: ment: ent: sion:s tion:t ou: ism: ate: "
        "iti: ous: ive: ize:",
    ),
)
_WIDEST = 8


def _rule_table() -> tuple[Array, Array]:
    """Returns the rules, longest suffix first within a step, and where those of a letter begin.

    A rule is uint8 [20]: bytes of suffix, bytes of replacement, least measure, 0, then both. Rules
    of step k whose suffix has the letter l before its last one are `first[27 k + l] ..
    first[27 k + l + 1]`.
    """
    rows: list[list[int]] = []
    first = []
    for least, listed in _SUFFIXES:
        pairs = [rule.split(":") for rule in listed.split()]
        for letter in "abcdefghijklmnopqrstuvwxyz":
            first.append(len(rows))
            chosen = sorted((p for p in pairs if p[0][-2] == letter), key=lambda p: -len(p[0]))
            for suffix, after in chosen:
                row = [len(suffix), len(after), least, 0]
                row += [*suffix.encode(), *[0] * (_WIDEST - len(suffix))]
                rows.append([*row, *after.encode(), *[0] * (_WIDEST - len(after))])
        first.append(len(rows))
    return np.array(rows, np.uint8), np.array(first, np.int64)


RULES = _rule_table()
"""The rules as `stem_words` takes them."""
_A, _B, _D, _E, _G, _I, _L, _N, _O, _S, _T, _U, _W, _X, _Y, _Z = (
    ord(letter) for letter in "abdegilnostuwxyz"
)


@kernel
def _note(word: Array, vowels: Array, measure: Array, start: Any, end: Any) -> None:
    """Notes for the letters from `start` on whether they are vowels, and the measure up to them."""
    for i in range(start, end):
        c = word[i]
        if c == _Y:
            vowel = i > 0 and not vowels[i - 1]
        else:
            vowel = c in (_A, _E, _I, _O, _U)
        vowels[i] = vowel
        if i == 0:
            measure[i] = 0
        else:
            measure[i] = measure[i - 1] + (1 if vowels[i - 1] and not vowel else 0)


@kernel
def _has_vowel(vowels: Array, end: Any) -> Any:
    for i in range(end):  # noqa: SIM110 - numba has no any()
        if vowels[i]:
            return True
    return False


@kernel
def _double(word: Array, vowels: Array, end: Any) -> Any:
    """Returns whether the word ends in a double consonant."""
    return end >= 2 and word[end - 1] == word[end - 2] and not vowels[end - 1]


@kernel
def _short(word: Array, vowels: Array, end: Any) -> Any:
    """Returns whether the word ends consonant, vowel, consonant other than w, x, y."""
    if end < 3 or vowels[end - 1] or not vowels[end - 2] or vowels[end - 3]:
        return False
    c = word[end - 1]
    return c != _W and c != _X and c != _Y


@kernel
def _stem(
    word: Array, end: Any, vowels: Array, measure: Array, rules: Array, rule_first: Array
) -> Any:
    """Stems `word[:end]` in place and returns its new end."""
    _note(word, vowels, measure, 0, end)
    # Step 1a
    if word[end - 1] == _S:
        if word[end - 2] == _S:
            pass
        elif word[end - 2] == _E and (
            word[end - 3] == _I or (end >= 4 and word[end - 3] == _S and word[end - 4] == _S)
        ):
            end -= 2
        else:
            end -= 1
    # Step 1b
    last, before = word[end - 1], word[end - 2]
    cut = 0
    if end >= 3 and last == _D and before == _E and word[end - 3] == _E:
        if end >= 4 and measure[end - 4] > 0:
            end -= 1
    elif end >= 3 and last == _D and before == _E:
        cut = 2
    elif end >= 4 and last == _G and before == _N and word[end - 3] == _I:
        cut = 3
    if cut and _has_vowel(vowels, end - cut):
        end -= cut
        last = word[end - 1]
        before = word[end - 2] if end >= 2 else last
        grow = False
        if end >= 2 and (
            (last == _T and before == _A)
            or (last == _L and before == _B)
            or (last == _Z and before == _I)
        ):
            grow = True
        elif _double(word, vowels, end):
            if last != _L and last != _S and last != _Z:
                end -= 1
        elif measure[end - 1] == 1 and _short(word, vowels, end):
            grow = True
        if grow:
            word[end] = _E
            _note(word, vowels, measure, end, end + 1)
            end += 1
    # Step 1c
    if word[end - 1] == _Y and _has_vowel(vowels, end - 1):
        word[end - 1] = _I
        _note(word, vowels, measure, end - 1, end)
    # Steps 2 to 4
    for step in range(3):
        if end < 2:
            break
        letter = np.int64(word[end - 2]) - _A
        if letter < 0 or letter >= 26:
            continue
        for r in range(rule_first[27 * step + letter], rule_first[27 * step + letter + 1]):
            size = np.int64(rules[r, 0])
            stem = end - size
            if stem < 0:
                continue
            same = True
            for i in range(size):
                if word[stem + i] != rules[r, 4 + i]:
                    same = False
                    break
            if same:
                # The first letter of sion and tion belongs to the stem.
                base = stem + 1 if step == 2 and rules[r, 1] else stem
                if base > 0 and measure[base - 1] >= rules[r, 2]:
                    more = np.int64(rules[r, 1])
                    for i in range(more):
                        word[stem + i] = rules[r, 4 + _WIDEST + i]
                    end = stem + more
                    _note(word, vowels, measure, stem, end)
                break
    # Step 5
    if word[end - 1] == _E:
        m = measure[end - 1]
        if m > 1 or (m == 1 and not _short(word, vowels, end - 1)):
            end -= 1
    if word[end - 1] == _L and _double(word, vowels, end) and measure[end - 1] > 1:
        end -= 1
    return end


@kernel
def stem_words(
    data_H: Array, starts_S1: Array, rules: Array, rule_first: Array, out: Array, out_starts: Array
) -> None:
    """Writes the stems of the words `data[starts[s] : starts[s + 1]]`, UTF-8 in and out.

    A stem is at most a byte longer than its word: `out` needs H + S bytes and 4 more.
    """
    word = np.empty(800, np.uint16)
    vowels = np.empty(800, np.bool_)
    measure = np.empty(800, np.int32)
    o = U(0)
    out_starts[0] = 0
    for s in range(starts_S1.shape[0] - 1):
        start, stop = U(starts_S1[s]), U(starts_S1[s + 1])
        count = 0
        plain = True
        i: Any = start
        while i < stop:
            byte = data_H[i]
            if byte < 0x80:
                word[count] = byte
                count += 1
            else:
                plain = False
                if byte >= 0xF0:  # two units
                    code = np.uint32(byte & 7) << np.uint32(18)
                    code |= np.uint32(data_H[i + U(1)] & 0x3F) << np.uint32(12)
                    code |= np.uint32(data_H[i + U(2)] & 0x3F) << np.uint32(6)
                    code |= np.uint32(data_H[i + U(3)] & 0x3F)
                    code -= np.uint32(0x10000)
                    word[count] = np.uint16(0xD800 + (code >> 10))
                    word[count + 1] = np.uint16(0xDC00 + (code & 0x3FF))
                    count += 2
                    i += U(3)
                elif byte >= 0xE0:
                    high = np.uint16(byte & 15) << 12 | np.uint16(data_H[i + U(1)] & 0x3F) << 6
                    word[count] = np.uint16(high | (data_H[i + U(2)] & 0x3F))
                    count += 1
                    i += U(2)
                else:
                    word[count] = np.uint16((byte & 31) << 6 | (data_H[i + U(1)] & 0x3F))
                    count += 1
                    i += U(1)
            i += U(1)
        end = count
        if count > 2:
            end = _stem(word, count, vowels, measure, rules, rule_first)
        if plain:
            for j in range(end):
                out[o + U(j)] = word[j]
            o += U(end)
        else:
            # Only ASCII letters at the end of a word can have changed.
            same = 0
            i = start
            while i < stop and same < end:
                byte = data_H[i]
                units, width = 1, 1
                if byte >= 0xF0:
                    units, width = 2, 4
                elif byte >= 0xE0:
                    width = 3
                elif byte >= 0x80:
                    width = 2
                elif byte != word[same]:
                    break
                for _ in range(width):
                    out[o] = data_H[i]
                    o += U(1)
                    i += U(1)
                same += units
            for j in range(same, end):
                out[o] = word[j]
                o += U(1)
        out_starts[s + 1] = o
