"""The on-disk segment: reading gives the written postings, whatever the options."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.bow.format.segment import Segment, concatenate
from raydist.bow.format.writing import SegmentWriter
from raydist.errors import ArtifactError

Postings = dict[bytes, dict[int, int]]


def flat(
    index: Postings, names: list[bytes]
) -> tuple[
    pa.LargeBinaryArray, npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.uint32]
]:
    indptr = np.cumsum([0] + [len(index[name]) for name in names]).astype(np.int64)
    docs = [doc for name in names for doc in sorted(index[name])]
    tfs = [index[name][doc] for name in names for doc in sorted(index[name])]
    terms = pa.array(names, pa.large_binary())
    return terms, indptr, np.array(docs, np.uint32), np.array(tfs, np.uint32)


def write(
    folder: Path,
    index: Postings,
    documents: int,
    *,
    cuts: list[int] | None = None,
    ids: bool = True,
    lengths: npt.NDArray[np.uint32] | None = None,
    **options: object,
) -> Path:
    names = sorted(index)
    if lengths is None:
        lengths = np.zeros(documents, np.uint32)
        for postings in index.values():
            for doc, tf in postings.items():
                lengths[doc] += min(tf, 1 << 16)
    doc_ids = pa.array([f"doc-{i}" for i in range(documents)]) if ids else None
    writer = SegmentWriter(folder, lengths_N=lengths, doc_ids=doc_ids, **options)  # type: ignore[arg-type]
    edges = [0, *(cuts or []), len(names)]
    for a, b in pairwise(edges):
        writer.append(*flat(index, names[a:b]))
    writer.close()
    return folder


@st.composite
def indexes(draw: st.DrawFn) -> tuple[Postings, int]:
    documents = draw(st.integers(1, 300))
    names = draw(st.lists(st.binary(max_size=6), unique=True, max_size=40))
    tf = st.one_of(st.integers(1, 4), st.integers(1, (1 << 32) - 1))
    index = {}
    for name in names:
        picked = draw(st.sets(st.integers(0, documents - 1), min_size=1, max_size=60))
        index[name] = {doc: draw(tf) for doc in picked}
    return index, documents


@settings(max_examples=60, deadline=None)
@given(indexes(), st.booleans(), st.sampled_from([8, 32, 128]), st.data())
def test_written_postings_are_read(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[Postings, int],
    compress: bool,
    block_size: int,
    data: st.DataObject,
) -> None:
    index, documents = case
    names = sorted(index)
    folder = tmp_path_factory.mktemp("segment")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(names)), max_size=3)))
    write(folder, index, documents, cuts=cuts, compress=compress, block_size=block_size)
    segment = Segment.open(folder, in_memory=data.draw(st.booleans()))

    assert segment.terms.to_pylist() == names
    first = data.draw(st.integers(0, len(names)))
    last = data.draw(st.integers(first, len(names)))
    _, indptr, docs, tfs = flat(index, names[first:last])
    actual = segment.postings(first, last)
    for column, values in zip((indptr, docs, tfs), actual):
        assert np.array_equal(column, values)

    key = data.draw(st.binary(max_size=6))
    assert segment.lower_bound(key) == sum(name < key for name in names)
    rows = segment.lookup([key, *names])
    assert bool(rows[0, 0]) == (key in index)
    assert rows[1:, 2].tolist() == [len(index[name]) for name in names]
    assert segment.doc_ids.to_pylist() == [f"doc-{i}" for i in range(documents)]
    which = np.array(data.draw(st.lists(st.integers(0, documents - 1), max_size=5)), np.int64)
    assert segment.pick_ids(which).to_pylist() == [f"doc-{i}" for i in which]


@settings(max_examples=25, deadline=None)
@given(indexes(), st.booleans(), st.data())
def test_joined_ranges_are_byte_for_byte_one_segment(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[Postings, int],
    compress: bool,
    data: st.DataObject,
) -> None:
    index, documents = case
    names = sorted(index)
    lengths = np.arange(documents, dtype=np.uint32)
    folder = tmp_path_factory.mktemp("parts")
    options = {"lengths": lengths, "compress": compress, "block_size": 32}
    write(folder / "whole", index, documents, **options)  # type: ignore[arg-type]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(names)), max_size=3)))
    parts = []
    for i, (a, b) in enumerate(zip([0, *cuts], [*cuts, len(names)])):
        part = {name: index[name] for name in names[a:b]}
        parts.append(write(folder / str(i), part, documents, ids=i == 0, **options))  # type: ignore[arg-type]
    concatenate(parts, folder / "joined")
    files = sorted(path.name for path in (folder / "whole").iterdir())
    assert files == sorted(path.name for path in (folder / "joined").iterdir())
    for name in files:
        assert (folder / "whole" / name).read_bytes() == (folder / "joined" / name).read_bytes()


def small(folder: Path) -> Path:
    index = {b"a": {i: i % 3 + 1 for i in range(500)}, b"b": {7: 70_000}, b"c": {0: 1, 499: 2}}
    return write(folder, index, 500)


@pytest.mark.parametrize("name", ["terms", "terms.groups", "postings", "norms", "lengths", "ids"])
def test_a_flipped_byte_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    path = small(tmp_path) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=rf"{name} is corrupted"):
        segment = Segment.open(tmp_path)
        segment.postings(0, 3)
        assert len(segment.norms_N) == len(segment.lengths_N)
        assert len(segment.doc_ids)


def test_a_cut_or_missing_file_is_an_error_on_opening(tmp_path: Path) -> None:
    small(tmp_path)
    data = (tmp_path / "postings").read_bytes()
    (tmp_path / "postings").write_bytes(data[:-1])
    with pytest.raises(ArtifactError, match="postings is corrupted"):
        Segment.open(tmp_path)
    (tmp_path / "postings").unlink()
    with pytest.raises(ArtifactError, match="postings is missing"):
        Segment.open(tmp_path)


def test_a_newer_or_edited_header_is_an_error(tmp_path: Path) -> None:
    header = small(tmp_path) / "segment.json"
    text = header.read_text()
    header.write_text(text.replace('"documents": 500', '"documents": 501'))
    with pytest.raises(ArtifactError, match="checksum"):
        Segment.open(tmp_path)
    header.write_text(json.dumps(json.loads(text) | {"version": 99}))
    with pytest.raises(ArtifactError, match="version 99"):
        Segment.open(tmp_path)
    header.write_text(text[:-9])
    with pytest.raises(ArtifactError, match="corrupted"):
        Segment.open(tmp_path)
    header.unlink()
    with pytest.raises(ArtifactError, match="not a complete index segment"):
        Segment.open(tmp_path)


def test_an_empty_segment_and_one_of_empty_documents_can_be_read(tmp_path: Path) -> None:
    for documents in (0, 3):
        segment = Segment.open(write(tmp_path / str(documents), {}, documents))
        assert (segment.documents, segment.nonempty, segment.size) == (documents, 0, 0)
        assert len(segment.doc_ids) == documents
        assert not segment.lookup([b"a"])[0, 0]
        assert len(segment.postings(0, 0)[1]) == 0


def test_broken_postings_are_our_own_mistake(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, lengths_N=np.ones(5, np.uint32), doc_ids=None)
    terms = pa.array([b"a"], pa.large_binary())
    indptr = np.array([0, 2])
    with pytest.raises(AssertionError, match="ascend"):
        writer.append(terms, indptr, np.array([3, 3]), np.array([1, 1]))
