"""Some documents of a store: the pieces that hold them are opened, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from raydist.data.store.format import read_header
from raydist.data.store.piece import Piece
from raydist.data.store.reader import DocumentStore, live_rows, piece_names
from raydist.kernels.bits import Bits
from raydist.records import Document


class Pieces(NamedTuple):
    """The pieces of a store that hold some documents.

    Attributes:
        names: of their folders, consecutive ones.
        rows: the first of their rows in the store, and the one behind them.
        first: the number of their first document among the live ones of the store.
        live: the rows of the store that are not deleted, None where all are live.
    """

    names: list[str]
    rows: range
    first: int
    live: Bits | None


def headers(store: str) -> list[str]:
    """Returns patterns of the files that `pieces_of` reads, beside a store's folder."""
    return ["*/store.json", f"{store}/live"]


def pieces_of(folder: Path, numbers: range) -> Pieces:
    """Returns the pieces that hold documents by their numbers among the live ones."""
    names = piece_names(folder)
    sizes = [int(read_header(folder.with_name(name))["documents"]) for name in names]
    starts = list(accumulate(sizes, initial=0))
    live = live_rows(folder, read_header(folder), starts[-1])
    bounds = starts
    if live is not None:
        bounds = np.concatenate([[0], np.cumsum(live.flags)])[starts].tolist()
    own = [
        place
        for place, (a, z) in enumerate(pairwise(bounds))
        if max(a, numbers.start) < min(z, numbers.stop)
    ]
    first, end = (own[0], own[-1] + 1) if own else (0, 0)
    return Pieces(names[first:end], range(starts[first], starts[end]), bounds[first], live)


class StorePart:
    """Documents of a store by id, those with some numbers among the live ones alone."""

    def __init__(self, folder: Path, numbers: range) -> None:
        """Opens the pieces that hold them.

        Raises ArtifactError where one is incomplete, damaged, or of a newer version.
        """
        pieces = pieces_of(folder, numbers)
        places = [folder.with_name(name) for name in pieces.names]
        live = pieces.live
        if live is not None:
            live = Bits.of(live.flags[pieces.rows.start : pieces.rows.stop])
        opened = [Piece(place, read_header(place)) for place in places]
        self._store = DocumentStore(folder, opened, live)
        self._first = pieces.first
        self._numbers = numbers

    def get(self, doc_ids: Sequence[str]) -> list[Document | None]:
        """Returns the documents with ids, None for those that are not among these."""
        ids = pa.array(doc_ids, pa.large_string())
        rows = self._store.positions(ids)
        own = np.flatnonzero(rows >= 0)
        numbers = self._store.numbers(rows[own]) + self._first
        own = own[(numbers >= self._numbers.start) & (numbers < self._numbers.stop)]
        documents: list[Document | None] = [None] * len(doc_ids)
        for place, document in zip(
            own.tolist(), self._store.get(ids.take(pa.array(own)).to_pylist())
        ):
            documents[place] = document
        return documents
