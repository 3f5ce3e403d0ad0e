"""The site: it builds without a warning, needs nothing from outside, and lists every key."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from lxml import html

from docs.figures import CHARTS
from raydist.commands import VERBS
from raydist.config.schema import reference

ROOT = Path(__file__).resolve().parents[2]
LOADED = {"link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; `--strict` fails for a broken link, anchor, page or docstring."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        for element in html.parse(page).iter(*LOADED):
            source = element.get(LOADED[element.tag]) or ""
            own = element.tag == "link" and element.get("rel") == "canonical"
            assert own or not urlsplit(source).netloc, f"{page}: {source}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text()), style


def test_every_key_of_a_verb_is_on_its_page_with_its_bounds(site: Path) -> None:
    for verb in VERBS:
        page = html.parse(site / f"reference/verb/raydist-{verb}.html")
        config = getattr(importlib.import_module(f"raydist.commands.{verb}"), "Config", None)
        if config is None:
            continue
        text = "".join(page.getroot().itertext())
        missing = {row.key for row in reference(config)} - set(page.xpath("//code/text()"))
        assert missing == set(), verb
        assert all(row.bounds in text for row in reference(config))
    search = html.parse(site / "reference/verb/raydist-search.html").xpath("//tr[td/code='k']/td")
    assert [cell.text_content().strip() for cell in search[:3]] == ["k", "integer, ≥ 1", "1000"]


def test_the_search_knows_pages_and_keys(site: Path) -> None:
    entries = json.loads((site / "search/search_index.json").read_text())["docs"]
    text = {entry["location"]: entry["text"] for entry in entries}
    assert any("optim.lr" in text[place] for place in text if "raydist-train" in place)
    assert any(place.startswith("how-to/search.html") for place in text)


def test_pictures_stand_in_the_page_and_take_its_colour(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert page.count("<figure") >= 1 and "currentColor" in page
    for name in ("architecture", *CHARTS):
        drawn = (site / f"images/{name}.svg").read_text()
        assert drawn.startswith("<svg") and "prefers-color-scheme" in drawn


def test_the_page_of_reproduced_figures_has_what_was_measured(site: Path) -> None:
    page = html.parse(site / "reference/reproductions.html")
    rows = [[cell.text_content() for cell in row] for row in page.xpath("//tr[td]")]
    assert ["cacm", "bm25", "AP", "0.3123", "0.3123", "yes"] in rows
    assert {row[5] for row in rows} == {"yes"}
    assert "raydist reproduce dl19" in "".join(page.xpath("//code//text()"))
