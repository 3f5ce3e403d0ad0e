"""A multi-vector index whose writer is killed: the old generation or the new one, the same end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydist.cli import main
from raydist.late.format import LAYOUT
from raydist.late.search import LateIndex
from raydist.late.spec import LateSearchSpec
from raydist.manifest import read_manifest
from raydist.models.biencoder import BiEncoder
from tests.killed import Killer, check_generations, encoded_change
from tests.late.tokens import unit


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with Killer() as running:
        yield running


@pytest.fixture(scope="module")
def built(small_corpus: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index (idx) of 30 documents, and lists of what is to be added and deleted."""
    folder = tmp_path_factory.mktemp("killed")
    lines = small_corpus.read_text().splitlines(keepends=True)
    (folder / "some.jsonl").write_text("".join(lines[:30]))
    (folder / "more.jsonl").write_text("".join(lines[25:50]))
    (folder / "ids.txt").write_text("d3\nd27\n")
    model = BiEncoder.load(tiny_bert, kind="multivector", projection=16, device="cpu")
    model.save(folder / "model")
    words = [f"corpus={folder}/some.jsonl", f"model={folder}/model", "bits=2", "centroids=32"]
    assert main(["embed", *words, f"out={folder}/idx"]) == 0
    return folder


def answers(folder: Path) -> list[Any]:
    """What an exact and an approximate search answer, and all that is stored."""
    manifest = read_manifest(folder)
    index = LateIndex.open(folder, manifest)
    rng = np.random.default_rng(1)
    queries = [unit(rng.standard_normal((4, index.codec.dimension))) for _ in range(3)]
    found = []
    for spec in (LateSearchSpec(exact=True), LateSearchSpec(probes=4, candidates=20)):
        for scores, numbers in index.search(queries, 9, spec):
            found.append((scores.tobytes(), index.documents.pick_ids(numbers).to_pylist()))
    live = index.documents.at_numbers(np.arange(len(index.documents)))
    stored = [index.vectors(int(number)).tobytes() for number in live]
    return [found, stored, manifest.get("segments")]


@pytest.mark.parametrize("change", ["append", "delete", "merge"])
def test_an_index_whose_writer_is_killed_is_the_old_one_or_the_new(
    change: str, built: Path, killer: Killer, tmp_path: Path
) -> None:
    words = encoded_change(change, built, built / "idx", tmp_path / "start")
    folder = tmp_path / "work/idx"
    check_generations(killer, words, tmp_path / "start", folder, LAYOUT, answers)
