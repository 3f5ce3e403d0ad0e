"""Damaged vector folders: an error that names the file, or the right answer; never a wrong one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.artefact import Output
from raydist.dense.ann import AnnIndex, build_ann
from raydist.dense.exact import exact_search
from raydist.dense.files import VectorWriter
from raydist.dense.forms import PRECISIONS
from raydist.dense.spec import AnnSpec
from raydist.dense.vectors import VectorShards
from raydist.errors import ArtifactError
from tests.damage import Damage, damages

QUERIES = np.random.default_rng(1).normal(size=(3, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two shards of 70 vectors with an approximate index, in every precision."""
    vectors = np.random.default_rng(0).normal(size=(70, 16)).astype(np.float32)
    by_precision = {}
    for precision in PRECISIONS:
        folder = tmp_path_factory.mktemp("vectors") / precision
        output = Output.open(folder, kind="vectors", config={}, inputs={})
        for shard, rows in enumerate((range(50), range(50, 70))):
            with VectorWriter(folder / "shards" / f"{shard:05d}", 16, precision) as writer:
                for part in (rows[:15], rows[15:]):
                    writer.append([f"d\u00fc{i}" for i in part], vectors[list(part)])
        facts: dict[str, Any] = {"dimension": 16, "precision": precision, "documents": 70}
        facts["shards"] = 2
        kind = "hnsw" if precision == "float32" else "ivf_pq"
        facts["ann"] = build_ann(folder, facts, AnnSpec(kind=kind, rows_per_part=40, subvectors=4))
        output.finish(**facts)
        by_precision[precision] = folder
    return by_precision


def answers(folder: Path) -> list[Any]:
    """Everything that a vector folder can be asked."""
    shards = VectorShards.open(folder)
    scores, rows = exact_search(shards, QUERIES, 10)
    near, near_rows = AnnIndex.open(folder).search(shards, QUERIES, 10)
    arrays = [scores, rows, near, near_rows, shards.take(np.array([3, 69, 3]))]
    return [shards.doc_ids.to_pylist(), *(array.tolist() for array in arrays)]


@pytest.fixture(scope="module")
def right(folders: dict[str, Path]) -> dict[str, list[Any]]:
    return {precision: answers(folder) for precision, folder in folders.items()}


@settings(max_examples=300)
@given(precision=st.sampled_from(PRECISIONS), damage=damages)
def test_damage_is_an_error_that_names_the_file_or_does_not_matter(
    folders: dict[str, Path], right: dict[str, list[Any]], precision: str, damage: Damage
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "damaged"
        name, changed = damage.copy(folders[precision], copy, lambda name: name.suffix != ".done")
        try:
            results = answers(copy)
        except ArtifactError as error:
            assert changed and str(copy) in str(error), error
            # a folder without that index
            no_index = name.name == "ann.json" and not (copy / name).exists()
            assert name.name in str(error) or no_index, f"{name}: {error}"
        else:
            assert results == right[precision]
            assert not changed or name.suffix == ".json", f"{name}: {damage} was not noticed"
