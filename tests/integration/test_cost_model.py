"""The cost model: which parts shrink with workers, which grow faster than the corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cost import (
    MS_MARCO_V2,
    RANGE,
    Collection,
    Nodes,
    Rates,
    Search,
    embed_seconds,
    estimates,
    index_seconds,
    raylets,
    tables,
)

RATES = Rates(10.0, 4e6, 2e-8, 1e-3, 1e-8, 2000.0)
SMALL = Collection(
    documents=1 << 20, nbytes=1 << 30, postings=25 * RANGE, tokens=4e7, split_bytes=1 << 26
)


def test_the_parts_follow_the_formula() -> None:
    parts = index_seconds(RATES, SMALL, 4)
    assert parts["start"] == 10
    assert parts["splits"] == (1 << 30) / 16e6
    assert parts["merge"] == pytest.approx(25 * RANGE * 2e-8 / 4)
    assert parts["looking"] == pytest.approx(25 * 16 * 1e-3 / 4)
    assert parts["ids"] == pytest.approx(1e-8 * (1 << 20) * 20)
    assert embed_seconds(RATES, SMALL, 4) == {"start": 10.0, "encode": 4e7 / 8000}


def test_more_workers_than_splits_do_not_help_the_splits() -> None:
    assert index_seconds(RATES, SMALL, 16)["splits"] == index_seconds(RATES, SMALL, 99)["splits"]


def test_looking_grows_with_the_square_and_ids_slightly_faster_than_the_corpus() -> None:
    grown = replace(SMALL, documents=1 << 21, nbytes=1 << 31, postings=50 * RANGE)
    before, after = (index_seconds(RATES, each, 4) for each in (SMALL, grown))
    for part in ("splits", "merge"):
        assert after[part] == pytest.approx(2 * before[part])
    assert after["looking"] == pytest.approx(4 * before["looking"])
    assert after["ids"] == pytest.approx(2 * before["ids"] * 21 / 20)


def test_the_large_collection_is_the_published_one() -> None:
    assert MS_MARCO_V2.documents == 138_364_198 and 900 < MS_MARCO_V2.splits < 1100


def test_a_billion_passages_cost_what_the_formulas_say() -> None:
    search = Search(2.0, {10: 1e-9}, 4e-7, 1e-7, 100.0, (200.0, 210.0))
    corpus = replace(SMALL, documents=64e6)
    nodes = Nodes(count=64, workers=16, dollars_per_hour=1.0, round_s=1e-3, dimension=96)
    text, vectors = estimates(RATES, search, corpus, nodes)
    parts = index_seconds(RATES, corpus, 1024)
    assert text.build_h * 3600 == pytest.approx(sum(parts.values()) - parts["ids"] + 100)
    assert text.build_dollars == pytest.approx(64 * text.build_h)
    assert text.node_gb == pytest.approx(25 * RANGE * 2 / 64 / 1e9)
    assert text.latency_ms == pytest.approx(1 + 2)  # 10^6 documents of a nanosecond, two rounds
    assert text.queries_per_s == pytest.approx(16 / 1e-3)
    assert vectors.build_h * 3600 == pytest.approx(10 + 4e7 / 2000 / 1024)
    assert (vectors.node_gb, vectors.disk_gb) == pytest.approx((0.1, 0.192))
    assert vectors.latency_ms == pytest.approx(400 / 16 + 1)
    assert vectors.queries_per_s == pytest.approx(16 / 0.1)
    assert vectors.dollars_per_million == pytest.approx(1e6 / 160 / 3600 * 64)


def test_the_page_says_what_is_measured_and_what_is_assumed() -> None:
    text = tables()
    assert "nan" not in text and "| measured | is |" in text and "| assumed | is |" in text
    assert "| 8 nodes |" in raylets() and "nan" not in raylets()
    page = Path(__file__).resolve().parents[2] / "docs/how-to/cluster.md"
    text = page.read_text(encoding="utf-8")
    assert "<!-- cost -->" in text and "<!-- raylets -->" in text
