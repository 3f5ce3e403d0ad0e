"""The page's source: nothing from elsewhere, no text as markup, the key nowhere but in memory."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from tests.serving.local import client

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


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_run_their_own_scripts_and_are_shown_in_no_other_page(path: str) -> None:
    answer = client().get(path)
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == policy["form-action"] == "'self'"
    for kind, element in (("script-src", "script"), ("style-src", "style")):
        inline = re.findall(rf"<{element}>(.*?)</{element}>", answer.text, re.DOTALL)
        assert answer.text.count(f"<{element}") == len(inline)
        hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()) for each in inline]
        expected = " ".join(f"'sha256-{each.decode()}'" for each in hashes) or "'none'"
        assert policy[kind] == expected
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
