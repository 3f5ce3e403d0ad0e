"""Indexes of weighted terms, such as of learned sparse encoders: `{"id", "vector": {term: w}}`.

A weight is stored as a whole number of `unit`s in place of a term's frequency, so that segments,
CIFF and BMP files are the same. Scores are sums of query weight x document weight.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.build.reorder import reorder
from raydist.bow.build.spills import Postings
from raydist.bow.build.weighted import WeightedDocuments, inverted
from raydist.bow.exchange.vector_lines import FULL, UNUSUAL, Lines, read_lines
from raydist.bow.format.weights import add_weights
from raydist.bow.format.writing import SegmentWriter
from raydist.bow.index import encode_term
from raydist.data.store import idhash
from raydist.errors import ConfigError, DataError
from raydist.kernels.addresses import addresses
from raydist.run_writer import first_blank, warn_of_blank
from raydist.text.string_table import PAD, StringTable, joined

Array = npt.NDArray[Any]
PathLike = str | os.PathLike[str]
Vector = tuple[str, Mapping[str, float]]
"""An id and its weights by term."""

_MEMORY = 1 << 30
_CHUNK = 16 << 20
_ROWS = 1 << 14  # documents of a batch
_ENTRIES = 1 << 16
_SPARE = 1 << 14  # terms that a kernel may add
_EXPECTED = '{"id": string, "vector": {term: weight, ...}} with weights of at least 0'


def read_vectors(path: PathLike) -> Iterator[Vector]:
    """Yields the vectors of a JSON lines file (`.gz` or plain), of documents or of queries.

    Raises DataError, with the line, for one that is not a vector.
    """
    source = Path(path)
    if not source.is_file():
        raise DataError(f"{source}: no such file")
    number = 0
    try:
        with _open(source) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _vector(source, number, line)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{source}: damaged gzip after line {number}: {error}") from None


def _open(source: Path) -> Any:
    return gzip.open(source, "rb") if source.suffix == ".gz" else open(source, "rb")


def are_vectors(path: PathLike) -> bool:
    """Returns whether a file's first line is a vector; False where it does not exist."""
    source = Path(path)
    if not source.is_file() or not source.name.lower().endswith((".jsonl", ".jsonl.gz")):
        return False
    try:
        with _open(source) as lines:
            record = json.loads(next((line for line in lines if line.strip()), b""))
    except (ValueError, RecursionError, gzip.BadGzipFile, EOFError, zlib.error):
        return False
    return isinstance(record, dict) and isinstance(record.get("vector"), dict)


def _vector(source: Path, number: int, line: bytes) -> Vector:
    try:
        return _checked(line)
    except _Mistake as mistake:
        excerpt = line[:200].decode("utf-8", "replace").rstrip()
        raise DataError.at(source, number, excerpt, str(mistake)) from None


class _Mistake(ValueError):
    """Says what was expected of a line."""


def _checked(line: bytes) -> Vector:
    try:
        record = json.loads(line, object_pairs_hook=_unique)
        name, weights = record["id"], record["vector"]
    except _Mistake:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Mistake(_EXPECTED) from None
    if isinstance(name, bool) or not isinstance(name, str | int) or not isinstance(weights, dict):
        raise _Mistake(_EXPECTED)
    if name == "":
        raise _Mistake("an id that is not empty")
    for term, weight in weights.items():
        if not term:
            raise _Mistake("terms that are not empty")
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise _Mistake(f"a number as the weight of {term!r}, not {json.dumps(weight)[:40]}")
        if not 0 <= weight <= sys.float_info.max:  # not a number is neither
            raise _Mistake(f"a finite weight of at least 0 for {term!r}, not {str(weight)[:40]}")
    return str(name), weights


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Mistake(f"each key once, not {twice!r} twice")
    return values


@dataclass(frozen=True, slots=True)
class VectorFiles:
    """JSON lines files of vectors, one after another."""

    paths: Sequence[PathLike]

    def __iter__(self) -> Iterator[Vector]:
        for path in self.paths:
            yield from read_vectors(path)


def index_vectors(
    vectors: Iterable[Vector] | VectorFiles,
    folder: Path,
    *,
    unit: float = 0.01,
    compress: bool = True,
    block_size: int = 128,
    segment_documents: int = 200_000,
    name: str = "00000",
    reordered: bool = False,
) -> dict[str, Any]:
    """Writes the segments of weighted documents below `folder` and returns the facts.

    The facts are those of a build, with the `unit` and without an analyzer: they belong in the
    manifest of a `bow-index`.

    Args:
        vectors: documents in order; files are read without Python objects for their weights.
        folder: `folder/segments/NAME/NNNNN` are written.
        unit: the smallest weight that counts; others are rounded to multiples of it.
        compress: bit-packed postings; False writes raw arrays.
        block_size: postings per block.
        segment_documents: documents per segment, which are in memory at once.
        name: the folder of the segments.
        reordered: whether similar documents become neighbours in the postings (order.py).

    Raises:
        ConfigError: a unit that is not positive.
        DataError: no documents, an id twice, or a weight of more than 2**32 - 1 units.
    """
    if not unit > 0:
        raise ConfigError(f"unit = {unit}: expected more than 0")
    reader = VectorReader(unit)
    batches = reader.files(vectors) if isinstance(vectors, VectorFiles) else reader.batches(vectors)
    facts: dict[str, Any] = dict.fromkeys(("documents", "terms", "postings", "tokens", "bytes"), 0)
    facts["empty"] = 0
    ids: list[pa.Array] = []
    segments: list[str] = []
    for parts in _groups(batches, segment_documents):
        segments.append(f"segments/{name}/{len(segments):05d}")
        postings = inverted(parts, reader.terms())
        facts["empty"] += int(np.count_nonzero(postings.lengths_N == 0))
        stats = _write(folder / segments[-1], postings, compress, block_size, reordered)
        for key, value in stats.items():
            facts[key] += value
        ids.append(postings.doc_ids)
    if not segments:
        raise DataError("the file has no documents")
    repeats = idhash.find_duplicates(pa.chunked_array(ids, pa.large_string()))
    if repeats.count:
        doc_id, first, second = repeats.examples[0]
        raise DataError(
            f"the document id {doc_id!r} occurs twice: document {second + 1:,} has that of "
            f"document {first + 1:,}"
        )
    blank = first_blank(pa.chunked_array(ids, pa.large_string()))
    warn_of_blank(blank)
    facts |= {"segments": segments, "blank_id": blank}
    return {**facts, "store": None, "unit": unit}


def _groups(
    batches: Iterable[WeightedDocuments], size: int
) -> Iterator[Sequence[WeightedDocuments]]:
    """Yields batches of `size` documents together."""
    parts: list[WeightedDocuments] = []
    room = size
    for batch in batches:
        first = 0
        while first < len(batch.names):
            last = min(first + room, len(batch.names))
            parts.append(batch.part(first, last))
            room -= last - first
            first = last
            if not room:
                yield parts
                parts, room = [], size
    if parts:
        yield parts


def _write(
    folder: Path, postings: Postings, compress: bool, block_size: int, reordered: bool
) -> dict[str, int]:
    writer = SegmentWriter(
        folder,
        lengths_N=postings.lengths_N,
        doc_ids=postings.doc_ids,
        compress=compress,
        block_size=block_size,
    )
    writer.append(postings.terms, postings.indptr_T1, postings.docs_P, postings.tfs_P)
    stats = writer.close()
    if reordered:
        stats["bytes"] = reorder(folder)
    stats["bytes"] += add_weights(folder, _MEMORY)
    return stats


class VectorReader:
    """Turns vectors into arrays; terms are numbered as they come."""

    def __init__(self, unit: float) -> None:
        self._unit = unit
        self._table = StringTable()
        self._state = np.zeros(3, np.int64)
        self._seen = np.zeros(0, np.int64)

    def terms(self) -> pa.LargeBinaryArray:
        """Returns all terms so far, by their numbers."""
        return self._table.strings()

    def batches(self, vectors: Iterable[Vector]) -> Iterator[WeightedDocuments]:
        """Yields documents of Python objects."""
        rows = iter(vectors)
        while part := list(islice(rows, _ROWS)):
            yield self._of_objects(part)

    def _of_objects(self, rows: Sequence[Vector]) -> WeightedDocuments:
        terms = [encode_term(term) for _, vector in rows for term in vector]
        if not all(terms):
            raise DataError("a vector has an empty term")
        weights = np.array([w for _, vector in rows for w in vector.values()], np.float64)
        impacts = np.rint(weights / self._unit)
        if impacts.max(initial=0) >= 1 << 32:
            raise DataError(
                f"a weight of {weights.max()} is more than 2**32 - 1 units of {self._unit}"
            )
        return WeightedDocuments(
            pa.array([name for name, _ in rows], pa.large_string()),
            np.concatenate(([0], np.cumsum([len(vector) for _, vector in rows]))).astype(np.int64),
            self._table.add(*joined(terms)),
            impacts.astype(np.uint32),
        )

    def files(self, files: VectorFiles) -> Iterator[WeightedDocuments]:
        """Yields documents of JSON lines files, those of usual lines by a kernel.

        Raises DataError, with the line, for one that is not a vector.
        """
        for path in files.paths:
            source = Path(path)
            if not source.is_file():
                raise DataError(f"{source}: no such file")
            number = 1
            with _damage_named(source), _open(source) as lines:
                for chunk in _whole_lines(lines):
                    yield from self._of_lines(source, number, chunk)
                    number += chunk.count(b"\n")

    def _of_lines(self, source: Path, number: int, chunk: bytes) -> Iterator[WeightedDocuments]:
        """Yields the documents of whole lines, of which the first has a number in its file."""
        data = np.frombuffer(chunk + bytes(PAD), np.uint8)
        at, table, state = 0, self._table, self._state
        plain = _is_text(chunk)
        while at < len(chunk):
            spans_N2 = np.empty((_ROWS, 2), np.int64)
            indptr_N1 = np.zeros(_ROWS + 1, np.int64)
            terms_P, impacts_P = np.empty((2, max(_ENTRIES, len(chunk) // 5)), np.uint32)
            state[:2] = 0
            outcome = UNUSUAL
            if plain:
                table.reserve(_SPARE, _SPARE << 4)
                room = len(table.starts)
                if len(self._seen) < room:
                    self._seen = np.append(self._seen, np.zeros(room - len(self._seen), np.int64))
                lines = Lines(state, spans_N2, indptr_N1, terms_P, impacts_P, self._seen)
                arrays = addresses(lines), addresses(table.arrays)
                outcome, at = read_lines(data, at, len(chunk), self._unit, *arrays, table.shift)
            rows, filled = int(state[0]), int(state[1])
            if outcome == FULL and not rows:  # one line alone has no room
                outcome = UNUSUAL
            if rows:
                names = _strings(data, spans_N2[:rows])
                entries = (terms_P[:filled].copy(), impacts_P[:filled].copy())
                yield WeightedDocuments(names, indptr_N1[: rows + 1], *entries)
            if outcome == UNUSUAL:
                end = chunk.find(b"\n", at)
                line = chunk[at : len(chunk) if end < 0 else end + 1]
                if line.strip():
                    place = number + chunk.count(b"\n", 0, at)
                    yield self._of_objects([_vector(source, place, line)])
                at += len(line)


def _is_text(chunk: bytes) -> bool:
    """Returns whether bytes are UTF-8."""
    try:
        pa.array([chunk], pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _strings(data: Array, spans_N2: Array) -> pa.LargeStringArray:
    """Returns the strings that begin and end at places of a text."""
    sizes_N = spans_N2[:, 1] - spans_N2[:, 0]
    ends_N1 = np.concatenate(([0], np.cumsum(sizes_N)))
    places = np.repeat(spans_N2[:, 0] - ends_N1[:-1], sizes_N) + np.arange(ends_N1[-1])
    buffers = [None, pa.py_buffer(ends_N1), pa.py_buffer(data[places])]
    return pa.Array.from_buffers(pa.large_string(), len(spans_N2), buffers)


def _whole_lines(lines: Any) -> Iterator[bytes]:
    """Yields the bytes of a file in parts that end where lines do."""
    rest = b""
    while part := lines.read(_CHUNK):
        whole, newline, tail = part.rpartition(b"\n")
        if newline:
            yield rest + whole + newline
            rest = tail
        else:
            rest += part
    if rest:
        yield rest


@contextlib.contextmanager
def _damage_named(source: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{source}: damaged gzip: {error}") from None
