"""Damaged index folders: an error that names the file, or the right answer; never a wrong one."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.artefact import Output
from raydist.bow.build.create import build_index
from raydist.bow.build.delete import delete_from_index
from raydist.bow.build.generation import LAYOUT
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import IndexSpec
from raydist.errors import ArtifactError
from tests.bow.documents import read, splits_of
from tests.damage import Damage, damages

KINDS = ("merged", "segments", "raw", "reordered")
QUERIES = ["w1 w2 w3", "w17", "w1 w1 w90 longest", "nothing here", "title"]
UNREAD = {"config.json"}  # how the index was made, for people and for the same command again


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small indexes with texts: one segment, also reordered; several, also of raw arrays.

    Of the last three some documents are deleted.
    """
    rng = random.Random(5)
    words = [f"w{i}" for i in range(200)]
    rows = []
    for i in range(300):
        text = " ".join(rng.choices(words, [1 / (n + 1) for n in range(200)], k=rng.randint(0, 60)))
        rows.append((f"d{i}", "title" if i % 7 == 0 else "", text + " longest" * (i % 5)))
    folders = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("index") / kind
        output = Output.open(str(folder), kind="bow-index", config={}, inputs={}, resolved={})
        spec = IndexSpec(
            merge=kind in ("merged", "reordered"),
            compress=kind != "raw",
            block_size=16,
            reorder=kind == "reordered",
        )
        output.finish(**build_index(splits_of(rows, [100, 180]), read, folder, spec))
        LAYOUT.clean(folder)
        if kind != "merged":
            delete_from_index(folder, ["d5", "d150", "d151"])
        folders[kind] = folder
    return folders


def answers(folder: Path, *, verify: bool, in_memory: bool = False) -> list[Any]:
    """Everything that an index can be asked."""
    index = BowIndex.open(folder, verify=verify, in_memory=in_memory)
    results: list[Any] = []
    for pruned in (True, False):
        retriever = BowRetriever(index, pruned=pruned)
        for query in QUERIES:
            docs, scores = retriever.rank(query, 20)
            results.append((docs.tolist(), scores.tolist(), index.pick_ids(docs).to_pylist()))
    results.append(retriever.explain("w1 w2", "d3"))
    results.append(index.doc_ids.to_pylist())
    assert index.store is not None
    results.append(index.store.get(["d7", "d299", "unknown"]))
    results.append([segment.lengths_N.tolist() for segment in index.segments])
    return results


@pytest.fixture(scope="module")
def right(indexes: dict[str, Path]) -> dict[str, list[Any]]:
    return {kind: answers(folder, verify=True) for kind, folder in indexes.items()}


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place) / "damaged"


@settings(max_examples=200)
@given(kind=st.sampled_from(KINDS), damage=damages, in_memory=st.booleans())
def test_damage_is_an_error_that_names_the_file_or_does_not_matter(
    indexes: dict[str, Path],
    right: dict[str, list[Any]],
    room: Path,
    kind: str,
    damage: Damage,
    in_memory: bool,
) -> None:
    name, changed = damage.copy(indexes[kind], room)
    for verify in (True, False):
        try:
            results = answers(room, verify=verify, in_memory=in_memory)
        except ArtifactError as error:
            assert name.name in str(error), f"{name}: {error}"
            assert str(room) in str(error), f"{name}: {error}"
            assert changed, error
        else:
            assert results == right[kind]
            noticed = name.name not in UNREAD and verify
            if noticed and name.suffix == ".json":  # but for what stands around the value
                damaged, whole = ((folder / name).read_bytes() for folder in (room, indexes[kind]))
                noticed &= damaged.strip() != whole.strip()
            assert not (noticed and changed), f"{name}: {damage} was not noticed"
