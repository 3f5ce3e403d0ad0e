"""The vectors of the benchmark of sparse retrieval: like published indexes, always the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import sparse_data


@pytest.fixture(scope="module", autouse=True)
def _small_batches():
    patch = pytest.MonkeyPatch()
    patch.setattr(sparse_data, "_BATCH", 2_000)
    yield
    patch.undo()


def test_vectors_have_the_statistics_of_published_indexes():
    figures = sparse_data.statistics(4_000, 200)
    assert figures["terms"] == pytest.approx(28_131, rel=0.02)
    assert figures["document_entries"] == pytest.approx(119, rel=0.05)
    assert figures["query_entries"] == pytest.approx(43, rel=0.06)
    assert figures["document_top50_mass"] == pytest.approx(0.75, abs=0.05)
    assert figures["query_top10_mass"] == pytest.approx(0.75, abs=0.06)
    assert 1.3 < figures["flops"] < 3.8
    assert 3 < figures["largest_weight"] < 4


def test_a_larger_corpus_begins_with_the_smaller_one():
    few, more = (list(sparse_data.documents(n)) for n in (1_500, 2_500))
    last = int(few[0].indptr[-1])
    assert np.array_equal(few[0].indptr, more[0].indptr[:1_501])
    assert np.array_equal(few[0].terms, more[0].terms[:last])
    assert np.array_equal(few[0].weights, more[0].weights[:last])
    assert [len(each.indptr) - 1 for each in more] == [2_000, 500]


def test_documents_of_a_topic_share_terms():
    vectors = next(sparse_data.documents(2_000))
    sets = [
        set(vectors.terms[a:z].tolist())
        for a, z in zip(vectors.indptr[:600], vectors.indptr[1:601])
    ]
    shared = [len(a & b) for i, a in enumerate(sets) for b in sets[:i]]
    assert max(shared) > 4 * np.mean(shared)


def test_lines_and_arrays_have_the_same_vectors(tmp_path: Path):
    asked = sparse_data.queries(3, 2_500)
    sparse_data.write(tmp_path, sparse_data.documents(2_500), asked)
    arrays = np.load(tmp_path / sparse_data.ARRAYS)
    for file, letter, prefix in (("docs", "d", ""), ("queries", "q", "query_")):
        indptr, terms, weights = (arrays[f"{prefix}{n}"] for n in ("indptr", "terms", "weights"))
        lines = (tmp_path / f"{file}.jsonl").read_text().splitlines()
        assert len(lines) == len(indptr) - 1
        for row in (0, len(lines) // 2, len(lines) - 1):
            part = slice(indptr[row], indptr[row + 1])
            names = [sparse_data.name_of(term) for term in terms[part]]
            record = json.loads(lines[row])
            assert record["id"] == f"{letter}{row}" and list(record["vector"]) == names
            values = list(record["vector"].values())
            np.testing.assert_allclose(values, weights[part], atol=5.1e-5)
