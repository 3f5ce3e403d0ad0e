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
import math
import mmap
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.bow.exchange.wire import (
    PostingsList,
    is_utf8,
    list_bytes,
    read_list,
    read_records,
    scan_messages,
    write_records,
)
from raydist.bow.format.writing import SegmentWriter
from raydist.bow.index import BowIndex, Vocabulary
from raydist.data.store import idhash
from raydist.disk import atomic
from raydist.errors import ArtifactError, DataError
from raydist.kernels.varint import get_varint, put_varint
from raydist.run_writer import first_blank, warn_of_blank

Array = npt.NDArray[Any]
U = np.uint64
PathLike = str | os.PathLike[str]

_SLICE = 1 << 20  # postings written at once
_RECORDS = 1 << 16  # documents written at once
_ROUNDING = 0.1  # share by which a header's totals may differ from the records' lengths


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
        ids, lengths_N = index.doc_ids, index.live_lengths
        for start in range(0, documents, _RECORDS):
            part, lengths = ids.slice(start, _RECORDS), lengths_N[start : start + _RECORDS]
            out.write(write_records(start, part, lengths))
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
    # No message of a list or record takes less than four bytes.
    if 4 * (header.lists + header.documents) > len(data):
        raise DataError(f"too short for {header.lists:,} lists and {header.documents:,} documents")
    lists, documents = header.lists, header.documents
    places = scan_messages(data, 1 + lists + documents)
    if places is None:
        raise DataError(f"ends before {lists:,} lists and {documents:,} documents, or goes on")
    starts, ends = (each[1:] for each in places)
    numbers, ids, lengths_N = read_records(data, starts[lists:], ends[lists:])
    _check_records(numbers, ids)
    _check_totals(header, lengths_N)
    target = folder / "segments" / "00000"
    writer = SegmentWriter(
        target, lengths_N=lengths_N, doc_ids=ids, compress=compress, block_size=block_size
    )
    for batch in _batches(data, starts[:lists], ends[:lists], ids, lengths_N):
        writer.append(*batch)
    facts: dict[str, Any] = writer.close()
    blank = first_blank(ids)
    warn_of_blank(blank)
    facts |= {"empty": int(np.count_nonzero(lengths_N == 0)), "blank_id": blank}
    return {**facts, "segments": ["segments/00000"], "store": None}


def _check_records(numbers: Array, ids: pa.LargeStringArray) -> None:
    """Raises DataError where documents are not numbered consecutively, or share an id."""
    if not len(numbers):
        raise DataError("has no documents")
    odd = np.flatnonzero(numbers != np.arange(len(numbers)))
    if len(odd):
        raise DataError(
            f"record {odd[0] + 1}: document number {numbers[odd[0]]}, expected {odd[0]}: "
            "documents are numbered 0, 1, 2, ..."
        )
    empty = np.flatnonzero(pc.binary_length(ids).to_numpy() == 0)
    if len(empty):
        raise DataError(f"record {empty[0] + 1}: the document id is empty")
    repeats = idhash.find_duplicates(ids)
    if repeats.count:
        doc_id, first, second = repeats.examples[0]
        raise DataError(
            f"record {second + 1}: the document id {doc_id!r} is that of record {first + 1}"
        )


def _check_totals(header: _Header, lengths_N: Array) -> None:
    """Raises DataError where the header's totals are not those of the records.

    A file may hold some documents of a larger collection; its totals are then the collection's.
    Programs differ in how they round lengths, and in whether documents without terms count.
    """
    tokens, average = int(lengths_N.sum(dtype=np.int64)), header.average
    if not (math.isfinite(average) and average >= 0):
        raise DataError(f"header: average length {average}")
    for name, part, whole in (
        ("lists", header.lists, header.all_lists),
        ("documents", header.documents, header.all_documents),
    ):
        if whole and whole < part:
            raise DataError(f"header: {part:,} {name} of {whole:,} in all")
    if header.all_documents not in (0, header.documents):
        return
    if header.tokens and not _is_near(header.tokens, tokens):
        raise DataError(f"header: {header.tokens:,} tokens, but the lengths add up to {tokens:,}")
    nonempty = max(1, int(np.count_nonzero(lengths_N)))
    means = tokens / len(lengths_N), tokens / nonempty
    if average and not any(_is_near(average, each) for each in means):
        raise DataError(f"header: average length {average}, but that of the records is {means[0]}")


def _is_near(stated: float, actual: float) -> bool:
    return abs(stated - actual) <= _ROUNDING * max(stated, actual)


def _batches(
    data: Array, starts: Array, stops: Array, ids: pa.LargeStringArray, lengths_N: Array
) -> Iterator[tuple[pa.LargeBinaryArray, Array, Array, Array]]:
    """Yields the lists in ascending order of terms, some at a time."""
    terms = [read_list(data, int(a), int(z), terms_only=True).term for a, z in zip(starts, stops)]
    order = sorted(range(len(terms)), key=terms.__getitem__)
    names: list[bytes] = []
    docs: list[Array] = []
    tfs: list[Array] = []
    buffered = 0
    before = -1
    for number in order:
        each = read_list(data, int(starts[number]), int(stops[number]))
        if before >= 0 and terms[before] == each.term:
            raise DataError(
                f"list {number + 1}: the term {_text(each.term)!r} occurs twice, in list "
                f"{before + 1} too"
            )
        before = number
        try:
            _check_list(each, ids, lengths_N)
        except DataError as error:
            raise DataError(f"list {number + 1}, {_text(each.term)!r}: {error}") from None
        if not len(each.docs_P):
            continue
        names.append(each.term)
        docs.append(each.docs_P)
        tfs.append(each.tfs_P)
        buffered += len(each.docs_P)
        if buffered >= _SLICE:
            yield _joined(names, docs, tfs)
            names, docs, tfs, buffered = [], [], [], 0
    if names:
        yield _joined(names, docs, tfs)


def _check_list(postings: PostingsList, ids: pa.LargeStringArray, lengths_N: Array) -> None:
    term, docs_P, tfs_P, df, cf = postings
    if not term:
        raise DataError("no term")
    if not is_utf8(term):
        raise DataError("the term is not UTF-8")
    if df not in (0, len(docs_P)):
        raise DataError(f"df {df}, but {len(docs_P)} postings")
    if not len(docs_P):
        return
    wrong = np.flatnonzero((tfs_P < 1) | (tfs_P >= 1 << 31))
    if len(wrong):
        raise DataError(
            f"frequency {tfs_P[wrong[0]]} of posting {wrong[0] + 1}, expected 1 or more"
        )
    if cf not in (0, total := int(tfs_P.sum())):
        raise DataError(f"cf {cf}, but the frequencies add up to {total}")
    outside = np.flatnonzero((docs_P < 0) | (docs_P >= len(ids)))
    if len(outside):
        document = docs_P[outside[0]]
        raise DataError(f"document {document} of posting {outside[0] + 1}, there are {len(ids)}")
    back = np.flatnonzero(np.diff(docs_P) <= 0)
    if len(back):
        raise DataError(f"the documents do not ascend at posting {back[0] + 2}")
    short = docs_P[lengths_N[docs_P] == 0]
    if len(short):
        raise DataError(
            f"document {ids[int(short[0])].as_py()!r} (record {short[0] + 1}) has the term, but "
            "its length is 0 or missing; the program that writes the file must set doclength"
        )


def _text(term: bytes) -> str:
    return term.decode("utf-8", "backslashreplace")


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


class _Header(NamedTuple):
    """The numbers of a header; those that it does not state are 0."""

    lists: int
    documents: int
    all_lists: int
    all_documents: int
    tokens: int
    average: float


def _header(data: Array) -> _Header:
    fields = dict.fromkeys(range(1, 7), 0)
    average = 0.0
    size, at = get_varint(data, U(0))
    end = at + size
    good = end <= len(data)
    while good and at < end:
        tag, at = get_varint(data, U(at))
        if tag & 7 == 0:
            fields[tag >> 3], at = get_varint(data, U(at))
        elif tag & 7 == 1:
            if tag >> 3 == 7 and at + 8 <= end:
                average = struct.unpack("<d", data[int(at) : int(at) + 8].tobytes())[0]
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
    return _Header(fields[2], fields[3], fields[4], fields[5], fields[6], average)
