from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from raydist.protocols import Reranker
from raydist.reranking.bm25 import BM25Reranker
from raydist.reranking.load import load_reranker
from raydist.reranking.spec import Bm25Spec
from raydist.text.spec import AnalyzerSpec

texts = st.text(alphabet="ab c", max_size=12)


@settings(max_examples=100, deadline=None)
@given(query=texts, documents=st.lists(texts, min_size=1, max_size=6))
def test_scores_are_those_of_rank_bm25_split_on_a_single_space(
    query: str, documents: list[str]
) -> None:
    oracle = BM25Okapi([text.split(" ") for text in documents]).get_scores(query.split(" "))
    scores = BM25Reranker().score([(query, documents)])[0]
    np.testing.assert_array_equal(scores, oracle)


def test_each_querys_candidates_are_a_collection_of_their_own() -> None:
    one, two = ("a", ["a b", "c", "a a"]), ("c", ["c", "d e"])
    reranker = BM25Reranker()
    assert reranker.score([one, two]) == [*reranker.score([one]), *reranker.score([two])]


def test_an_empty_list_stays_empty_and_wordless_documents_score_zero() -> None:
    assert BM25Reranker().score([("a", [])]) == [[]]
    assert BM25Reranker(tokens=str.split).score([("a", ["", "  "])]) == [[0.0, 0.0]]


def test_it_is_a_reranker() -> None:
    assert isinstance(BM25Reranker(), Reranker)


@dataclass
class Corpus:
    nonempty: int = 10
    average_length: float = 2.0

    def document_frequency(self, term: str) -> int:
        return {"heart": 3, "lung": 1}.get(term, 0)


def test_with_collection_statistics_the_score_is_lucenes_formula() -> None:
    reranker = BM25Reranker(tokens=str.split, k1=0.9, b=0.4, statistics=Corpus())
    scores = reranker.score([("heart lung lung unknown", ["heart heart x y", "lung", "z"])])[0]
    idf_heart, idf_lung = np.log(1 + 7.5 / 3.5), np.log(1 + 9.5 / 1.5)
    long, short = 0.9 * (0.6 + 0.4 * 4 / 2), 0.9 * (0.6 + 0.4 * 1 / 2)
    assert scores == pytest.approx([idf_heart * 2 / (2 + long), 2 * idf_lung / (1 + short), 0.0])


def test_no_torch_is_imported() -> None:
    code = "import sys, raydist.reranking.bm25; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_with_an_analyzer_words_are_stemmed_and_no_term_loses_its_idf() -> None:
    batch = [("what causes rain?", ["bread", "clouds and rain"])]
    (plain,) = load_reranker(Bm25Spec()).score(batch)
    assert plain == [0.0, 0.0]  # "rain?" is no token of the documents
    reranker = load_reranker(Bm25Spec(analyzer=AnalyzerSpec()))
    (scores,) = reranker.score(batch)
    assert scores[0] == 0.0 < scores[1]
    # Lucene's formula by hand: N = 2, df = 1, tf = 1, lengths 1 and 2 ("and" is a stop word).
    weight = math.log(1 + 1.5 / 1.5)
    assert scores[1] == pytest.approx(weight / (1 + 1.5 * (0.25 + 0.75 * 2 / 1.5)), rel=1e-12)
    (both,) = reranker.score([("raining", ["rain", "rain rained", ""])])
    assert min(both[:2]) > 0 == both[2]


def test_an_index_and_an_analyzer_are_two_analyses() -> None:
    with pytest.raises(ValueError, match="leave analyzer out"):
        Bm25Spec(analyzer=AnalyzerSpec(), index="idx")
