"""Segments of a folder of vectors: what `embed` built, and what was added to it.

A multi-vector index names its segments in the same way.

manifest.json                     names the segments, in order, and what is deleted of them
shards/, ann/                     what was built first; its segment is `.`
segments/00001-3f…/shards/, ann/  what was added, or merged
deletions/00002-9a…/00000/live    a bit for each vector of a segment
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raydist.errors import ArtifactError
from raydist.generations import Layout
from raydist.kernels.bits import Bits, bytes_of

KIND = "vectors"
SHARDS = "shards"
ANN = "ann"
FIRST = "."
"""The name of the segment that was built first."""

FORM = ("dimension", "precision", "rescore_precision", "bits", "columns", "chunk")
"""Facts of all segments alike."""

_LIVE = "live"
_OWN = ("shards", "documents", "vectors", ANN)
_SUMS = ("shards", "vectors")

Manifest = Mapping[str, Any]


def segments_of(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Returns the segments by name, in order, each with the facts that its vectors need.

    `documents` of these facts counts the deleted ones, too.
    """
    common = {name: manifest[name] for name in FORM if name in manifest}
    own = manifest.get("segment_facts")
    if own is None:
        own = {FIRST: {name: manifest[name] for name in _OWN if name in manifest}}
    names = manifest.get("segments", [FIRST])
    return {name: {**common, **own[name]} for name in names}


def segment_facts(segments: Mapping[str, Manifest]) -> dict[str, Any]:
    """Returns what a manifest says of segments, the reverse of `segments_of`."""
    return {
        "segments": list(segments),
        "segment_facts": {
            name: {key: facts[key] for key in _OWN if key in facts}
            for name, facts in segments.items()
        },
        **{
            name: sum(int(facts[name]) for facts in segments.values())
            for name in _SUMS
            if any(name in facts for facts in segments.values())
        },
    }


def named_folders(folder: Path, manifest: Manifest) -> set[Path]:
    """Returns the folders that a manifest names."""
    names = {*manifest.get("deletions", {}).values()}
    for name, facts in segments_of(manifest).items():
        names |= {SHARDS, *([ANN] if ANN in facts else [])} if name == FIRST else {name}
    return {folder / name for name in names}


LAYOUT = Layout(KIND, (SHARDS, ANN, "segments/*", "deletions/*"), named_folders)


def write_live(folder: Path, live: Bits) -> None:
    """Writes which vectors of a segment are live into a new folder, with a checksum."""
    folder.mkdir(parents=True)
    data = live.data.tobytes()
    (folder / _LIVE).write_bytes(data + zlib.crc32(data).to_bytes(4, "little"))


def read_live(folder: Path, size: int) -> Bits:
    """Returns which of a segment's vectors are live.

    Raises ArtifactError where the file is missing or damaged.
    """
    path = folder / _LIVE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}; embed the corpus again") from None
    if len(data) != bytes_of(size) + 4 or zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
        raise ArtifactError(f"{path}: is damaged; embed the corpus again")
    return Bits(np.frombuffer(data[:-4], np.uint8), size)


def live_of(folder: Path, manifest: Manifest, segment: str) -> Bits | None:
    """Returns which vectors of a segment are live, None where all are.

    Raises ArtifactError as `read_live` does.
    """
    place = manifest.get("deletions", {}).get(segment)
    if place is None:
        return None
    return read_live(folder / place, int(segments_of(manifest)[segment]["documents"]))


def lives_of(folder: Path, manifest: Manifest) -> list[Bits | None]:
    """Returns which vectors of each segment are live; see `live_of`."""
    return [live_of(folder, manifest, name) for name in segments_of(manifest)]
