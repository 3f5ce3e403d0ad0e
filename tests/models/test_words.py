"""Ids looked up word by word are the tokenizer's, whatever the text and wherever it is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from raydist.models.texts import words
from raydist.models.texts.tokens import TextTokenizer
from raydist.models.texts.words import Words, works_by_words

ODD = "\x00\x0b\x0c\x1c\x1f\x85\xa0\xad\u1680\u180e\u200b\u2028\u2029\u3000\ufeff\ufffd\U000e0001"
WORDS = (
    *("the", "naïve", "İstanbul", "ΣΑΣ", "e\u0301", "\u0301", "漢字", "x" * 101, "3.14", "don't"),
    *("[SEP]", "[MASK]", "[cls]", "unaffable", "🙂", "ﬁ", "a\u200db", "##ing"),
)
PIECES = st.sampled_from([*ODD, *" \t\n\r.,-'", *WORDS])
LENGTHS = (2, 3, 8, 12, 30)
TEXT = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=60))


@pytest.fixture(scope="module")
def tokenizer(minilm: Path):
    return AutoTokenizer.from_pretrained(str(minilm))


@pytest.fixture(scope="module")
def pairs(tokenizer) -> dict[int, tuple[Tokenizer, TextTokenizer]]:
    """The tokenizer itself and ours, by where they cut."""
    both = {}
    for length in LENGTHS:
        clone = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        clone.no_padding()
        clone.enable_truncation(length)
        ours = TextTokenizer(tokenizer, max_length=length, instruction="query: ")
        assert ours._words is not None
        both[length] = (clone, ours)
    return both


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=4), length=st.sampled_from(LENGTHS))
@example(texts=["\u200b " * 40 + "the end"], length=8)
@example(texts=["a\x0cb " * 9 + "[SE\x0bP]", ""], length=12)
def test_ids_are_the_tokenizer_s_own(pairs, texts, length):
    clone, ours = pairs[length]
    for instruction, before in ((None, "query: "), ("", ""), ("and", "and")):
        expected = clone.encode_batch_fast([before + text for text in texts])
        assert ours(texts, instruction) == [encoding.ids for encoding in expected]


def test_words_are_forgotten_when_they_are_many(tokenizer, monkeypatch):
    monkeypatch.setattr(words, "_MOST_CHARACTERS", 40)
    clone = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    clone.no_padding()
    clone.no_truncation()
    ours = Words(clone)
    for i in range(30):
        text = f"word{i} and another{i}"
        assert ours([text], 50) == [clone.encode(text, add_special_tokens=False).ids]
    assert len(ours._ids) < 12


def test_tokenizers_whose_words_depend_on_their_neighbours_are_left_alone(tokenizer, tiny_qwen):
    def parts(spaced: bool) -> Tokenizer:
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.add_tokens(["two words"] if spaced else ["oneword"])
        return backend

    assert works_by_words(parts(False)) and not works_by_words(parts(True))
    assert not works_by_words(AutoTokenizer.from_pretrained(str(tiny_qwen)).backend_tokenizer)
