"""Checks all of a folder of vectors: its shards, ids and values, and the approximate index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.checks import Report
from raydist.data.store import idhash
from raydist.dense.ann import AnnIndex
from raydist.dense.files import faults_of
from raydist.dense.segments import ANN, LAYOUT, segments_of
from raydist.dense.vectors import VectorShards
from raydist.errors import ArtifactError
from raydist.log import Progress, count

_ROWS = 1 << 14  # read together


def verify_vectors(folder: Path, manifest: Mapping[str, Any], report: Report) -> None:
    """Checks all that a manifest names and says; see `Report` for what becomes of faults."""
    segments = segments_of(manifest)
    with report.part("shards") as part:
        faults = [f for name, each in segments.items() for f in faults_of(folder / name, each)]
        part.checked = count(int(manifest["shards"]), "file")
        if not report.add(faults):
            return
        vectors = VectorShards.map(folder, manifest)
        with Progress("checking vectors", len(vectors), "vectors") as progress:
            for start, block_nD in vectors.blocks(_ROWS):
                if not np.isfinite(block_nD).all():
                    row = start + int(np.flatnonzero(~np.isfinite(block_nD).all(axis=1))[0])
                    raise ArtifactError(
                        f"{folder}: vector {row + 1:,} is not finite; embed the corpus again"
                    )
                progress.advance(len(block_nD))
        counts = {"documents": len(vectors), "deleted": vectors.end - len(vectors)}
        for name, value in counts.items():
            if manifest.get(name, 0) != value:
                raise ArtifactError(
                    f"{folder}/manifest.json: says {manifest.get(name)} {name}, the shards "
                    f"{value}; embed the corpus again"
                )
        part.checked += f", {count(len(vectors), 'vector')} of {vectors.dimension} dimensions"
    with report.part("document ids") as part:
        ids = vectors.doc_ids.cast(pa.large_string())
        repeats = idhash.find_duplicates(ids)
        part.checked = count(len(ids), "id")
        if repeats.count:
            raise ArtifactError(
                f"{folder}: {count(repeats.count, 'vector')} with the id of an earlier one, the "
                f"first {repeats.examples[0][0]!r}; embed the corpus again"
            )
    if any(ANN in each for each in segments.values()):
        with report.part(ANN) as part:
            index = AnnIndex.open(folder, manifest)
            part.checked = count(sum(each.verify() for each in index.segments), "file")
    LAYOUT.report_pending(folder, vectors.end - len(vectors), report)
