"""Indexes of weighted terms, such as of learned sparse encoders: `{"id", "vector": {term: w}}`.

A weight is stored as a whole number of `unit`s in place of a term's frequency, so that segments,
CIFF and BMP files are the same. Scores are sums of query weight x document weight.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.bow.format.writing import SegmentWriter
from raydist.bow.index import encode_term
from raydist.errors import ConfigError, DataError

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
    opener: Any = gzip.open if source.suffix == ".gz" else open
    with opener(source, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _vector(source, number, line)


def are_vectors(path: PathLike) -> bool:
    """Returns whether a file's first line is a vector; False where it does not exist."""
    source = Path(path)
    if not source.is_file() or not source.name.lower().endswith((".jsonl", ".jsonl.gz")):
        return False
    opener: Any = gzip.open if source.suffix == ".gz" else open
    with opener(source, "rb") as lines:
        first = next((line for line in lines if line.strip()), b"")
    try:
        record = json.loads(first)
    except ValueError:
        return False
    return isinstance(record, dict) and isinstance(record.get("vector"), dict)


def _vector(source: Path, number: int, line: bytes) -> Vector:
    excerpt = line[:200].decode("utf-8", "replace").rstrip()
    try:
        record = json.loads(line)
        name, weights = record["id"], record["vector"]
        values = np.array(list(weights.values()), np.float64)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError.at(source, number, excerpt, _EXPECTED) from None
    good = isinstance(name, str | int) and np.isfinite(values).all() and (values >= 0).all()
    if not good or values.ndim != 1:
        raise DataError.at(source, number, excerpt, _EXPECTED)
    return str(name), weights


def index_vectors(
    vectors: Iterable[Vector],
    folder: Path,
    *,
    unit: float = 0.01,
    compress: bool = True,
    block_size: int = 128,
    segment_documents: int = 200_000,
) -> dict[str, Any]:
    """Writes the segments of weighted documents below `folder` and returns the facts.

    The facts are those of a build, with the `unit` and without an analyzer: they belong in the
    manifest of a `bow-index`.

    Args:
        vectors: documents in order.
        folder: `folder/segments/00000/NNNNN` are written.
        unit: the smallest weight that counts; others are rounded to multiples of it.
        compress: bit-packed postings; False writes raw arrays.
        block_size: postings per block.
        segment_documents: documents per segment, which are in memory at once.

    Raises:
        ConfigError: a unit that is not positive.
        DataError: no documents, an id twice, or a weight of more than 2**32 - 1 units.
    """
    if not unit > 0:
        raise ConfigError(f"unit = {unit}: expected more than 0")
    facts: dict[str, Any] = dict.fromkeys(("documents", "terms", "postings", "tokens", "bytes"), 0)
    seen: set[str] = set()
    batch: list[str] = []
    rows: list[Mapping[str, float]] = []
    segments: list[str] = []
    empty = 0

    def flush() -> None:
        name = f"segments/00000/{len(segments):05d}"
        stats = _write(folder / name, batch, rows, unit, compress, block_size)
        segments.append(name)
        for key in facts:
            facts[key] += stats[key]
        batch.clear()
        rows.clear()

    for name, weights in vectors:
        if name in seen:
            raise DataError(f"the document id {name!r} occurs twice")
        seen.add(name)
        empty += not any(round(weight / unit) for weight in weights.values())
        batch.append(name)
        rows.append(weights)
        if len(batch) == segment_documents:
            flush()
    if not seen:
        raise DataError("the file has no documents")
    if batch:
        flush()
    return {**facts, "empty": empty, "segments": segments, "store": None, "unit": unit}


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
