"""The cost model's arithmetic: what falls with workers, what grows faster than the corpus."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.cost import MS_MARCO_V2, Collection, Rates, embed_seconds, fit_merge, index_seconds

RATES = Rates(10.0, 4e6, 2e-8, 1e-9, 1e-8, 2000.0)
SMALL = Collection(documents=1 << 20, nbytes=1 << 30, postings=1e8, tokens=4e7, split_bytes=1 << 26)


def test_the_parts_are_those_of_the_formula() -> None:
    parts = index_seconds(RATES, SMALL, 4)
    assert parts["start"] == 10
    assert parts["splits"] == (1 << 30) / 16e6
    assert parts["merge"] == pytest.approx(1e8 * (2e-8 + 4 * 1e-9) / 4)  # 16 splits: log2 is 4
    assert parts["ids"] == pytest.approx(1e-8 * (1 << 20) * 20)
    assert embed_seconds(RATES, SMALL, 4) == {"start": 10.0, "encode": 4e7 / 8000}


def test_more_workers_than_splits_do_not_help_the_splits() -> None:
    assert index_seconds(RATES, SMALL, 16)["splits"] == index_seconds(RATES, SMALL, 99)["splits"]


def test_the_merge_and_the_ids_grow_faster_than_the_corpus_and_the_splits_do_not() -> None:
    grown = replace(SMALL, documents=1 << 21, nbytes=1 << 31, postings=2e8)
    before, after = (index_seconds(RATES, each, 4) for each in (SMALL, grown))
    assert after["splits"] == 2 * before["splits"]
    assert after["merge"] > 2 * before["merge"] and after["ids"] > 2 * before["ids"]


def test_the_merges_rates_are_found_again() -> None:
    splits = [8, 32, 128]
    seconds = [1e8 * (2e-8 + 1e-9 * math.log2(each)) for each in splits]
    assert fit_merge(splits, seconds, 1e8) == pytest.approx((2e-8, 1e-9))


def test_the_large_collection_is_the_published_one() -> None:
    assert MS_MARCO_V2.documents == 138_364_198 and 900 < MS_MARCO_V2.splits < 1100
