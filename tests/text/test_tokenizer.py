"""The tokenizer against regular expressions, and its fast path against its general one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raydist.kernels.arrays import readonly
from raydist.text.string_table import StringTable
from raydist.text.tokenizer import Tokenizer
from tests.text import reference


def run(texts, possessive=True, words=None):
    tokenizer = Tokenizer(possessive=possessive, words=words)
    data = [text.encode() for text in texts]
    offsets = np.zeros(len(data) + 1, np.int64)
    offsets[1:] = np.cumsum([len(text) for text in data])
    tokens, ends = tokenizer(readonly(np.frombuffer(b"".join(data), np.uint8)), readonly(offsets))
    names = [name.decode() for name in tokenizer.words.strings().to_pylist()]
    starts = [0, *ends.tolist()]
    return [[names[t] for t in tokens[a:b].tolist()] for a, b in pairwise(starts)]


ASCII = st.text("abS019_:;.,'\"-# \n", max_size=60)
FRAGMENTS = [*"aS's01_:.,;' \n-\"#*éßİΣйאבת’＇·日ひカ한กข٣‿©", "\u00ad", "\u200d", "\u0301"]
FRAGMENTS += ["\ufe0f", "\ufe0e", "\u20e3", "👨", "👨🏽", "\U0001f1eb", "𐐀"]
MIXED = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)
LONG = st.builds(
    lambda head, unit, n, tail: head + unit * n + tail,
    st.sampled_from(["", "a ", "é ", "__", "'", "日"]),
    st.sampled_from(["a", "_", "1", "é", "𐐀", "a.", "1,", "_a", "カ", "ก", "x\u0301", "👨\u200d"]),
    st.integers(60, 300),
    st.sampled_from(["", "'s", "’s b", ":b", ".c d", "_", "\n"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(ASCII, MIXED, LONG), max_size=4), st.booleans())
@example(["it's its' s's x's 's S"], True)
@example(["aא' a_א' a.א' aא\"ב אב' א\"ב'ג"], False)
def test_words_are_those_of_the_regular_expression(texts, possessive):
    assert run(texts, possessive) == [reference.words(text, possessive) for text in texts]


@settings(max_examples=200, deadline=None)
@given(st.one_of(ASCII, LONG.filter(str.isascii)))
def test_the_fast_path_equals_the_general_one(text):
    # A no-break space parts words as a space does, but is not ASCII.
    general = "\u00a0" + "\u00a0".join(text.replace("\n", " ").split(" ")) + "\u00a0"
    assert run([general]) == run([text])


def test_long_texts_are_cut_into_blocks_without_a_trace():
    rng = np.random.default_rng(3)
    words = ["plain", "wörld", "it's", "a.b", "_", "日本", "x" * 300, "1,000", "е" * 400]
    text = " ".join(words[i] for i in rng.integers(0, len(words), 5000))
    assert run([text]) == [reference.words(text)]
    unbroken = text.replace(" ", "-")
    assert run([unbroken]) == [reference.words(unbroken)]


def test_texts_in_one_batch_do_not_touch_each_other():
    texts = ["ab", "cd", "", "é", "_", "a.", "b", "1,", "2", "’s"] * 500
    assert run(texts) == [reference.words(text) for text in texts]


def test_a_batch_may_end_where_its_memory_ends():
    for size in range(1, 70):
        text = "x" * (size - 1) + "y"
        assert run([text]) == [[text]]


def test_broken_utf8_is_skipped_without_harm():
    data = np.frombuffer(b"abc \xff\xc3 d\xe2\x82 \xf0\x9f e \xc3", np.uint8)
    tokenizer = Tokenizer(possessive=True)
    tokens, ends = tokenizer(readonly(data), readonly(np.array([0, len(data)])))
    names = tokenizer.words.strings().to_pylist()
    assert [names[t] for t in tokens.tolist()] == [b"abc", b"d", b"e"]
    assert ends.tolist() == [3]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\0", b"")), max_size=300))
def test_the_dictionary_numbers_strings_by_first_appearance(strings):
    dictionary = StringTable(capacity=8)
    numbers = []
    for part in (strings[::2], strings[1::2]):
        starts = np.zeros(len(part) + 1, np.uint64)
        starts[1:] = np.cumsum([len(s) for s in part])
        data = np.frombuffer(b"".join(part) + bytes(16), np.uint8)
        numbers += dictionary.add(data, starts).tolist()
    expected: dict[bytes, int] = {}
    numbers_expected = [
        expected.setdefault(s, len(expected)) if s else 0xFFFFFFFF
        for s in strings[::2] + strings[1::2]
    ]
    assert numbers == numbers_expected
    assert dictionary.strings().to_pylist() == list(expected)


@pytest.mark.parametrize("length", [7, 8, 9, 15, 16, 17, 24, 25, 255])
def test_the_dictionary_tells_apart_strings_that_differ_in_any_byte(length):
    base = bytes(range(1, 256))[:length]
    strings = [base[:i] + b"\xff" + base[i + 1 :] for i in range(length)] + [base, base[:-1]]
    strings = list(dict.fromkeys(s for s in strings if s))
    starts = np.zeros(len(strings) + 1, np.uint64)
    starts[1:] = np.cumsum([len(s) for s in strings])
    data = np.frombuffer(b"".join(strings) + bytes(16), np.uint8)
    dictionary = StringTable()
    assert dictionary.add(data, starts).tolist() == list(range(len(strings)))
    assert dictionary.add(data, starts).tolist() == list(range(len(strings)))
