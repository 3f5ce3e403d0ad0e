"""Formulas against closed forms, other implementations and recorded values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25L, BM25Okapi, BM25Plus

from raydist.bow import formulas
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import Bm25, BowSearchSpec, QueryLikelihood, Scoring
from tests.bow.small_index import index_of, lucene_scores, norm_length

DOCUMENTS = [
    ["the", "cat", "sat", "on", "the", "mat"],
    ["the", "dog", "sat"],
    ["a", "cat", "and", "a", "dog", "and", "a", "cat"],
    ["birds"],
    ["cat"] * 60 + ["mat"] * 41,
    ["fish", "swim", "in", "the", "sea", "far", "away"],
    ["more", "birds", "and", "fish"],
]
QUERY = {"cat": 1, "mat": 2, "dog": 1}


def test_norms_are_lucenes() -> None:
    known = {0: 0, 39: 39, 40: 40, 41: 40, 57: 56, 100: 96, 255: 248, 1000: 984}
    lengths = np.array(list(known))
    decoded = formulas.NORM_LENGTHS[formulas.norm_bytes(lengths)]
    assert decoded.tolist() == list(known.values())
    assert formulas.NORM_LENGTHS[255] == norm_length(2**31 - 1)


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1))
def test_a_norm_is_the_length_cut_to_four_bits_above_24(lengths: list[int]) -> None:
    decoded = formulas.NORM_LENGTHS[formulas.norm_bytes(np.array(lengths))]
    assert decoded.tolist() == [norm_length(length) for length in lengths]


def scores(tmp_path: Path, formula: Scoring) -> dict[int, float]:
    index = index_of(DOCUMENTS, tmp_path)
    retriever = BowRetriever(index, BowSearchSpec(scoring=formula))
    docs, values = retriever.rank_terms(QUERY, 100)
    return dict(zip(docs.tolist(), values.tolist()))


@pytest.mark.parametrize(("model", "peer"), [("bm25+", BM25Plus), ("bm25l", BM25L)])
def test_bm25_plus_and_l_are_rank_bm25s(tmp_path: Path, model: str, peer: type) -> None:
    ours = scores(tmp_path, Bm25(variant=model, k1=1.5, b=0.75, delta=0.5, lengths="exact"))
    theirs = peer(DOCUMENTS, k1=1.5, b=0.75, delta=0.5)
    expected = np.zeros(len(DOCUMENTS))
    for term, boost in QUERY.items():  # rank-bm25 also scores documents without the term
        tfs = np.array([document.count(term) for document in DOCUMENTS])
        part = theirs.get_scores([term])
        if peer is BM25L:  # and its BM25L multiplies by the frequency once too often
            part = part / np.maximum(tfs, 1)
        expected += np.where(tfs > 0, boost * part, 0)
    assert ours == pytest.approx({d: s for d, s in enumerate(expected.tolist()) if s})


def test_robertson_is_rank_bm25s_okapi_where_idf_is_positive(tmp_path: Path) -> None:
    ours = scores(tmp_path, Bm25(variant="robertson", k1=1.5, b=0.75, lengths="exact"))
    query = [term for term, boost in QUERY.items() for _ in range(boost)]
    expected = BM25Okapi(DOCUMENTS, k1=1.5, b=0.75).get_scores(query)
    assert ours == pytest.approx({d: s for d, s in enumerate(expected.tolist()) if s})


def test_atire_is_its_closed_form(tmp_path: Path) -> None:
    mean = np.float32(sum(map(len, DOCUMENTS)) / len(DOCUMENTS))
    expected = {}
    for doc, terms in enumerate(DOCUMENTS):
        total = 0.0
        for term, boost in QUERY.items():
            tf, df = terms.count(term), sum(term in other for other in DOCUMENTS)
            base = tf + 0.9 * (1 - 0.4 + 0.4 * norm_length(len(terms)) / mean)
            total += boost * math.log(len(DOCUMENTS) / df) * tf * 1.9 / base
        if total:
            expected[doc] = total
    assert scores(tmp_path, Bm25(variant="atire")) == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", ["dirichlet", "jelinek-mercer"])
def test_query_likelihood_ranks_by_the_probability_of_the_query(
    tmp_path: Path, smoothing: str
) -> None:
    tokens = sum(map(len, DOCUMENTS))
    expected = {}
    for doc, terms in enumerate(DOCUMENTS):
        if not set(QUERY) & set(terms):
            continue
        total = 0.0
        for term, boost in QUERY.items():
            tf, share = terms.count(term), sum(d.count(term) for d in DOCUMENTS) / tokens
            if smoothing == "dirichlet":
                chance = (tf + 30 * share) / (len(terms) + 30)
            else:
                chance = 0.7 * tf / len(terms) + 0.3 * share
            # both leave out the part that is the same for all documents
            total += boost * math.log(chance / (share if smoothing == "dirichlet" else 0.3 * share))
        expected[doc] = total
    ours = scores(
        tmp_path, QueryLikelihood(smoothing=smoothing, mu=30.0, weight=0.3, lengths="exact")
    )
    assert ours == pytest.approx(expected)


@pytest.mark.parametrize("lengths", ["norm", "exact"])
def test_lucene_with_rounded_or_exact_lengths_is_the_definition(
    tmp_path: Path, lengths: str
) -> None:
    expected = lucene_scores(DOCUMENTS, QUERY, lengths=lengths)
    assert scores(tmp_path, Bm25(lengths=lengths)) == expected


def test_idfs_are_the_published_ones() -> None:
    assert formulas.lucene_idf(10, 3) == np.float32(math.log(1 + 7.5 / 3.5))
    assert formulas.robertson_idf(10, 3) == pytest.approx(math.log(7.5 / 3.5))
    assert formulas.robertson_idf(10, 8) == 0
    assert formulas.mean_length(10, 3) == float(np.float32(10 / 3))
    assert formulas.mean_length(0, 0) == 0
