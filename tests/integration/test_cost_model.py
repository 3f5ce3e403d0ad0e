"""The cost model: which parts shrink with workers, which grow faster than the corpus."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.cost import MS_MARCO_V2, RANGE, Collection, Rates, embed_seconds, index_seconds

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
