"""Vectors whose writer is killed: the old generation or the new one, and the same end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydist.cli import main
from raydist.dense.ann import AnnIndex
from raydist.dense.exact import exact_search
from raydist.dense.segments import LAYOUT
from raydist.dense.vectors import VectorShards
from raydist.manifest import read_manifest
from tests.killed import Killer, check_generations, encoded_change


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with Killer() as running:
        yield running


@pytest.fixture(scope="module")
def built(small_corpus: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors (vec) of 60 documents, and lists of what is to be added and deleted."""
    folder = tmp_path_factory.mktemp("killed")
    lines = small_corpus.read_text().splitlines(keepends=True)
    (folder / "some.jsonl").write_text("".join(lines[:60]))
    (folder / "more.jsonl").write_text("".join(lines[50:100]))
    (folder / "ids.txt").write_text("d3\nd55\n")
    forms = ["precision=int8", "rescore_precision=float16", "ann=hnsw"]
    words = [f"corpus={folder}/some.jsonl", f"model={tiny_bert}", "model.pooling=mean", *forms]
    assert main(["embed", *words, f"out={folder}/vec"]) == 0
    return folder


def answers(folder: Path) -> list[Any]:
    """What an exact and an approximate search answer, and all that is stored."""
    manifest = read_manifest(folder)
    shards, near = VectorShards.open(folder), AnnIndex.open(folder, manifest)
    queries = np.random.default_rng(1).normal(size=(3, shards.dimension)).astype(np.float32)
    best = [exact_search(shards, queries, 9), near.search(shards, queries, 9)]
    answered = [(scores.tobytes(), shards.ids_at(rows.ravel())) for scores, rows in best]
    fine = shards.finest.read(0, len(shards)).tobytes()
    return [answered, shards.doc_ids.to_pylist(), fine, manifest.get("segments")]


@pytest.mark.parametrize("change", ["append", "delete", "merge"])
def test_vectors_whose_writer_is_killed_are_the_old_ones_or_the_new(
    change: str, built: Path, killer: Killer, tmp_path: Path
) -> None:
    words = encoded_change(change, built, built / "vec", tmp_path / "start")
    folder = tmp_path / "work/vec"
    check_generations(killer, words, tmp_path / "start", folder, LAYOUT, answers)
