"""The page's source: nothing from elsewhere, no text as markup, the key nowhere but in memory."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2].joinpath("raydist/serving/page.html").read_text("utf-8")


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert not re.search(r"https?://|//cdn|@import|\burl\(|\bsrc=|<link", PAGE)


def test_texts_are_never_markup_and_the_key_stays_in_memory() -> None:
    forbidden = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(")
    assert not [word for word in (*forbidden, "Storage", "cookie", " style=") if word in PAGE]
    assert not re.search(r"<[^>]+\son\w+=", PAGE)


def test_every_field_has_a_label() -> None:
    for name in re.findall(r"<(?:input|textarea)[^>]*\bid=\"(\w+)\"", PAGE):
        assert f'<label for="{name}">' in PAGE
