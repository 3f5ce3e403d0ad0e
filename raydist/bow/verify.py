"""Checks a whole index: its files, and whether their contents agree with the manifest.

Legend: N documents of a segment, T terms, P postings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.bow.build.delete import forward_facts, statistics
from raydist.bow.build.generation import LAYOUT
from raydist.bow.fields import folders_of, open_fields
from raydist.bow.format.files import faults_of
from raydist.bow.format.forward import has_forward, read_vectors
from raydist.bow.format.segment import Segment
from raydist.bow.format.weights import has_weights, weights_fault
from raydist.bow.formulas import norm_bytes
from raydist.bow.index import KIND, BowIndex
from raydist.checks import Report
from raydist.data.columns import type_name
from raydist.data.store import check as store_check
from raydist.data.store import idhash
from raydist.data.store.reader import piece_names
from raydist.errors import ArtifactError
from raydist.log import Progress, count
from raydist.manifest import read_manifest
from raydist.text.analyzer import Analyzer

Array = npt.NDArray[Any]

_TERMS = 1 << 15  # read together
_POSTINGS = 1 << 22  # the same
_DOCUMENTS = 1 << 14  # whose forward index is read together


def verify_index(folder: Path, manifest: Mapping[str, Any], report: Report) -> None:
    """Checks all that a manifest names and says; see `Report` for what becomes of faults."""
    before = len(report.faults)
    deletions = manifest.get("deletions", {})
    with report.part("names in the manifest") as part:
        unknown = set(deletions) - set(manifest["segments"])
        report.add(f"{folder}: deletions of {each}, which it does not have" for each in unknown)
        if manifest.get("analyzer") is not None:
            Analyzer.from_dict(manifest["analyzer"])
        part.checked = count(len(manifest["segments"]), "segment")
    for name in manifest["segments"]:
        place = folder / deletions[name] if name in deletions else None
        _verify_segment(folder / name, place, manifest, report)
    store, pieces = manifest.get("store"), list[str]()
    if store:
        with report.part("texts") as part:
            pieces = piece_names(folder / store)
            part.checked = count(len(pieces), "folder")
        for piece in pieces:
            with report.part(piece) as part:
                part.checked = store_check.verify(folder / piece, report)
    if len(report.faults) > before:
        return
    with report.part("statistics") as part:
        index = BowIndex.of(folder, manifest)
        report.add(_differences(index, manifest))
        part.checked = f"{count(len(index), 'document')}, {count(index.tokens, 'token')}"
    if len(report.faults) == before:
        _verify_ids(index, manifest, report)


def verify_fields(folder: Path, report: Report) -> None:
    """Checks the index of each field, and that they have the same documents."""
    for each in folders_of(folder):
        verify_index(each, read_manifest(each, [KIND]), report)
    if report.faults:
        return
    with report.part("fields") as part:
        indexes = open_fields(folder)
        first = next(iter(indexes.values())).doc_ids.cast(pa.large_string())
        for name, index in indexes.items():
            if not index.doc_ids.cast(pa.large_string()).equals(first):
                raise ArtifactError(
                    f"{folder / name}: its documents are not those of the first field; build "
                    f"{folder} again"
                )
        part.checked = f"{count(len(indexes), 'field')}, {count(len(first), 'document')}"


def _verify_segment(
    folder: Path, deletions: Path | None, manifest: Mapping[str, Any], report: Report
) -> None:
    with report.part(_short(folder)) as part:
        intact = report.add(faults_of(folder, "segment"))
        if deletions is not None:
            intact = report.add(faults_of(deletions, "deletions")) and intact
        if not intact:
            part.checked = "files"
            return
        segment = Segment.open(folder, deletions)
        exact = manifest.get("unit") or (
            manifest.get("analyzer") and "ciff" not in manifest["inputs"]
        )
        for fault in _contradictions(segment, bool(exact)):
            report.faults.append(f"{folder}: {fault}; build the index again")
        part.checked = (
            f"{count(len(segment.files.header['files']), 'file')}, "
            f"{count(segment.documents, 'document')}, {count(segment.size, 'term')}, "
            f"{count(segment.postings_total, 'posting')}"
        )


def _short(folder: Path) -> str:
    return "/".join(folder.parts[folder.parts.index("segments") :])


def _contradictions(segment: Segment, exact: bool) -> Iterator[str]:
    """Yields the contradictions within an intact segment.

    Args:
        segment: its files are as they were written.
        exact: whether a document's length is the sum of its frequencies.
    """
    order_N, norms_N, header = segment.order_N, segment.slot_norms_N, segment.files.header
    if len(norms_N) != segment.documents:
        yield f"{len(norms_N):,} norms of {segment.documents:,} documents"
        return
    if order_N is not None and not np.array_equal(np.sort(order_N), np.arange(len(norms_N))):
        yield "the order of the documents leaves some out"
        return
    try:
        lengths_N = segment.lengths_N
    except ArtifactError as error:
        yield str(error)
        return
    if len(lengths_N) != segment.documents:
        yield f"{len(lengths_N):,} lengths of {segment.documents:,} documents"
        return
    if int(lengths_N.sum(dtype=np.int64)) != header["tokens"]:
        yield f"segment.json says {header['tokens']:,} tokens, the lengths {lengths_N.sum():,}"
    if int(np.count_nonzero(lengths_N)) != header["nonempty"]:
        yield f"segment.json says {header['nonempty']:,} documents with terms"
    if not np.array_equal(norm_bytes(lengths_N), segment.norms_N):
        yield "norms are not those of the lengths"
    ids = sum(
        len(segment.read_ids(a, min(a + _POSTINGS, segment.documents)))
        for a in range(0, segment.documents, _POSTINGS)
    )
    if ids != segment.documents:
        yield f"{ids:,} ids of {segment.documents:,} documents"
    if segment.columns is not None and segment.columns.num_rows != segment.documents:
        yield f"columns of {segment.columns.num_rows:,} of {segment.documents:,} documents"
    yield from _postings_faults(segment, exact)
    if has_weights(segment) and (fault := weights_fault(segment)) is not None:
        yield fault


def _postings_faults(segment: Segment, exact: bool) -> Iterator[str]:
    dead_N = None if segment.deletions is None else ~segment.live_N
    sums_N = np.zeros(segment.documents, np.int64)
    mixed_N = np.zeros(segment.documents, np.float64) if has_forward(segment) else None
    terms_seen = postings = lost_postings = 0
    last: bytes | None = None
    lost_terms, lost_df = [pa.array([], pa.large_binary())], [np.empty(0, np.int64)]
    with Progress(f"checking {_short(segment.folder)}", unit="posting") as progress:
        for terms, indptr_T1, docs_P, tfs_P in segment.slices(_TERMS, _POSTINGS):
            names = pa.concat_arrays(
                [pa.array([] if last is None else [last], pa.large_binary()), terms]
            )
            if pc.any(pc.less_equal(names[1:], names[:-1])).as_py():
                yield "terms do not ascend"
            last = terms[len(terms) - 1].as_py()
            if len(docs_P) and int(docs_P.max()) >= segment.documents:
                yield f"a posting of document {docs_P.max():,}, there are {segment.documents:,}"
                return
            if segment.has_positions:
                yield from _positions_faults(segment, terms_seen, terms_seen + len(terms))
            down_P = np.diff(docs_P.astype(np.int64)) <= 0
            down_P[indptr_T1[1:-1] - 1] = False
            if down_P.any():
                yield "the documents of a term do not ascend"
            if len(tfs_P) and not tfs_P.min():
                yield "a frequency of 0"
            sums_N += np.bincount(docs_P, weights=tfs_P, minlength=len(sums_N)).astype(np.int64)
            if dead_N is not None and len(docs_P):
                df_T = np.add.reduceat(dead_N[docs_P], indptr_T1[:-1], dtype=np.int64)
                lost_terms.append(terms.filter(pa.array(df_T > 0)))
                lost_df.append(df_T[df_T > 0])
                lost_postings += int(df_T.sum())
            if mixed_N is not None:
                terms_P = np.repeat(
                    np.arange(terms_seen, terms_seen + len(terms)), np.diff(indptr_T1)
                )
                mixed_N += np.bincount(docs_P, _mixed(terms_P, tfs_P), minlength=len(mixed_N))
            terms_seen += len(terms)
            postings += len(docs_P)
            progress.advance(len(docs_P))
    if (terms_seen, postings) != (segment.size, segment.postings_total):
        yield (
            f"segment.json says {segment.size:,} terms and {segment.postings_total:,} postings, "
            f"there are {terms_seen:,} and {postings:,}"
        )
    if mixed_N is not None and (doc := _first_difference(segment, mixed_N)) is not None:
        yield f"document {doc + 1:,} has other terms in the forward index than in the postings"
    lengths_N = segment.lengths_N
    if exact and not np.array_equal(sums_N, lengths_N):
        number = int(np.flatnonzero(sums_N != lengths_N)[0])
        yield (
            f"document {number + 1:,} has length {lengths_N[number]:,}, its frequencies add up to "
            f"{sums_N[number]:,}"
        )
    if (sums_N > 0)[lengths_N == 0].any():
        yield "a document without length has postings"
    if segment.deletions is not None and dead_N is not None:
        lost = segment.deletions.losses()
        actual = (
            int(np.count_nonzero(dead_N)),
            int(np.count_nonzero(lengths_N[dead_N])),
            int(lengths_N[dead_N].sum(dtype=np.int64)),
            lost_postings,
        )
        if (lost.documents, lost.nonempty, lost.tokens, lost.postings) != actual:
            yield f"{segment.deletions.folder} does not count what its deleted documents have"
        if not lost.terms.equals(pa.concat_arrays(lost_terms)) or not np.array_equal(
            lost.df_T, np.concatenate(lost_df)
        ):
            yield f"{segment.deletions.folder} counts terms that its deleted documents do not have"


def _positions_faults(segment: Segment, first: int, last: int) -> Iterator[str]:
    """Yields what is wrong with the positions of the terms `first <= t < last`."""
    sizes_T, begin = segment.positions.sizes(first, last)
    if begin + int(sizes_T.sum()) > segment.files.header["files"]["positions"]["bytes"]:
        yield "positions end before those of all terms"
        return
    *_, tfs_P, positions_W = segment.read(first, last)
    assert positions_W is not None
    down_W = np.diff(positions_W.astype(np.int64)) <= 0
    down_W[np.cumsum(tfs_P, dtype=np.int64)[:-1] - 1] = False
    if down_W.any():
        yield "the positions of a term in a document do not ascend"


def _mixed(terms_P: Array, tfs_P: Array) -> Array:
    """Returns a number below 2**32 of each term and frequency, whose sums are exact, float64."""
    word_P = terms_P.astype(np.uint64) << np.uint64(32) | tfs_P.astype(np.uint64)
    word_P *= np.uint64(0x9E3779B97F4A7C15)
    word_P ^= word_P >> np.uint64(29)
    word_P *= np.uint64(0xBF58476D1CE4E5B9)
    return (word_P >> np.uint64(32)).astype(np.float64)


def _first_difference(segment: Segment, mixed_N: Array) -> int | None:
    """Returns the first document whose terms in the forward index are not those of `mixed_N`."""
    for start in range(0, segment.documents, _DOCUMENTS):
        docs_D = np.arange(start, min(start + _DOCUMENTS, segment.documents))
        indptr_D1, terms_P, tfs_P = read_vectors(segment, docs_D)
        owner_P = np.repeat(np.arange(len(docs_D)), np.diff(indptr_D1))
        sums_D = np.bincount(owner_P, _mixed(terms_P, tfs_P), minlength=len(docs_D))
        if len(other := np.flatnonzero(sums_D != mixed_N[docs_D])):
            return start + int(other[0])
    return None


def _differences(index: BowIndex, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yields what a manifest says of its segments that these do not."""
    columns = {} if index.columns is None else index.columns.schema
    types = {each.name: type_name(each.type) for each in columns}
    if manifest.get("columns", {}) != types:
        yield f"{index.folder}/manifest.json: says columns {manifest.get('columns')}, not {types}"
    terms = sum(each.size for each in index.segments)
    facts = {**statistics(index.segments), **forward_facts(index.segments), "terms": terms}
    for name, value in facts.items():
        if manifest.get(name, 0) != value:
            yield (
                f"{index.folder}/manifest.json: says {manifest.get(name)} {name}, the segments "
                f"{value}; build the index again"
            )


def _verify_ids(index: BowIndex, manifest: Mapping[str, Any], report: Report) -> None:
    """Checks the ids of the segments and of the texts, and says what is pending."""
    folder = index.folder
    with report.part("document ids") as part:
        ids = pa.chunked_array([index.doc_ids.cast(pa.large_string())])
        repeats = idhash.find_duplicates(ids).count
        if repeats != manifest.get("duplicates", 0):
            report.faults.append(
                f"{folder}: ids that occur twice: {repeats:,}; build the index again"
            )
        part.checked = f"{count(len(ids), 'id')}, {repeats:,} of them repeated"
        if index.store is not None and not index.store.doc_ids.combine_chunks().equals(
            ids.combine_chunks()
        ):
            raise ArtifactError(
                f"{index.store.folder}: its documents are not those of the index; build it again"
            )
    deleted = sum(each.documents - each.live_documents for each in index.segments)
    if folder is not None:
        LAYOUT.report_pending(folder, deleted, report)
    live = index.store.live if index.store is not None else None
    if live is not None and live.size - live.count > deleted:
        what = count(live.size - live.count, "deleted text")
        report.pending.append(f"raydist merge out={folder} removes {what}")
