"""Common Index File Format (Lin et al., SIGIR 2020): indexes for Anserini, PISA, Terrier and back.

A file is protobuf messages, each behind its length as a variable-length integer: a Header, a
PostingsList per term and a DocRecord per document::

    Header        1 version  2 postings lists  3 documents  4, 5 both in all  6 tokens
                  7 average length (double)  8 description
    PostingsList  1 term  2 df  3 cf  4 Posting, repeated: 1 document - the one before, 2 tf
    DocRecord     1 document  2 external id  3 length

Legend: T terms, P postings, N documents.
"""

from __future__ import annotations

import gzip
import mmap
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.exchange.wire import (
    list_bytes,
    read_list,
    read_records,
    scan_messages,
    write_records,
)
from raydist.bow.format.writing import SegmentWriter
from raydist.bow.index import BowIndex, Vocabulary
from raydist.disk import atomic
from raydist.errors import ArtifactError, DataError
from raydist.kernels.varint import get_varint, put_varint

Array = npt.NDArray[Any]
U = np.uint64
PathLike = str | os.PathLike[str]

_SLICE = 1 << 20  # postings written at once
_RECORDS = 1 << 16  # documents written at once


def export_ciff(index: BowIndex, path: PathLike, *, description: str = "raydist") -> dict[str, int]:
    """Writes an index as a CIFF file (`.gz` compresses it); returns counts.

    Raises DataError for an index beyond the format's 2**31 - 1 documents or occurrences.
    """
    target = Path(path)
    documents = len(index)
    if documents >= 1 << 31:
        raise DataError(f"{documents:,} documents: CIFF has 31 bits for their numbers")
    vocabulary = Vocabulary(index)
    opener: Any = gzip.open if target.suffix == ".gz" else open
    postings = 0
    with atomic(target) as partial, opener(partial, "wb") as out:
        header = [
            *(_integer(field, value) for field, value in [(1, 1), (2, len(vocabulary))]),
            *(_integer(field, value) for field, value in [(3, documents), (4, len(vocabulary))]),
            *(_integer(field, value) for field, value in [(5, documents), (6, index.tokens)]),
            b"\x39" + struct.pack("<d", index.average_length),
            b"\x42" + _varint(len(description.encode())) + description.encode(),
        ]
        _message(out, b"".join(header))
        for terms, indptr_T1, docs_P, tfs_P in vocabulary.slices(_SLICE):
            if len(tfs_P) and tfs_P.max() >= 1 << 31:
                raise DataError("a term frequency of 2**31 or more: CIFF has 31 bits")
            out.write(list_bytes(terms, indptr_T1, docs_P, tfs_P))
            postings += len(docs_P)
        for segment, base in zip(index.segments, index.bases):
            ids, lengths_N = segment.doc_ids, segment.lengths_N
            for start in range(0, segment.documents, _RECORDS):
                part = ids.slice(start, _RECORDS)
                lengths = lengths_N[start : start + _RECORDS]
                out.write(write_records(base + start, part, lengths))
    return {"documents": documents, "terms": len(vocabulary), "postings": postings}


def import_ciff(
    path: PathLike, folder: Path, *, compress: bool = True, block_size: int = 128
) -> dict[str, Any]:
    """Writes the segment `folder/segments/00000` of a CIFF file and returns its facts.

    The facts are those of a build, without an analyzer: only the caller can know it.

    Raises DataError where the file is not CIFF or contradicts itself.
    """
    source = Path(path)
    if not source.is_file():
        raise DataError(f"{source}: no such file")
    try:
        if source.suffix != ".gz":
            return _import(source, folder, compress, block_size)
        with tempfile.TemporaryDirectory(prefix="raydist-ciff-") as scratch:
            return _import(_unpacked(source, Path(scratch)), folder, compress, block_size)
    except (DataError, ArtifactError) as error:
        raise type(error)(f"{source}: {error}") from None


def _unpacked(source: Path, scratch: Path) -> Path:
    plain = scratch / "plain"
    try:
        with gzip.open(source) as packed, open(plain, "wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"damaged gzip: {error}") from None
    return plain


def _import(plain: Path, folder: Path, compress: bool, block_size: int) -> dict[str, Any]:
    with open(plain, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise DataError("empty, expected CIFF")
        data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    header = _header(data)
    lists, documents = header[2], header[3]
    places = scan_messages(data, 1 + lists + documents)
    if places is None:
        raise DataError(f"ends before {lists:,} lists and {documents:,} documents")
    starts, ends = (each[1:] for each in places)
    numbers, ids, lengths_N = read_records(data, starts[lists:], ends[lists:])
    if not np.array_equal(numbers, np.arange(documents)):
        raise DataError("documents are not numbered 0, 1, 2, ...")
    target = folder / "segments" / "00000"
    writer = SegmentWriter(
        target, lengths_N=lengths_N, doc_ids=ids, compress=compress, block_size=block_size
    )
    for batch in _batches(data, starts[:lists], ends[:lists], documents):
        writer.append(*batch)
    facts = writer.close()
    empty = int(np.count_nonzero(lengths_N == 0))
    return {**facts, "empty": empty, "segments": ["segments/00000"], "store": None}


def _batches(
    data: Array, starts: Array, stops: Array, documents: int
) -> Iterator[tuple[pa.LargeBinaryArray, Array, Array, Array]]:
    """Yields the lists in ascending order of terms, some at a time."""
    parts = [read_list(data, int(a), int(z), terms_only=True)[0] for a, z in zip(starts, stops)]
    order = sorted(range(len(parts)), key=parts.__getitem__)
    names: list[bytes] = []
    docs: list[Array] = []
    tfs: list[Array] = []
    buffered = 0
    for number in order:
        term, docs_P, tfs_P = read_list(data, int(starts[number]), int(stops[number]))
        if names and names[-1] == term:
            raise DataError(f"the term {term!r} occurs twice")
        if not len(docs_P):
            continue
        ascends = len(docs_P) < 2 or np.all(np.diff(docs_P) > 0)
        if tfs_P.min() < 1 or tfs_P.max() >= 1 << 31:
            raise DataError(f"{term!r} has a frequency that is not 1 to 2**31 - 1")
        if not ascends or docs_P[0] < 0 or docs_P[-1] >= documents:
            raise DataError(f"the postings of {term!r} do not ascend within the documents")
        names.append(term)
        docs.append(docs_P)
        tfs.append(tfs_P)
        buffered += len(docs_P)
        if buffered >= _SLICE:
            yield _joined(names, docs, tfs)
            names, docs, tfs, buffered = [], [], [], 0
    if names:
        yield _joined(names, docs, tfs)


def _joined(
    names: list[bytes], docs: list[Array], tfs: list[Array]
) -> tuple[pa.LargeBinaryArray, Array, Array, Array]:
    indptr_T1 = np.cumsum([0] + [len(each) for each in docs])
    terms = pa.array(names, pa.large_binary())
    return terms, indptr_T1, np.concatenate(docs), np.concatenate(tfs)


def _varint(value: int) -> bytes:
    out = np.empty(10, np.uint8)
    return out[: put_varint(out, U(0), U(value))].tobytes()


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _message(out: BinaryIO, body: bytes) -> None:
    out.write(_varint(len(body)) + body)


def _header(data: Array) -> dict[int, int]:
    """Returns the integer fields of the header by number."""
    fields = dict.fromkeys(range(1, 7), 0)
    size, at = get_varint(data, U(0))
    end = at + size
    good = end <= len(data)
    while good and at < end:
        tag, at = get_varint(data, U(at))
        if tag & 7 == 0:
            fields[tag >> 3], at = get_varint(data, U(at))
        elif tag & 7 == 1:
            at += 8
        elif tag & 7 == 2:
            length, at = get_varint(data, U(at))
            at += length
        else:
            good = False
    if good and fields[1] > 1:
        raise ArtifactError(f"CIFF version {fields[1]}, this raydist reads version 1")
    if not good or at != end or fields[1] != 1:
        raise DataError("does not begin with a CIFF header")
    return fields
