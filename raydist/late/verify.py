"""Checks all of a multi-vector index: its files, lists, ids and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raydist.checks import Report
from raydist.data.store import idhash
from raydist.errors import ArtifactError
from raydist.late.format import SEGMENTS, Codec, Segment, faults_of
from raydist.log import count


def verify_late(folder: Path, manifest: Mapping[str, Any], report: Report) -> None:
    """Checks all that a manifest names and says; see `Report` for what becomes of faults."""
    with report.part("centroids") as part:
        codec = Codec.open(folder)
        part.checked = count(len(codec.centroids.vectors_KD), "centroid")
    if report.faults:
        return
    segments = []
    for each in manifest["segments"]:
        place = folder / SEGMENTS / each["name"]
        with report.part(f"{SEGMENTS}/{each['name']}") as part:
            segment = Segment.open(place, codec.code, each["deleted"])
            if not report.add(faults_of(place)):
                return
            _check_lists(segment, len(codec.centroids.vectors_KD))
            part.checked = (
                f"{count(len(segment), 'document')}, {count(len(segment.codes), 'vector')}"
            )
            segments.append(segment)
    if report.faults:
        return
    with report.part("document ids") as part:
        chunks = [chunk for segment in segments for chunk in segment.doc_ids.chunks]
        live = sum(each.live for each in segments)
        part.checked = count(live, "id")
        if live != manifest["documents"]:
            raise ArtifactError(
                f"{folder}: {count(live, 'document')}, its manifest says {manifest['documents']}; "
                "embed the corpus again"
            )
        twice = idhash.find_duplicates(chunks[0]) if len(chunks) == 1 else None
        if twice is not None and twice.count:
            raise ArtifactError(
                f"{folder}: {count(twice.count, 'document')} with the id of an earlier one, the "
                f"first {twice.examples[0][0]!r}; embed the corpus again"
            )


def _check_lists(segment: Segment, centroids: int) -> None:
    """Raises ArtifactError where the lists are not those of the codes."""
    starts, documents = segment.lists
    where = segment.folder
    if len(segment.codes) and int(segment.codes.max()) >= centroids:
        raise ArtifactError(f"{where}: a code beyond the centroids; embed the corpus again")
    lengths_n = np.diff(segment.starts)
    owners = np.repeat(np.arange(len(segment), dtype=np.int64), lengths_n)
    expected = np.unique(segment.codes.astype(np.int64) << 32 | owners)
    listed = np.repeat(np.arange(centroids, dtype=np.int64), np.diff(starts)) << 32 | documents
    if not np.array_equal(expected, listed):
        raise ArtifactError(f"{where}: its lists are not those of its codes; embed again")
