"""An opened bag-of-words index: its segments, their joint statistics, analyzer and documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.bow.format.segment import Segment
from raydist.bow.formulas import mean_length
from raydist.data.store.reader import DocumentStore
from raydist.errors import DataError
from raydist.manifest import open_generation
from raydist.text.analyzer import Analyzer

Array = npt.NDArray[Any]

KIND = "bow-index"
"""What the manifest of an index folder calls it."""


class BowIndex:
    """Segments that are searched as one collection.

    A document's position is its row in the input: the segments' documents one after another.

    Attributes:
        segments: in document order.
        bases: the position of each segment's first document.
        analyzer: how texts become terms; None for an index of weighted terms.
        folder: where it lies, None if made of loose segments.
        documents: how many documents have tokens, the N of the formulas.
        tokens: tokens of all documents.
        store: the documents' texts, None where the index was built without.
        unit: the weight that an impact of 1 stands for, in an index of weighted terms; else 0.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        analyzer: Analyzer | None,
        *,
        folder: Path | None = None,
        store: DocumentStore | None = None,
        unit: float = 0.0,
    ) -> None:
        """Joins opened segments."""
        self.segments = list(segments)
        self.bases = list(accumulate((s.documents for s in self.segments), initial=0))[:-1]
        self.analyzer = analyzer
        self.folder = folder
        self.documents = sum(segment.nonempty for segment in self.segments)
        self.tokens = sum(segment.tokens for segment in self.segments)
        self.unit = unit
        self.store = store

    @classmethod
    def open(cls, folder: Path | str, *, in_memory: bool = False, verify: bool = False) -> BowIndex:
        """Opens what `raydist index` wrote: the newest generation, and it alone.

        All files are mapped here, so whatever is added, deleted or merged later, this index answers
        as it is now until it is closed; who wants the new generation opens another.

        Every file's size is compared here, and what is read of it with its checksum before it is
        first used, so a damaged index gives an error or the right answer, never a wrong one. A file
        that is changed later, while it is mapped, is not noticed.

        Args:
            folder: the index.
            in_memory: read the segments into memory, checking all of it, instead of mapping them.
            verify: check every byte now, the store's as well, not when a query needs it.

        Raises:
            ArtifactError: the folder is incomplete, corrupted, newer, or something else.
        """
        place = Path(folder)

        def opened(manifest: Mapping[str, Any]) -> BowIndex:
            described, store = manifest.get("analyzer"), manifest.get("store")
            return cls(
                [Segment.open(place / s, in_memory=in_memory) for s in manifest["segments"]],
                None if described is None else Analyzer.from_dict(described),
                folder=place,
                store=DocumentStore.open(place / store) if store else None,
                unit=manifest.get("unit", 0.0),
            )

        index = open_generation(place, [KIND], opened)
        if verify:
            index.verify()
        return index

    def verify(self) -> None:
        """Checks every byte of the segments and of the documents' texts.

        Raises ArtifactError naming the file that is damaged.
        """
        for segment in self.segments:
            segment.files.verify()
        if self.store is not None:
            self.store.verify()

    def __len__(self) -> int:
        """All documents, those without tokens included."""
        return sum(segment.documents for segment in self.segments)

    @property
    def average_length(self) -> float:
        """Mean tokens of the documents that have any, as Lucene rounds it."""
        return mean_length(self.tokens, self.documents)

    @cached_property
    def doc_ids(self) -> pa.StringArray:
        """External ids by position, decoded."""
        return pa.concat_arrays([segment.doc_ids for segment in self.segments])

    def pick_ids(self, positions: Array) -> pa.StringArray:
        """Returns the external ids of the documents at `positions`."""
        if len(self.segments) == 1:
            return self.segments[0].pick_ids(positions)
        owner = np.searchsorted(self.bases, positions, side="right") - 1
        order = np.argsort(owner, kind="stable")
        parts = []
        for number, segment in enumerate(self.segments):
            mine = positions[owner == number]
            if len(mine):
                parts.append(segment.pick_ids(mine - self.bases[number]))
        if not parts:
            return pa.array([], pa.string())
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_arrays(parts).take(pa.array(back))

    def positions(self, doc_ids: Iterable[str], *, missing: str = "error") -> Array:
        """Returns the positions of documents, int64.

        Args:
            doc_ids: external ids.
            missing: `error` raises DataError for an id that is not here, `ignore` leaves it out.
        """
        wanted = pa.array(list(doc_ids), pa.string())
        found = pc.index_in(wanted, value_set=self.doc_ids)
        if missing == "error" and found.null_count:
            absent = wanted.filter(found.is_null())
            raise DataError(
                f"{len(absent)} of {len(wanted)} document ids are not in the index, "
                f"the first: {absent[0].as_py()!r}"
            )
        return np.asarray(found.drop_null().to_numpy(zero_copy_only=False), np.int64)

    def lookup(self, terms: Sequence[bytes]) -> tuple[list[Array], list[int]]:
        """Finds terms.

        Returns what each segment's dictionary says of them (`Segment.lookup`) and each term's
        document frequency in all of them.
        """
        rows = [segment.lookup(terms) for segment in self.segments]
        df: list[int] = sum((each[:, 2] for each in rows[1:]), rows[0][:, 2]).tolist()
        return rows, df

    def document_frequency(self, term: str) -> int:
        """Returns in how many documents `term` occurs, 0 if in none."""
        return self.lookup([encode_term(term)])[1][0]


def encode_term(term: str) -> bytes:
    """Returns a term's bytes in the dictionary; unpaired surrogates as they came."""
    return term.encode("utf-8", "surrogatepass")
