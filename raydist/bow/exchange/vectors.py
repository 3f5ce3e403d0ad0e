"""Indexes of weighted terms, such as of learned sparse encoders: `{"id", "vector": {term: w}}`.

A weight is stored as a whole number of `unit`s in place of a term's frequency, so that segments,
CIFF and BMP files are the same. Scores are sums of query weight x document weight.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.bow.format.writing import SegmentWriter
from raydist.bow.index import encode_term
from raydist.data.store import idhash
from raydist.errors import ConfigError, DataError
from raydist.run_writer import first_blank, warn_of_blank

PathLike = str | os.PathLike[str]
Vector = tuple[str, Mapping[str, float]]
"""An id and its weights by term."""

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


def index_vectors(
    vectors: Iterable[Vector],
    folder: Path,
    *,
    unit: float = 0.01,
    compress: bool = True,
    block_size: int = 128,
    segment_documents: int = 200_000,
    name: str = "00000",
) -> dict[str, Any]:
    """Writes the segments of weighted documents below `folder` and returns the facts.

    The facts are those of a build, with the `unit` and without an analyzer: they belong in the
    manifest of a `bow-index`.

    Args:
        vectors: documents in order.
        folder: `folder/segments/NAME/NNNNN` are written.
        unit: the smallest weight that counts; others are rounded to multiples of it.
        compress: bit-packed postings; False writes raw arrays.
        block_size: postings per block.
        segment_documents: documents per segment, which are in memory at once.
        name: the folder of the segments.

    Raises:
        ConfigError: a unit that is not positive.
        DataError: no documents, an id twice, or a weight of more than 2**32 - 1 units.
    """
    if not unit > 0:
        raise ConfigError(f"unit = {unit}: expected more than 0")
    facts: dict[str, Any] = dict.fromkeys(("documents", "terms", "postings", "tokens", "bytes"), 0)
    ids: list[pa.Array] = []
    batch: list[str] = []
    rows: list[Mapping[str, float]] = []
    segments: list[str] = []
    empty = 0

    def flush() -> None:
        segments.append(f"segments/{name}/{len(segments):05d}")
        stats = _write(folder / segments[-1], batch, rows, unit, compress, block_size)
        for key in facts:
            facts[key] += stats[key]
        ids.append(pa.array(batch, pa.large_string()))
        batch.clear()
        rows.clear()

    for doc_id, weights in vectors:
        empty += not any(round(weight / unit) for weight in weights.values())
        batch.append(doc_id)
        rows.append(weights)
        if len(batch) == segment_documents:
            flush()
    if batch:
        flush()
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
    facts |= {"empty": empty, "segments": segments, "blank_id": blank}
    return {**facts, "store": None, "unit": unit}


def _write(
    folder: Path,
    names: list[str],
    rows: list[Mapping[str, float]],
    unit: float,
    compress: bool,
    block_size: int,
) -> dict[str, int]:
    numbers: dict[str, int] = {}
    sizes = [len(row) for row in rows]
    terms = np.array([numbers.setdefault(t, len(numbers)) for row in rows for t in row], np.int64)
    weights = np.array([weight for row in rows for weight in row.values()], np.float64)
    impacts = np.rint(weights / unit)
    if impacts.max(initial=0) >= 1 << 32:
        raise DataError(f"a weight of {weights.max()} is more than 2**32 - 1 units of {unit}")
    docs = np.repeat(np.arange(len(rows)), sizes)
    positive = impacts > 0
    terms, docs, impacts = terms[positive], docs[positive], impacts[positive].astype(np.uint32)
    lengths = np.bincount(docs, weights=impacts, minlength=len(rows))
    if lengths.max(initial=0) >= 1 << 32:
        raise DataError(f"a document's weights add up to more than 2**32 - 1 units of {unit}")
    by_bytes = sorted((encode_term(term), number) for term, number in numbers.items())
    rank = np.empty(len(numbers), np.int64)
    rank[[number for _, number in by_bytes]] = np.arange(len(numbers))
    order = np.argsort(rank[terms], kind="stable")
    df = np.bincount(rank[terms], minlength=len(numbers))
    present = [term for (term, _), count in zip(by_bytes, df.tolist()) if count]
    writer = SegmentWriter(
        folder,
        lengths_N=lengths.astype(np.uint32),
        doc_ids=pa.array(names, pa.string()),
        compress=compress,
        block_size=block_size,
    )
    indptr = np.concatenate(([0], np.cumsum(df[df > 0])))
    writer.append(pa.array(present, pa.large_binary()), indptr, docs[order], impacts[order])
    return writer.close()
