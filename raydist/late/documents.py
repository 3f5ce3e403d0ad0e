"""The documents of a multi-vector index by their ids: what searches and changes ask of them.

A position counts all documents, a number the live ones alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.data.store.idhash import HashIndex
from raydist.kernels.bits import Bits
from raydist.late.format import Segment, open_segments

Array = np.ndarray


class Documents:
    """The documents of some segments.

    Attributes:
        segments: in the order of the corpus.
        firsts: the position of each segment's first document, and of all at the end.
        live: which positions are live, None if all are.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        self.firsts = np.concatenate(([0], np.cumsum([len(each) for each in segments])))
        self.live = None
        if any(each.live is not None for each in segments):
            self.live = Bits.of(np.concatenate([each.flags for each in segments]))

    @classmethod
    def map(cls, folder: Path, manifest: Mapping[str, Any]) -> Documents:
        """Maps what a manifest names.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        return cls(open_segments(folder, manifest))

    def __len__(self) -> int:
        return self.end if self.live is None else self.live.count

    @property
    def end(self) -> int:
        """The position behind the last document."""
        return int(self.firsts[-1])

    def id_parts(self) -> Iterator[pa.Array]:
        """Yields the ids of the live documents in order, in parts."""
        for segment in self.segments:
            ids = segment.doc_ids
            if segment.live is not None:
                ids = ids.filter(pa.array(segment.flags))
            yield from ids.chunks

    def numbers(self, positions: Array) -> Array:
        """Returns the numbers of live documents by their positions."""
        return positions if self.live is None else self.live.rank(positions)

    def at_numbers(self, numbers: Array) -> Array:
        """Returns the positions of live documents by their numbers."""
        return numbers if self.live is None else self.live.select(numbers)

    def find(self, doc_ids: pa.Array) -> Array:
        """Returns the position of the live document with each id; -1 where there is none."""
        numbers = self._hashed.find(doc_ids)
        numbers[numbers >= 0] = self.at_numbers(numbers[numbers >= 0])
        return numbers

    @cached_property
    def _hashed(self) -> HashIndex:
        return HashIndex.build(
            self.id_parts(), len(self), lambda numbers: self.pick_ids(self.at_numbers(numbers))
        )

    def pick_ids(self, positions: Array) -> pa.Array:
        """Returns the ids at any positions, in their order, large_string."""
        order = np.argsort(self.place(positions), kind="stable")
        parts = [pa.array([], pa.large_string())]
        for segment, rows in self.split(positions[order]):
            ids = segment.doc_ids.take(pa.array(rows))
            parts += [chunk.cast(pa.large_string()) for chunk in ids.chunks]
        return pa.concat_arrays(parts).take(pa.array(np.argsort(order, kind="stable")))

    def place(self, positions: Array) -> Array:
        """Returns the number of the segment of each position."""
        return np.searchsorted(self.firsts, positions, "right") - 1

    def split(self, positions: Array) -> Iterator[tuple[Segment, Array]]:
        """Yields the segments of positions that are sorted by segment, with their rows there."""
        place = self.place(positions)
        for own in np.unique(place).tolist():
            yield self.segments[own], positions[place == own] - self.firsts[own]
