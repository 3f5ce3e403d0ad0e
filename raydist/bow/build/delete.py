"""Deletes documents from an index: the result is what a build without them would have written.

Segments that hold some of the documents are rewritten, and so is the store. Until the manifest
is replaced, the index is the old one.

Legend: N documents of a segment, T terms, P postings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist import locks
from raydist.bow.build.generation import next_name, publish
from raydist.bow.format.segment import Segment
from raydist.bow.format.writing import SegmentWriter
from raydist.bow.index import KIND, BowIndex
from raydist.data.store import idhash
from raydist.data.store.reader import DocumentStore
from raydist.data.store.writer import StoreWriter
from raydist.disk import disk_errors, remove
from raydist.errors import DataError
from raydist.fingerprints import value_fingerprint
from raydist.manifest import read_manifest

Array = npt.NDArray[Any]

_TERMS = 1 << 15  # read together
_POSTINGS = 1 << 22  # the same


def delete_from_index(folder: Path, doc_ids: Iterable[str]) -> dict[str, Any]:
    """Removes documents and returns the facts of the new manifest.

    Args:
        folder: a complete index.
        doc_ids: external ids; of an id that occurs twice all documents go.

    Raises:
        ArtifactError: the index is incomplete or damaged.
        DataError: an id that the index does not have, or nothing would be left.
    """
    ids = list(doc_ids)
    with locks.writer(folder):
        manifest = read_manifest(folder, [KIND])
        index = BowIndex.open(folder)
        index.positions(ids)  # the index has them all
        gone = pc.is_in(index.doc_ids, value_set=pa.array(ids, pa.string()))
        keep = ~np.asarray(gone.to_numpy(zero_copy_only=False), np.bool_)
        if not keep.any():
            raise DataError(f"{folder}: no document would be left; delete the folder instead")
        name = next_name(manifest, value_fingerprint(ids))
        with disk_errors(folder):
            remove(folder / "segments" / name)
            names = _without_documents(index, manifest["segments"], keep, folder, name)
            facts = _facts([Segment.open(folder / each) for each in names])
            facts["duplicates"] = _duplicates(index, keep) if manifest["duplicates"] else 0
            if manifest["store"]:
                facts |= _without_texts(index, keep, folder / f"store-{name}")
            manifest |= {**facts, "segments": names}
            manifest["deleted"] = manifest.get("deleted", 0) + int((~keep).sum())
            manifest.pop("appended", None)  # what was deleted may be appended again
            publish(folder, manifest)
    return manifest


def _without_documents(
    index: BowIndex, segments: list[str], keep: Array, folder: Path, name: str
) -> list[str]:
    """Rewrites segments that hold some of the documents; returns the names of all."""
    names: list[str] = []
    ends = [*index.bases[1:], len(index)]
    for i, (old, segment, start, stop) in enumerate(
        zip(segments, index.segments, index.bases, ends)
    ):
        keep_N = keep[start:stop]
        if keep_N.all():
            names.append(old)
        elif keep_N.any():
            names.append(f"segments/{name}/{i:05d}")
            _without(segment, keep_N, folder / names[-1])
    return names


def _without(segment: Segment, keep_N: Array, target: Path) -> None:
    """Writes a segment of the remaining documents."""
    number_N = (np.cumsum(keep_N) - 1).astype(np.uint32)
    writer = SegmentWriter(
        target,
        lengths_N=segment.lengths_N[keep_N],
        doc_ids=segment.doc_ids.filter(pa.array(keep_N)),
        compress=segment.compress,
        block_size=segment.block_size,
    )
    for terms, indptr_T1, docs_P, tfs_P in _slices(segment):
        keep_P = keep_N[docs_P]
        df_T = np.add.reduceat(keep_P, indptr_T1[:-1], dtype=np.int64)
        left_T = df_T > 0
        indptr = np.concatenate(([0], np.cumsum(df_T[left_T])))
        left = terms.filter(pa.array(left_T))
        writer.append(left, indptr, number_N[docs_P[keep_P]], tfs_P[keep_P])
    writer.close()


def _slices(segment: Segment) -> Iterator[tuple[pa.LargeBinaryArray, Array, Array, Array]]:
    """Yields terms with their postings, a bounded number at a time."""
    first = 0
    while first < segment.size:
        last = min(first + _TERMS, segment.size)
        numbers_TK = segment.read_terms(first, last)[1]
        ends = np.cumsum(numbers_TK[:, 0].astype(np.int64))
        last = first + max(1, int(np.searchsorted(ends, _POSTINGS, side="right")))
        yield (segment.read_terms(first, last)[0], *segment.postings(first, last))
        first = last


def _facts(segments: list[Segment]) -> dict[str, Any]:
    documents = sum(each.documents for each in segments)
    return {
        "documents": documents,
        "empty": documents - sum(each.nonempty for each in segments),
        "terms": sum(each.size for each in segments),
        "postings": sum(each.postings_total for each in segments),
        "tokens": sum(each.tokens for each in segments),
        "bytes": sum(
            entry["bytes"] for each in segments for entry in each.files.header["files"].values()
        ),
    }


def _duplicates(index: BowIndex, keep: Array) -> int:
    ids = index.doc_ids.filter(pa.array(keep)).cast(pa.large_string())
    return idhash.find_duplicates(pa.chunked_array([ids], pa.large_string())).count


def _without_texts(index: BowIndex, keep: Array, target: Path) -> dict[str, Any]:
    """Writes a store of the remaining documents."""
    assert index.store is not None
    remove(target)
    writer = StoreWriter(target)
    row = size = 0
    for table in index.store.tables():
        left = table.filter(pa.array(keep[row : row + table.num_rows]))
        row += table.num_rows
        size += left["text"].nbytes
        if left.num_rows:
            writer.append(left)
    writer.close()
    with DocumentStore.open(target) as written:
        bytes_of = written.facts["bytes"]
    return {"store": target.name, "store_bytes": bytes_of, "text_bytes": size}
