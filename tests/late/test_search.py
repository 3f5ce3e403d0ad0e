"""Scores and rankings of multi-vector indexes against naive MaxSim."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from raydist.errors import ArtifactError
from raydist.kernels.ahead import argument_types
from raydist.late.ahead import MULTIVECTOR_SEARCH
from raydist.late.format import FIRST
from raydist.late.search import LateIndex
from raydist.late.spec import LateSearchSpec
from tests.late.tokens import build, documents, max_sim, queries_of

EXACT = LateSearchSpec(exact=True)


@pytest.fixture(scope="module")
def docs() -> list[np.ndarray]:
    return documents(400)


@pytest.fixture(scope="module")
def index(docs: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> LateIndex:
    folder = tmp_path_factory.mktemp("late")
    return LateIndex.open(folder, build(docs, folder, bits=8))


def test_exact_scores_are_max_sim_of_the_decoded_vectors(
    index: LateIndex, docs: list[np.ndarray]
) -> None:
    decoded = [index.vectors(number) for number in range(len(index))]
    for query, (scores, numbers) in zip(
        queries_of(docs), index.search(queries_of(docs), 50, EXACT)
    ):
        expected = max_sim(query, decoded)
        np.testing.assert_allclose(scores, expected[numbers], rtol=1e-5)
        np.testing.assert_allclose(scores, np.sort(expected)[::-1][:50], rtol=1e-5)


def test_kernels_that_are_compiled_ahead_are_those_that_are_called(
    docs: list[np.ndarray], tmp_path: Path
) -> None:
    """A signature that nobody calls would be compiled for nothing."""
    facts = build(docs[:40], tmp_path, centroids=64)
    spec = LateSearchSpec(probes=30, candidates=5)
    LateIndex.open(tmp_path, facts).search(queries_of(docs, 2), 3, spec)
    for name, signature in MULTIVECTOR_SEARCH.items():
        file, function = name.split(":")
        called = getattr(importlib.import_module(file), function).signatures
        assert argument_types(signature) in called, name


def test_eight_bits_are_near_the_vectors_and_each_bit_fewer_is_farther(
    index: LateIndex, docs: list[np.ndarray], tmp_path: Path
) -> None:
    errors = []
    for bits in (1, 2, 4):
        facts = build(docs[:200], tmp_path / str(bits), bits=bits)
        coded = LateIndex.open(tmp_path / str(bits), facts)
        assert facts["bits"] == bits
        size = (tmp_path / str(bits) / FIRST / "residuals").stat().st_size
        assert size == facts["vectors"] * 32 * bits // 8
        errors.append(
            np.mean([((coded.vectors(i) - docs[i]) ** 2).sum(1).mean() for i in range(200)])
        )
    errors.append(np.mean([((index.vectors(i) - docs[i]) ** 2).sum(1).mean() for i in range(400)]))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-4
    for i in range(400):
        np.testing.assert_allclose(np.linalg.norm(index.vectors(i), axis=1), 1, rtol=1e-5)


def test_the_search_finds_what_exact_scoring_finds(
    index: LateIndex, docs: list[np.ndarray]
) -> None:
    queries = queries_of(docs, 40)
    exact = index.search(queries, 10, EXACT)
    everything = LateSearchSpec(probes=10_000, candidates=10_000)
    for (scores, numbers), (others, same) in zip(exact, index.search(queries, 10, everything)):
        np.testing.assert_array_equal(numbers, same)
        np.testing.assert_array_equal(scores, others)
    few = index.search(queries, 10, LateSearchSpec(probes=24, candidates=128), threads=2)
    shared = [len(np.intersect1d(a[1], b[1])) for a, b in zip(exact, few)]
    assert sum(shared) >= 0.97 * 400
    for (scores, numbers), (all_scores, all_numbers) in zip(few, exact):
        own = dict(zip(all_numbers.tolist(), all_scores.tolist()))
        assert all(own.get(n, s) == s for n, s in zip(numbers.tolist(), scores.tolist()))


def test_documents_that_are_barred_are_not_found(index: LateIndex, docs: list[np.ndarray]) -> None:
    barred = np.zeros(len(index), np.uint8)
    barred[::2] = 1
    for query in queries_of(docs):
        for spec in (EXACT, LateSearchSpec()):
            ((scores, numbers),) = index.search([query], 20, spec, barred_N=barred)
            assert len(numbers) == 20 and (numbers % 2 == 1).all()
            expected = max_sim(query, [index.vectors(i) for i in range(1, 400, 2)])
            np.testing.assert_allclose(scores[0], expected.max(), rtol=1e-5)


def test_equal_documents_are_in_the_order_of_the_corpus(tmp_path: Path) -> None:
    docs = documents(30)
    facts = build(docs * 3, tmp_path, per_split=7)
    index = LateIndex.open(tmp_path, facts)
    for query in queries_of(docs):
        for spec in (EXACT, LateSearchSpec()):
            ((scores, numbers),) = index.search([query], 90, spec)
            for score in np.unique(scores):
                equal = numbers[scores == score]
                np.testing.assert_array_equal(equal, np.sort(equal))


@pytest.mark.parametrize("name", ["codes", "lists", "documents.arrow", "about.json"])
def test_a_missing_or_cut_file_is_named(tmp_path: Path, name: str) -> None:
    facts = build(documents(20), tmp_path)
    path = tmp_path / FIRST / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match=name):
        LateIndex.open(tmp_path, facts)
