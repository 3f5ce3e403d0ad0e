"""A part of a store has the texts of its own documents, and opens no other pieces."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydist.data.store.part import StorePart, headers, pieces_of
from raydist.data.store.reader import DocumentStore, join
from raydist.kernels.bits import Bits
from raydist.records import DOCUMENTS, Document


def written(folder: Path, start: int, stop: int) -> None:
    documents = [Document(f"d{i}", f"text {i}", title=f"T{i}") for i in range(start, stop)]
    rows = [{"doc_id": d.doc_id, "text": d.text, "title": d.title} for d in documents]
    DocumentStore.create([pa.Table.from_pylist(rows, DOCUMENTS)], folder)


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    """Three pieces of ten documents; the even ones of the second, and the last, are deleted."""
    for number in range(3):
        written(tmp_path / f"store-{number}", 10 * number, 10 * number + 10)
    live = np.ones(30, bool)
    live[10:20:2] = live[29] = False
    join(tmp_path / "joined", [f"store-{number}" for number in range(3)], Bits.of(live))
    return tmp_path / "joined"


def texts(part: StorePart) -> list[str]:
    documents = part.get([f"d{i}" for i in range(31)])
    assert all(each is None or each.text == f"text {each.doc_id[1:]}" for each in documents)
    return [each.doc_id for each in documents if each is not None]


def test_documents_are_those_with_its_numbers_among_the_live_ones(joined: Path) -> None:
    live = DocumentStore.open(joined).doc_ids.to_pylist()
    assert len(live) == 24
    for start in range(25):
        for stop in (start, start + 1, start + 7, 24):
            numbers = range(start, max(start, stop))
            assert texts(StorePart(joined, numbers)) == live[numbers.start : numbers.stop]


def test_only_the_pieces_that_hold_them_are_opened(joined: Path) -> None:
    assert pieces_of(joined, range(0, 3)).names == ["store-0"]
    assert pieces_of(joined, range(10, 15))[:3] == (["store-1"], range(10, 20), 10)
    assert pieces_of(joined, range(14, 16)).names == ["store-1", "store-2"]
    assert pieces_of(joined, range(5, 5)).names == []
    assert headers("joined") == ["*/store.json", "joined/live"]
    for name in ("store-0", "store-2"):
        for file in (joined.parent / name).iterdir():
            if file.name != "store.json":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
    assert texts(StorePart(joined, range(10, 15))) == ["d11", "d13", "d15", "d17", "d19"]


def test_a_store_of_one_folder_is_one_piece(tmp_path: Path) -> None:
    written(tmp_path / "store", 0, 10)
    assert pieces_of(tmp_path / "store", range(2, 4)).names == ["store"]
    assert texts(StorePart(tmp_path / "store", range(2, 4))) == ["d2", "d3"]
