"""Passages of long documents, from cutting to rankings of documents."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.dense.by_document import rank_documents, sizes_of
from raydist.dense.chunks import Chunker
from raydist.dense.spec import ByDocument, ChunkSpec
from raydist.models.biencoder import BiEncoder
from raydist.records import Query, Run, document_table
from tests.dense.by_definition import documents_by_definition

WORDS = ["model", "query", "vector", "answer", "score", "unbelievably", "naïve", "日"]


@pytest.fixture(scope="module")
def encoder(tiny_bert):
    return BiEncoder.load(tiny_bert, pooling="mean", device="cpu")


def passages(encoder, rows, **spec) -> list[dict]:
    (table,) = Chunker(encoder.tokenizer, ChunkSpec(**spec))([document_table(rows)])
    return table.to_pylist()


def tokens(encoder, text: str) -> list[int]:
    return encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=90), overlap=st.integers(0, 8))
def test_passages_have_all_words_of_a_document_and_share_some(encoder, words, overlap):
    text = "  ".join(words)
    parts = passages(encoder, [("d", "", text)], tokens=16, overlap=overlap)
    whole = tokens(encoder, text)
    covered = np.zeros(len(text), bool)
    end = 0
    for number, part in enumerate(parts):
        start, stop = part["column:start"], part["column:end"]
        assert part["doc_id"] == f"d#{number}" and part["text"] == text[start:stop]
        own = tokens(encoder, part["text"])
        assert len(own) <= 16 and all(each in text.split() for each in part["text"].split())
        assert any(whole[i : i + len(own)] == own for i in range(len(whole)))
        if number:
            shared = tokens(encoder, text[start:end])
            assert start <= end + 2 and len(shared) <= overlap and stop > end
        covered[start:stop] = True
        end = stop
    assert all(covered[i] or letter == " " for i, letter in enumerate(text))
    assert len(whole) > 16 or (len(parts) == 1 and parts[0]["text"] == text)


def test_a_title_comes_before_each_passage_and_takes_half_of_it_at_most(encoder):
    text, long = " ".join(["score"] * 60), " ".join(["model"] * 30)
    for title, kept in (("the model", "the model"), (long, " ".join(["model"] * 8))):
        parts = passages(encoder, [("a#1", title, text), ("b", title, "")], tokens=16)
        assert {part["title"] for part in parts} == {kept}
        assert all(len(tokens(encoder, f"{p['title']}\n{p['text']}")) <= 16 for p in parts)
        assert [part["doc_id"] for part in parts[-2:]] == [f"a#1#{len(parts) - 2}", "b#0"]


def test_a_word_longer_than_a_passage_is_cut(encoder):
    text = "of" * 48  # longer ones are unknown to the tokenizer
    parts = passages(encoder, [("d", "", text)], tokens=16, overlap=4)
    assert len(parts) > 2 and parts[-1]["column:end"] == len(text)
    for a, b in pairwise(parts):
        assert a["column:start"] < b["column:start"] <= a["column:end"]


RANKINGS = st.lists(st.lists(st.integers(0, 9), min_size=0, max_size=40), min_size=1, max_size=3)


@given(rankings=RANKINGS, k=st.integers(1, 5), best=st.integers(1, 3), sizes=st.booleans())
def test_the_best_documents_are_certain_whatever_the_number_of_passages(rankings, k, best, sizes):
    lists = {}
    for number, documents in enumerate(rankings):
        seen = defaultdict(int)
        scores = np.sort(np.random.default_rng(number).integers(0, 6, len(documents)))[::-1]
        names = []
        for each in documents:
            names.append(f"d#{each}#{seen[each]}")
            seen[each] += 1
        lists[f"q{number}"] = list(zip(names, scores.astype(float).tolist()))
    depths = []

    def search(queries, depth):
        depths.append(depth)
        rows = [(q.query_id, lists[q.query_id][:depth]) for q in queries]
        return Run.from_lists((q, [d for d, _ in own], [s for _, s in own]) for q, own in rows)

    queries = [Query(name, "") for name in lists]
    by, known = ByDocument(passages=best), None
    if sizes and len(lists) == 1:
        names = pa.chunked_array([[d for d, _ in lists["q0"]] or ["x#0"]])
        known = sizes_of(SimpleNamespace(doc_ids=names, queries_per_pass=len), by)
        assert (known is None) == (best == 1)
    run = rank_documents(search, queries, k, by=by, sizes=known)
    expected = {q: documents_by_definition(own, k, best) for q, own in lists.items() if own}
    assert {q: list(zip(docs, scores.tolist())) for q, docs, scores in run} == expected
    assert depths[0] == 2 * k * best
