"""The files of a multi-vector index, mapped for reading.

A folder has the centroids (`centroids`, float16, their cells and the levels of residuals, described
by `codec.json`) and segments: what one build, append or merge wrote, named by the manifest as those
of a folder of vectors are. A segment has, for the vectors of its documents one after the other,

    codes               the number of each vector's centroid, uint16 or uint32
    residuals           its residual, see `residuals.py`
    starts              where each document's vectors begin, int64, and their number at the end
    documents.arrow     ids and numbers of vectors
    lists               the documents of each centroid's vectors, uint32, each once, ascending
    lists.starts        where each centroid's begin, int64
    about.json          numbers, sizes and checksums of all of them

Shapes: K centroids, C cells, D dimensions, N documents, t vectors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.data.store.format import checksum
from raydist.dense.segments import lives_of, named_folders, segments_of
from raydist.disk import atomic, write_json
from raydist.errors import ArtifactError
from raydist.fingerprints import value_fingerprint
from raydist.generations import Layout
from raydist.kernels.bits import Bits
from raydist.late.centroids import Centroids
from raydist.late.residuals import Levels
from raydist.late.token_shards import DOCUMENTS, read_documents

KIND = "multivector-index"
FIRST = "segments/00000"
"""The segment that was built first."""
LAYOUT = Layout(KIND, ("segments/*", "deletions/*"), named_folders)

CODEC, ABOUT = "codec.json", "about.json"
CODES, RESIDUALS, STARTS = "codes", "residuals", "starts"
LISTS, LIST_STARTS = "lists", "lists.starts"
FILES = (CODES, RESIDUALS, STARTS, DOCUMENTS, LISTS, LIST_STARTS)
_REMEDY = "embed the corpus again"


@dataclass(frozen=True)
class Codec:
    """What vectors are coded by.

    Attributes:
        centroids: trained on a sample of the first build's vectors.
        levels: of residuals.
        unit: whether decoded vectors get unit length.
    """

    centroids: Centroids
    levels: Levels
    unit: bool

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.centroids.vectors_KD.shape[1])

    @property
    def code(self) -> np.dtype[Any]:
        """The type of a centroid's number."""
        return np.dtype(np.uint16 if len(self.centroids.vectors_KD) <= 1 << 16 else np.uint32)

    def write(self, folder: Path) -> None:
        """Writes the codec's files, the description last."""
        arrays = {
            "centroids": self.centroids.vectors_KD.astype(np.float16),
            "cells": self.centroids.cells_CD,
            "cells.starts": self.centroids.starts_C1,
        }
        sums = {}
        for name, array in arrays.items():
            with atomic(folder / name) as partial:
                partial.write_bytes(np.ascontiguousarray(array).tobytes())
            sums[name] = checksum(folder / name)
        about = {
            "dimension": self.dimension,
            "unit": self.unit,
            "levels": [float(value) for value in self.levels.values_L],
            "crc32": sums,
        }
        write_json(folder / CODEC, {**about, "check": value_fingerprint(about)})

    @classmethod
    def open(cls, folder: Path) -> Codec:
        """Returns the codec of a folder.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        about = read_about(folder / CODEC)
        for name, expected in about["crc32"].items():
            if not (folder / name).is_file() or checksum(folder / name) != expected:
                raise ArtifactError(f"{folder / name}: is missing or damaged; {_REMEDY}")
        dimension = about["dimension"]
        vectors = np.fromfile(folder / "centroids", np.float16).reshape(-1, dimension)
        cells = np.fromfile(folder / "cells", np.float32).reshape(-1, dimension)
        starts = np.fromfile(folder / "cells.starts", np.int64)
        levels = Levels(np.array(about["levels"], np.float32))
        return cls(Centroids(vectors.astype(np.float32), cells, starts), levels, about["unit"])


def read_about(path: Path) -> dict[str, Any]:
    """Returns the content of a description.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        intact = about.pop("check") == value_fingerprint(about)
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise ArtifactError(f"{path}: is missing or damaged; {_REMEDY}")
    return about  # type: ignore[no-any-return]


def seal(segment: Path, **facts: Any) -> dict[str, Any]:
    """Writes the description of a segment whose files are complete, and returns it."""
    about = {
        **facts,
        "bytes": {name: (segment / name).stat().st_size for name in FILES},
        "crc32": {name: checksum(segment / name) for name in FILES},
    }
    write_json(segment / ABOUT, {**about, "check": value_fingerprint(about)})
    return about


def faults_of(segment: Path) -> Iterator[str]:
    """Yields what is wrong with a segment's files, by their checksums."""
    about = read_about(segment / ABOUT)
    for name, expected in about["crc32"].items():
        if not (segment / name).is_file() or checksum(segment / name) != expected:
            yield f"{segment / name}: is missing or damaged; {_REMEDY}"


@dataclass(frozen=True)
class Segment:
    """What one build or append wrote, mapped.

    Attributes:
        folder: where its files are.
        about: its description.
        live: which of its documents are live, None if all are.
    """

    folder: Path
    about: Mapping[str, Any]
    live: Bits | None = None

    @classmethod
    def open(cls, folder: Path, live: Bits | None = None) -> Segment:
        """Maps a segment.

        Args:
            folder: of the segment.
            live: which of its documents are live, None if all are.

        Raises:
            ArtifactError: a file is missing, or not of its size.
        """
        about = read_about(folder / ABOUT)
        for name, size in about["bytes"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise ArtifactError(f"{path}: is missing or cut; {_REMEDY}")
        return cls(folder, about, live)

    def __len__(self) -> int:
        return int(self.about["documents"])

    @property
    def flags(self) -> np.ndarray:
        """Whether each document is live, bool [N]."""
        return np.ones(len(self), np.bool_) if self.live is None else self.live.flags

    def _map(self, name: str, dtype: Any) -> np.ndarray:
        path = self.folder / name
        return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)

    @cached_property
    def codes(self) -> np.ndarray:
        """The number of each vector's centroid."""
        width = self.about["bytes"][CODES] // max(1, self.about["vectors"])
        return self._map(CODES, np.uint32 if width == 4 else np.uint16)

    @cached_property
    def residuals(self) -> np.ndarray:
        """The residuals, uint8 [t, D * bits / 8]."""
        return self._map(RESIDUALS, np.uint8).reshape(len(self.codes), -1)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each document's vectors begin, int64 [N + 1]."""
        return self._map(STARTS, np.int64)

    @cached_property
    def lists(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each centroid's documents begin, int64 [K + 1], and the documents, uint32."""
        return self._map(LIST_STARTS, np.int64), self._map(LISTS, np.uint32)

    @cached_property
    def doc_ids(self) -> pa.ChunkedArray:
        """The ids of all documents, deleted ones included."""
        return read_documents(self.folder)["doc_id"]


def open_segments(folder: Path, manifest: Mapping[str, Any]) -> list[Segment]:
    """Maps the segments that a manifest names, in order.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    lives = lives_of(folder, manifest)
    return [Segment.open(folder / name, live) for name, live in zip(segments_of(manifest), lives)]
