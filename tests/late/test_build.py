"""What a build depends on, and what it leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from raydist.late import training
from raydist.late.centroids import Centroids, k_means, shares
from raydist.late.format import Segment
from raydist.late.residuals import Levels
from tests.late.tokens import build, documents


def files(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in paths
        if ".work" not in path.parts
    }


def test_a_build_that_was_interrupted_anywhere_has_the_same_bytes(tmp_path: Path) -> None:
    docs = documents(150)
    build(docs, tmp_path / "whole")
    expected = files(tmp_path / "whole")
    for number, lost in enumerate(
        ("tokens/00001.done", "sample/00000.done", "centroids/00000.done", "coded/00002.done")
    ):
        again = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole" / ".work", again / ".work")
        (again / ".work" / lost).unlink()
        build(docs, again)
        assert files(again) == expected


@pytest.mark.ray
@pytest.mark.slow
def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    docs = documents(150)
    build(docs, tmp_path / "alone")
    build(docs, tmp_path / "shared", workers=2)
    assert files(tmp_path / "alone") == files(tmp_path / "shared")


def test_lists_hold_each_document_of_a_centroid_once(tmp_path: Path) -> None:
    docs = documents(120)
    build(docs, tmp_path, per_split=11)
    segment = Segment.open(tmp_path / "segments" / "00000")
    starts, listed = segment.lists
    expected: dict[int, list[int]] = {}
    for number in range(len(segment)):
        own = segment.codes[segment.starts[number] : segment.starts[number + 1]]
        assert len(own) == len(docs[number])
        for code in np.unique(own).tolist():
            expected.setdefault(code, []).append(number)
    for code in range(len(starts) - 1):
        assert listed[starts[code] : starts[code + 1]].tolist() == expected.get(code, [])
    assert segment.doc_ids.to_pylist() == [f"d{i}" for i in range(120)]


def test_lists_are_merged_by_ranges_of_centroids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = documents(60)
    build(docs, tmp_path / "one")
    monkeypatch.setattr("raydist.late.assembly._ENTRIES", 10)
    build(docs, tmp_path / "many", per_split=7)
    names = ("lists", "lists.starts")
    one, many = (tmp_path / name / "segments" / "00000" for name in ("one", "many"))
    assert [(one / n).read_bytes() for n in names] == [(many / n).read_bytes() for n in names]


def test_levels_have_the_least_squared_error() -> None:
    rng = np.random.default_rng(0)
    sample = rng.standard_normal(20_000).astype(np.float32)
    # Max 1960: the optimal quantisers of a Gaussian.
    np.testing.assert_allclose(Levels.fit(sample, 1).values_L, [-0.7979, 0.7979], atol=0.02)
    expected = [-1.510, -0.4528, 0.4528, 1.510]
    np.testing.assert_allclose(Levels.fit(sample, 2).values_L, expected, atol=0.03)
    for bits in (1, 2, 4, 8):
        levels = Levels.fit(sample, bits)
        values = sample[:640].reshape(-1, 32)
        decoded = levels.table()[levels.encode(values)].reshape(values.shape)
        nearest = np.abs(values[..., None] - levels.values_L).argmin(-1)
        np.testing.assert_array_equal(decoded, levels.values_L[nearest])


def test_k_means_ends_with_means_of_the_vectors_nearest_to_them() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 4)).astype(np.float32)
    vectors[:20] = vectors[0]  # of equal starts all but one are left without vectors
    means = k_means(vectors, 12, rounds=100)
    nearest = ((vectors[:, None] - means) ** 2).sum(-1).argmin(1)
    assert len(np.unique(nearest)) == 12
    for number in range(12):
        np.testing.assert_allclose(means[number], vectors[nearest == number].mean(0), atol=1e-5)
    assert len(k_means(vectors[:5], 12)) == 5


def test_vectors_go_to_the_nearest_centroid() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((64, 8)).astype(np.float32)
    cells = rng.standard_normal((4, 8)).astype(np.float32)  # fewer than are looked into: exact
    centroids = Centroids(vectors, cells, np.array([0, 10, 10, 40, 64]))
    queries = rng.standard_normal((500, 8)).astype(np.float32)
    expected = ((queries[:, None] - vectors) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(centroids.nearest(queries), expected)


def test_cells_share_centroids_by_their_vectors() -> None:
    assert shares(np.array([50, 30, 0, 20]), 10).tolist() == [5, 3, 0, 2]
    assert shares(np.array([1000, 1]), 4).tolist() == [3, 1]
    assert shares(np.array([2, 2]), 10).tolist() == [2, 2]


def test_sampled_rows_do_not_depend_on_the_shards() -> None:
    whole = training._chosen(0, 1000, 1000, 300)
    parts = [training._chosen(first, 100, 1000, 300) + first for first in range(0, 1000, 100)]
    assert len(whole) == 300
    np.testing.assert_array_equal(np.concatenate(parts), whole)
