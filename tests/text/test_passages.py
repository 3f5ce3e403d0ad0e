"""Passages: exact spans in any script, chosen as Lucene's UnifiedHighlighter chooses."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.text.analyzer import Analyzer
from raydist.text.passages import highlighted, passages

ENGLISH = Analyzer()
CHARACTERS = "aAbBsS'’.,:_-01 \n😀Éßİıſ\u00adΣσςกขあア漢한글e\u0301ﬁǅ\u200d\ud800ש\"＇"


def marked(text: str, query: str, analyzer: Analyzer = ENGLISH, **options: int) -> list[str]:
    results = []
    for passage in passages(text, query, analyzer, **options):
        shown, at = "", passage.start
        for start, end in passage.matches:
            shown += f"{text[at:start]}[{text[start:end]}]"
            at = end
        results.append(shown + text[at : passage.end])
    return results


@pytest.mark.parametrize(
    ("analyzer", "text", "query", "expected"),
    [
        (ENGLISH, "The fox's dens; denning.", "fox den", "The [fox's] [dens]; [denning]."),
        (ENGLISH, "<b>Fox</b> & foxy fox_a <fox", "foxes", "<b>[Fox]</b> & foxy fox_a <[fox]"),
        (ENGLISH, "😀😀 İfox FOX 3.14 of the", "fox 3.14 the", "😀😀 İfox [FOX] [3.14] of the"),
        (Analyzer("german", "snowball"), "Die Häuser; Fluß", "HAUS fluß", "Die [Häuser]; [Fluß]"),
        (Analyzer("russian", "snowball"), "Старые книги", "книга", "Старые [книги]"),
        (Analyzer("french", "snowball"), "cafe\u0301, cheval", "chevals", "cafe\u0301, [cheval]"),
        (Analyzer("greek", "none"), "ΟΔΟΣ οδός", "οδοσ", "[ΟΔΟΣ] οδός"),
        (Analyzer("japanese", "none"), "東京は都", "京都", "東[京]は[都]"),
        (Analyzer("thai", "none"), "สวัสดีโลก hello", "hello", "สวัสดีโลก [hello]"),
    ],
)  # fmt: skip
def test_words_match_as_in_a_search(
    analyzer: Analyzer, text: str, query: str, expected: str
) -> None:
    assert marked(text, query, analyzer) == [expected]


@given(st.text(CHARACTERS, max_size=30))
def test_words_have_the_terms_and_order_of_the_analyzer(text: str) -> None:
    at, terms = 0, []
    for start, end, word in ENGLISH.words(text):
        assert at <= start < end <= len(text)
        assert ENGLISH.tokens(text[start:end]) == ENGLISH.tokens(word)
        terms += ENGLISH.tokens(word)
        at = end
    assert terms == ENGLISH.tokens(text)


TEXT = "Rain falls. Snow falls on hills. It is cold. Rain and snow fall! The end."


def test_the_best_sentences_come_in_the_order_of_the_text() -> None:
    assert marked(TEXT, "rain snow", length=20) == ["[Rain] and [snow] fall!"]
    assert marked(TEXT, "rain snow hill", length=26, number=2) == [
        "[Snow] falls on [hills].",
        "[Rain] and [snow] fall!",
    ]
    assert marked(TEXT, "hill", length=45) == ["Snow falls on [hills]. It is cold."]
    assert marked("", "rain") == [] == marked(" \n ", "rain")
    assert marked(TEXT, "nothing", length=20) == ["Rain falls. Snow"]


def test_a_passage_scores_as_lucenes() -> None:
    """Its PassageScorer: k1 1.2, b .75, pivot 87, written out."""
    (passage,) = passages(TEXT, "rain snow", ENGLISH, length=26)
    start, size = TEXT.index("Rain and"), len("Rain and snow fall!")
    assert (passage.start, passage.end) == (start, start + size)
    weight = 2.2 * math.log(1 + (1 + 0.5) / (2 + 0.5))  # each term twice in the text
    tf = 1 / (1 + 1.2 * (0.25 + 0.75 * size / 87))
    norm = 1 + 1 / math.log(87 + start)
    assert passage.score == pytest.approx(norm * 2 * weight * tf)


def test_a_long_sentence_is_cut_around_its_matches_between_words() -> None:
    text = "word " * 100 + "a fox jumps " + "word " * 100
    ((shown),) = marked(text, "fox jump", length=60)
    assert shown.startswith("word ") and shown.endswith(" word") and "a [fox] [jumps] w" in shown
    (passage,) = passages("x" * 300 + " fox", "fox", ENGLISH, length=40)
    assert passage.matches == ((301, 304),) and passage.end == 304


@given(st.text(CHARACTERS, max_size=120), st.text(CHARACTERS, max_size=12), st.integers(1, 50))
def test_passages_do_not_overlap_and_hold_their_matches(text: str, query: str, length: int) -> None:
    at = 0
    for passage in passages(text, query, ENGLISH, number=3, length=length):
        assert at <= passage.start < passage.end <= len(text)
        assert passage.end - passage.start <= length
        inside = passage.start
        for start, end in passage.matches:
            assert inside <= start < end <= passage.end
            inside = end
        at = passage.end


def test_a_highlighted_passage_is_one_line_with_marks_around_the_querys_words() -> None:
    text = "Nothing here.\n\nThe herons\nfished in the canal. " + "More text follows it. " * 20
    line = highlighted(text, "heron canals", ENGLISH, ("<", ">"), 40)
    assert line == "… The <herons> fished in the <canal>. …"
    assert highlighted("short", "heron", ENGLISH, ("<", ">")) == "short"
    assert highlighted("", "heron", ENGLISH, ("<", ">")) == ""


def test_a_small_letter_behind_several_blanks_continues_a_sentence() -> None:
    assert marked("Cf.  a heron. Fish.", "heron", length=15) == ["Cf.  a [heron]."]
    assert marked("Fish.\n\na heron. Fish.", "heron", length=12) == ["a [heron]."]


@pytest.mark.parametrize(
    "text",
    [
        "heron fish " * 25_000,
        "Heron fish. " * 25_000,
        " ".join(f"w{number}" for number in range(50_000)),
        "heron" + " " * 100_000 + "fish",
        "heron" + "." * 100_000 + "fish",
        "heron \n" * 25_000,
    ],
    ids=["one sentence", "sentences", "distinct words", "blanks", "stops", "lines"],
)
def test_the_time_of_snippets_is_linear_in_the_text(text: str) -> None:
    """A quadratic one takes seconds; the limit allows for a busy machine."""
    start = time.process_time()
    best = passages(text, "heron fish w7 w9", ENGLISH, number=3, length=200)
    assert best and time.process_time() - start < 1
