"""Deletes documents from an index: the rest is searched, to the bit, as if it had been built alone.

Nothing is rewritten. What is deleted is marked, and what the statistics lose by it follows from
the deleted documents' own terms (of the forward index, or of their texts), or from the segment's
lists where there is neither (format/deletions.py). The postings and texts themselves go when the
segments are merged.

Legend: N documents of a segment, T terms, P postings, D documents to delete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.bow.build.generation import LAYOUT
from raydist.bow.build.splits import TEXTS, Inverter, contents
from raydist.bow.format.deletions import Losses, write_deletions
from raydist.bow.format.forward import forward_bytes, has_forward, read_vectors
from raydist.bow.format.segment import Segment
from raydist.bow.index import BowIndex
from raydist.data.store.reader import join
from raydist.disk import remove
from raydist.errors import DataError
from raydist.kernels.bits import Bits

Array = npt.NDArray[Any]

_DOCUMENTS = 10_000  # analysed at once
_TERMS = 1 << 15  # read together
_POSTINGS = 1 << 22  # the same
_SHARE = 8  # of a segment: where more than one in so many documents goes, its lists are read


def delete_from_index(folder: Path, doc_ids: Iterable[str] | pa.Array) -> dict[str, Any] | None:
    """Deletes documents and returns the facts of the new manifest.

    Returns None if the index's latest change was to delete the same ones.

    Args:
        folder: a complete index.
        doc_ids: external ids; of an id that occurs twice all documents go.

    Raises:
        ArtifactError: the index is incomplete or damaged.
        DataError: an id that the index does not have, or nothing would be left.
    """
    ids = doc_ids if isinstance(doc_ids, pa.Array) else pa.array(doc_ids)
    ids = pc.unique(ids.cast(pa.large_string()))

    def mark(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
        index = BowIndex.open(folder)
        positions = index.positions(ids)
        if manifest.get("duplicates"):  # an old index: an id may have several documents
            gone = pc.is_in(index.doc_ids, value_set=ids).to_numpy(zero_copy_only=False)
            positions = index.at_numbers(np.flatnonzero(gone))
        if len(positions) == len(index):
            raise DataError(f"{folder}: no document would be left; delete the folder instead")
        return mark_deleted(folder, manifest, index, positions, name)

    return LAYOUT.delete(folder, ids, mark)


def mark_deleted(
    folder: Path, manifest: Mapping[str, Any], index: BowIndex, positions_D: Array, name: str
) -> dict[str, Any]:
    """Writes the deletions of some documents; returns what changes in the manifest.

    Args:
        folder: where the segments and the store of the manifest lie.
        manifest: the present one.
        index: opened by it.
        positions_D: of live documents, without repetition.
        name: of the generation that is written.
    """
    places = dict(manifest.get("deletions", {}))
    positions_D = np.sort(positions_D)
    bounds = np.searchsorted(positions_D, [*index.bases, index.end])
    remove(folder / "deletions" / name)
    for number, segment in enumerate(index.segments):
        docs_D = positions_D[bounds[number] : bounds[number + 1]] - index.bases[number]
        if len(docs_D):
            live = Bits.full(segment.documents)
            losses = _losses(index, number, docs_D)
            if segment.deletions is not None:
                live = segment.deletions.live
                losses = segment.deletions.losses() + losses
            place = f"deletions/{name}/{number:05d}"
            write_deletions(folder / place, live.without(docs_D), losses)
            places[manifest["segments"][number]] = place
    changes: dict[str, Any] = statistics(
        Segment.open(folder / each, folder / places[each] if each in places else None)
        for each in manifest["segments"]
    )
    if manifest["store"]:
        assert index.store is not None
        rows = index.store.at_numbers(index.numbers(positions_D))
        live = (index.store.live or Bits.full(index.store.rows_total)).without(rows)
        pieces = [each.folder.name for each in index.store.pieces]
        changes["store"] = f"joined-{name}"
        remove(folder / changes["store"])
        join(folder / changes["store"], pieces, live if live.count < live.size else None)
    return {**changes, "deletions": places}


def statistics(segments: Iterable[Segment]) -> dict[str, int]:
    """Returns what a manifest says of its segments' live documents, and how many are deleted."""
    segments = list(segments)
    return {
        "documents": sum(each.live_documents for each in segments),
        "empty": sum(each.live_documents - each.nonempty for each in segments),
        "postings": sum(each.live_postings for each in segments),
        "tokens": sum(each.tokens for each in segments),
        "deleted": sum(each.documents - each.live_documents for each in segments),
    }


def forward_facts(segments: Iterable[Segment]) -> dict[str, int]:
    """Returns what a manifest says of forward indexes, nothing if there is none."""
    size = sum(map(forward_bytes, segments))
    return {"forward_bytes": size} if size else {}


def _losses(index: BowIndex, number: int, docs_D: Array) -> Losses:
    """Returns what a segment's statistics lose by some of its documents."""
    segment = index.segments[number]
    lengths_D = segment.lengths_N[docs_D]
    losses = None
    if len(docs_D) * _SHARE <= segment.documents:
        if has_forward(segment):
            return _by_vectors(segment, docs_D, lengths_D)
        losses = _by_texts(index, docs_D + index.bases[number], lengths_D)
    return losses or _by_lists(segment, docs_D, lengths_D)


def _by_vectors(segment: Segment, docs_D: Array, lengths_D: Array) -> Losses:
    """Reads the documents' terms in the forward index."""
    parts = [docs_D[start : start + _DOCUMENTS] for start in range(0, len(docs_D), _DOCUMENTS)]
    positions = np.concatenate([read_vectors(segment, part)[1] for part in parts])
    distinct_T, df_T = np.unique(positions, return_counts=True)
    return _of_documents(lengths_D, segment.pick_terms(distinct_T), df_T)


def _by_texts(index: BowIndex, positions_D: Array, lengths_D: Array) -> Losses | None:
    """Analyses the documents' texts; None where there are none, or not those that were indexed."""
    if index.store is None or index.analyzer is None or index.field not in (None, *TEXTS):
        return None
    rows = index.store.at_numbers(index.numbers(positions_D))
    losses: Losses | None = None
    for start in range(0, len(rows), _DOCUMENTS):
        table = index.store.rows(rows[start : start + _DOCUMENTS])
        inverter = Inverter(index.analyzer)
        inverter.add(table["doc_id"], contents(table, index.field))
        postings = inverter.postings()
        if not np.array_equal(postings.lengths_N, lengths_D[start : start + _DOCUMENTS]):
            return None
        df_T = np.diff(postings.indptr_T1)
        part = _of_documents(postings.lengths_N, postings.terms, df_T)
        losses = part if losses is None else losses + part
    return losses


def _by_lists(segment: Segment, docs_D: Array, lengths_D: Array) -> Losses:
    """Reads all of the segment's postings."""
    deleted_N = np.zeros(segment.documents, np.bool_)
    deleted_N[docs_D] = True
    names, counts = [pa.array([], pa.large_binary())], [np.empty(0, np.int64)]
    for terms, indptr_T1, docs_P, _ in segment.slices(_TERMS, _POSTINGS):
        df_T = np.add.reduceat(deleted_N[docs_P], indptr_T1[:-1], dtype=np.int64)
        names.append(terms.filter(pa.array(df_T > 0)))
        counts.append(df_T[df_T > 0])
    return _of_documents(lengths_D, pa.concat_arrays(names), np.concatenate(counts))


def _of_documents(lengths_D: Array, terms: pa.LargeBinaryArray, df_T: Array) -> Losses:
    return Losses(
        documents=len(lengths_D),
        nonempty=int(np.count_nonzero(lengths_D)),
        tokens=int(lengths_D.sum(dtype=np.int64)),
        postings=int(df_T.sum()),
        terms=terms,
        df_T=df_T,
    )
