"""Snippets: the window with the query's words, marked where they match."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raydist.text.analyzer import Analyzer
from raydist.text.snippets import highlight, snippet

TOKENS = Analyzer().tokens


def marked(text: str, query: str, width: int = 160) -> str:
    return highlight(*snippet(text, set(TOKENS(query)), TOKENS, width), "[", "]")


def test_words_match_by_their_stems_and_possessives():
    text = "The fox's dens, and foxes denning; a Fox!"
    assert marked(text, "fox den") == "The [fox's] [dens], and [foxes] [denning]; a [Fox]!"


def test_the_window_has_most_different_terms():
    text = "cat cat cat " + "filler " * 40 + "a cat chased the dog " + "filler " * 40
    result = marked(text, "cat dog", 60)
    assert "[cat] chased the [dog]" in result
    assert result.startswith("… ") and result.endswith(" …")


def test_a_text_without_matches_shows_its_beginning_and_line_ends_are_blanks():
    assert marked("one\ntwo " + "three " * 50, "nothing", 20) == "one two three three …"
    assert marked("", "nothing") == ""


@given(st.text(max_size=300), st.text(max_size=30), st.integers(1, 100))
def test_spans_are_in_order_within_the_snippet_and_hold_matching_words(text, query, width):
    terms = set(TOKENS(query))
    cut, spans = snippet(text, terms, TOKENS, width)
    assert len(cut) <= width + 4
    at = 0
    for start, end in spans:
        assert at <= start < end <= len(cut)
        assert terms & set(TOKENS(cut[start:end]))
        at = end
