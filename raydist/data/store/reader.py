"""Reading a document store: its texts lie in one folder, or in several that are joined.

A joined store is a folder whose header names the others beside it, in order, and the rows that are
live. So documents are added, and deleted, without a copy of the rest; who opens the old store keeps
its documents, who opens the new one sees the live ones alone::

    store/                 what a build wrote
    store-00001-3f/        what was added to it
    joined-00002-9a/       store.json: {"pieces": ["store", "store-00001-3f"]}, live: a bit per row

Legend: N documents, Q documents or ids that are asked for.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist import locks
from raydist.data.files import PathLike
from raydist.data.store.format import (
    FORMAT,
    JOINED_VERSION,
    Codec,
    read_header,
    write_header,
)
from raydist.data.store.piece import Piece
from raydist.data.store.writer import StoreWriter
from raydist.errors import ArtifactError
from raydist.kernels.bits import Bits, bytes_of
from raydist.records import DOCUMENTS, Document

Array = npt.NDArray[Any]


class DocumentStore:
    """An opened store; no text is read before it is needed.

    A document's position is its row: those of the pieces one after another, deleted ones included.
    Deleted documents are neither looked up nor iterated over.

    Attributes:
        folder: the store's folder.
        pieces: in the order of their documents.
        live: the rows that are not deleted, None where all are live.
        rows_total: all rows.
        facts: `documents` (live), and of all rows `empty` (without title and text), `bytes` and
            `blocks`.
    """

    def __init__(self, folder: Path, pieces: Sequence[Piece], live: Bits | None = None) -> None:
        self.folder = folder
        self.pieces = list(pieces)
        self.live = live
        *self._bases, self.rows_total = accumulate((len(p) for p in pieces), initial=0)
        names = ("documents", "empty", "bytes", "blocks")
        self.facts = {name: sum(piece.facts[name] for piece in pieces) for name in names}
        self.facts["documents"] = self.rows_total if live is None else live.count

    @classmethod
    def open(cls, folder: PathLike) -> DocumentStore:
        """Opens a store; takes milliseconds.

        Raises:
            ArtifactError: the store is incomplete, damaged, or of a newer version.
        """
        path = Path(folder)
        about = read_header(path)
        try:
            if "pieces" not in about:
                return cls(path, [Piece(path, about)])
            places = [path.parent / name for name in about["pieces"]]
            pieces = [Piece(place, read_header(place)) for place in places]
            return cls(path, pieces, live_rows(path, about, sum(map(len, pieces))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path / 'store.json'} is damaged: {error}") from error

    @classmethod
    def create(
        cls, tables: Iterable[pa.Table], folder: PathLike, *, codec: Codec = "lz4"
    ) -> DocumentStore:
        """Writes tables of the schema DOCUMENTS into a folder and returns the opened store."""
        writer = StoreWriter(folder, codec=codec)
        for table in tables:
            writer.append(table)
        writer.close()
        return cls.open(folder)

    def __len__(self) -> int:
        return self.facts["documents"]

    def __enter__(self) -> DocumentStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmaps the files; the store cannot be used afterwards."""
        for piece in self.pieces:
            piece.close()

    @property
    def doc_ids(self) -> pa.ChunkedArray:
        """The ids of the live documents in order, large_string."""
        ids = pa.chunked_array([piece.doc_ids for piece in self.pieces], pa.large_string())
        return ids if self.live is None else ids.filter(pa.array(self.live.flags))

    def positions(self, doc_ids: Sequence[str] | pa.Array) -> Array:
        """Returns the position of each id, int64 [Q]; -1 where there is no such document.

        Of several documents with one id, the first counts.
        """
        wanted = doc_ids if isinstance(doc_ids, pa.Array) else pa.array(doc_ids, pa.large_string())
        positions = np.full(len(wanted), -1, np.int64)
        for base, piece, live in zip(self._bases, self.pieces, self.lives):
            left = np.flatnonzero(positions < 0)
            rows = piece.find(wanted.take(pa.array(left)), live)
            positions[left] = np.where(rows < 0, -1, rows + base)
        return positions

    def ids_at(self, positions: Array) -> pa.Array:
        """Returns the ids of the documents at positions, large_string [Q]."""
        if len(self.pieces) == 1:
            return self.pieces[0].ids_at(positions)
        owner = np.searchsorted(self._bases, positions, side="right") - 1
        order = np.argsort(owner, kind="stable")
        parts = [pa.array([], pa.large_string())]
        for number in np.unique(owner).tolist():
            own = positions[owner == number] - self._bases[number]
            parts.append(self.pieces[number].ids_at(own))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_arrays(parts).take(pa.array(back))

    def numbers(self, positions: Array) -> Array:
        """Returns the number of each document among the live ones, int64."""
        return positions if self.live is None else self.live.rank(positions)

    def at_numbers(self, numbers: Array) -> Array:
        """Returns the positions of documents by their numbers among the live ones, int64."""
        return numbers if self.live is None else self.live.select(numbers)

    @cached_property
    def lives(self) -> list[Bits | None]:
        """The live rows of each piece, None where all are."""
        if self.live is None or len(self.pieces) == 1:
            return [self.live] * len(self.pieces)
        flags = self.live.flags
        return [Bits.of(flags[a : a + len(each)]) for a, each in zip(self._bases, self.pieces)]

    def rows(self, positions: Sequence[int] | Array) -> pa.Table:
        """Returns the documents at positions as a table of the schema DOCUMENTS, in that order.

        Raises:
            IndexError: a position is not that of a document.
            ArtifactError: a batch is damaged.
        """
        wanted = np.asarray(positions, np.int64)
        if not len(wanted):
            return DOCUMENTS.empty_table()
        if wanted.min() < 0 or wanted.max() >= self.rows_total:
            raise IndexError(f"{self.folder}: positions from 0 to {self.rows_total - 1}")
        owner = np.searchsorted(self._bases, wanted, side="right") - 1
        order = np.argsort(owner, kind="stable")
        tables = [
            self.pieces[number].rows(wanted[order][owner[order] == number] - self._bases[number])
            for number in np.unique(owner).tolist()
        ]
        if len(tables) == 1:
            return tables[0]
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_tables(tables).take(pa.array(back))

    def get(self, doc_ids: Sequence[str]) -> list[Document | None]:
        """Returns the documents of external ids, None where there is none.

        Raises:
            ArtifactError: the store is damaged.
        """
        positions = self.positions(doc_ids)
        known = positions >= 0
        table = self.rows(positions[known])
        columns = (table[name].to_pylist() for name in ("doc_id", "text", "title"))
        documents = iter([Document(*row) for row in zip(*columns)])
        return [next(documents) if is_known else None for is_known in known]

    def tables(self) -> Iterator[pa.Table]:
        """Yields all live documents in order, tables of the schema DOCUMENTS."""
        for piece, live in zip(self.pieces, self.lives):
            row = 0
            for table in piece.tables():
                kept = table
                if live is not None:
                    flags = live.has(np.arange(row, row + table.num_rows))
                    kept = table if flags.all() else table.filter(pa.array(flags))
                row += table.num_rows
                if kept.num_rows:
                    yield kept

    def verify(self) -> None:
        """Reads and checks everything.

        Raises:
            ArtifactError: something is damaged.
        """
        for piece in self.pieces:
            piece.verify()


def join(folder: PathLike, pieces: Sequence[str], live: Bits | None) -> None:
    """Writes a joined store.

    Args:
        folder: a folder that does not exist yet.
        pieces: the names of the folders beside it, in order; none of them is a joined one.
        live: the rows that are not deleted, None if all are live.
    """
    path = Path(folder)
    path.mkdir(parents=True)
    about: dict[str, Any] = {"format": FORMAT, "version": JOINED_VERSION, "pieces": list(pieces)}
    if live is not None:
        (path / "live").write_bytes(live.data.tobytes())
        about["live"] = zlib.crc32(live.data.tobytes())
    write_header(path, about)


@contextlib.contextmanager
def kept(folder: PathLike) -> Iterator[None]:
    """Keeps a store, with those that it joins, from being removed while the block runs.

    Raises:
        ArtifactError: it is gone, or about to be.
    """
    path = Path(folder)
    with contextlib.ExitStack() as stack:
        for name in dict.fromkeys([path.name, *piece_names(path)]):
            stack.enter_context(locks.reader(path.with_name(name)))
        yield


def piece_names(folder: PathLike) -> list[str]:
    """Returns the names of the folders that hold a store's texts: its own, or those it joins."""
    path = Path(folder)
    return list(read_header(path).get("pieces", [path.name]))


def live_rows(folder: Path, about: Mapping[str, Any], rows: int) -> Bits | None:
    """Returns the live rows of a joined store, checked; None where all are live."""
    if "live" not in about:
        return None
    path = folder / "live"
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is damaged: it is missing; build the index again") from None
    if len(data) != bytes_of(rows) or zlib.crc32(data.tobytes()) != about["live"]:
        raise ArtifactError(f"{path} is damaged: its checksum is wrong; build the index again")
    return Bits(data, rows)
