"""Checks all of a multi-vector index: its files, lists, ids and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raydist.checks import Report
from raydist.data.store import idhash
from raydist.dense.segments import lives_of, segments_of
from raydist.errors import ArtifactError
from raydist.late.documents import Documents
from raydist.late.format import LAYOUT, Codec, Segment, faults_of
from raydist.log import count


def verify_late(folder: Path, manifest: Mapping[str, Any], report: Report) -> None:
    """Checks all that a manifest names and says; see `Report` for what becomes of faults."""
    with report.part("centroids") as part:
        codec = Codec.open(folder)
        part.checked = count(len(codec.centroids.vectors_KD), "centroid")
    if report.faults:
        return
    lives = lives_of(folder, manifest)
    segments = []
    for (name, facts), live in zip(segments_of(manifest).items(), lives):
        with report.part(name) as part:
            segment = Segment.open(folder / name, live)
            if not report.add(faults_of(folder / name)):
                return
            _check_lists(segment, len(codec.centroids.vectors_KD))
            vectors = len(segment.codes)
            if (len(segment), vectors) != (facts["documents"], facts["vectors"]):
                raise ArtifactError(
                    f"{folder / name}: {count(len(segment), 'document')} with "
                    f"{count(vectors, 'vector')}, the manifest says {facts['documents']} with "
                    f"{facts['vectors']}; embed the corpus again"
                )
            part.checked = f"{count(len(segment), 'document')}, {count(vectors, 'vector')}"
            segments.append(segment)
    if report.faults:
        return
    documents = Documents(segments)
    gone = documents.end - len(documents)
    with report.part("document ids") as part:
        part.checked = count(len(documents), "id")
        if (len(documents), gone) != (manifest["documents"], manifest.get("deleted", 0)):
            raise ArtifactError(
                f"{folder}: {count(len(documents), 'document')} and {gone} deleted, its manifest "
                f"says {manifest['documents']} and {manifest.get('deleted', 0)}; embed the corpus "
                "again"
            )
        twice = idhash.find_duplicates(documents.id_parts)
        if twice.count:
            raise ArtifactError(
                f"{folder}: {count(twice.count, 'document')} with the id of an earlier one, the "
                f"first {twice.examples[0][0]!r}; embed the corpus again"
            )
    LAYOUT.report_pending(folder, gone, report)


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
