"""The room in a few lines: terms as Lucene makes them, other languages, batches, snippets."""

from __future__ import annotations

import pyarrow as pa

from raydist.text.analyzer import Analyzer
from raydist.text.passages import highlighted


def test_texts_become_terms_and_matches_are_highlighted() -> None:
    analyzer = Analyzer()
    assert analyzer.tokens("The heron's fishing in O'Fallon") == [
        "heron",
        "fish",
        "o'fallon",
    ]
    german = Analyzer(language="german", stemmer="snowball")
    assert german.tokens("Die Reiher fischten") == ["die", "reih", "fischt"]

    lexicon = analyzer.lexicon()  # for many texts: numbers of distinct terms
    numbers, lengths = lexicon(pa.array(["herons fish", "fish fish"]))
    assert numbers.tolist() == [0, 1, 1, 1] and lengths.tolist() == [2, 2]
    assert lexicon.terms.strings().to_pylist() == [b"heron", b"fish"]

    text = "At dawn the herons are fishing."
    assert (
        highlighted(text, "heron fish", analyzer, ("*", "*"))
        == "At dawn the *herons* are *fishing*."
    )
