"""Makes one segment of a multi-vector index from shards of coded vectors.

Shapes: K centroids.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.late.format import CODES, LIST_STARTS, LISTS, RESIDUALS, STARTS, seal
from raydist.late.token_shards import DOCUMENT, DOCUMENTS, read_documents
from raydist.log import Progress

_ENTRIES = 1 << 22
"""Entries of lists that are merged together."""


def write_lists(target: Path, pairs: Sequence[np.ndarray], centroids: int) -> None:
    """Writes the documents of each centroid into a shard.

    Args:
        target: the shard.
        pairs: int64, a centroid in the upper 32 bits and a document in the lower ones.
        centroids: K.
    """
    # A document is in a centroid's list once.
    entries = np.unique(np.concatenate([np.zeros(0, np.int64), *pairs]))
    starts = np.searchsorted(entries >> 32, np.arange(centroids + 1))
    (target / LIST_STARTS).write_bytes(starts.astype(np.int64).tobytes())
    (target / LISTS).write_bytes((entries & 0xFFFFFFFF).astype(np.uint32).tobytes())


def assemble(segment: Path, tables: Sequence[Path], coded: Sequence[Path]) -> dict[str, Any]:
    """Writes a segment into an empty folder; returns its description.

    Args:
        segment: the folder.
        tables: the shards with the documents.
        coded: the shards with their vectors and lists.
    """
    with Progress("write the index", len(coded), "shard") as progress:
        firsts, documents, vectors = [], 0, 0
        with (
            open(segment / CODES, "wb") as codes,
            open(segment / RESIDUALS, "wb") as residuals,
            open(segment / STARTS, "wb") as starts,
            pa.OSFile(str(segment / DOCUMENTS), "wb") as file,
            pa.ipc.new_file(file, DOCUMENT) as writer,
        ):
            for place, shard in zip(tables, coded):
                table = read_documents(place)
                lengths_n = table["vectors"].to_numpy().astype(np.int64)
                ends = vectors + np.cumsum(lengths_n)
                starts.write((ends - lengths_n).data)
                writer.write_table(table)
                for name, sink in ((CODES, codes), (RESIDUALS, residuals)):
                    with open(shard / name, "rb") as source:
                        shutil.copyfileobj(source, sink, 1 << 20)
                firsts.append(documents)
                documents += len(lengths_n)
                vectors += int(lengths_n.sum())
                progress.advance(1)
            starts.write(np.array([vectors], np.int64).data)
        _merge_lists(segment, coded, firsts)
        return seal(segment, documents=documents, vectors=vectors)


def _merge_lists(target: Path, shards: Sequence[Path], firsts: Sequence[int]) -> None:
    """Writes the lists of all shards, centroid by centroid, some at a time."""
    starts = [np.memmap(shard / LIST_STARTS, np.int64, "r") for shard in shards]
    totals = np.asarray(sum(starts), np.int64)
    (target / LIST_STARTS).write_bytes(totals.tobytes())
    with open(target / LISTS, "wb") as sink:
        for first, stop in _ranges(totals):
            owners, documents = [], []
            for own, shard, base in zip(starts, shards, firsts):
                size = int(own[stop] - own[first])
                part = np.fromfile(shard / LISTS, np.uint32, size, offset=4 * int(own[first]))
                documents.append(part + np.uint32(base))
                owners.append(np.repeat(np.arange(stop - first), np.diff(own[first : stop + 1])))
            order = np.argsort(np.concatenate(owners), kind="stable")
            sink.write(np.concatenate(documents)[order].data)


def _ranges(totals: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields ranges of centroids whose lists are merged together."""
    first, count = 0, len(totals) - 1
    while first < count:
        stop = int(np.searchsorted(totals, totals[first] + _ENTRIES, "right")) - 1
        stop = min(count, max(first + 1, stop))
        yield first, stop
        first = stop
