"""One folder of a document store: its files are mapped when it is opened, and checked when used.

So what is opened stays as it was, even if its folder is removed.

Legend: N documents, B batches, Q documents or ids that are asked for.
"""

from __future__ import annotations

import io
import tokenize
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.data.store.format import ROW, STORED, SUMS, id_array
from raydist.data.store.idhash import HashIndex
from raydist.data.store.pages import PAGE, Pages
from raydist.errors import ArtifactError
from raydist.kernels.bits import Bits
from raydist.records import DOCUMENTS

Array = npt.NDArray[Any]

_HEADER = 4096  # bytes; the header of an array is much smaller


class Piece:
    """An opened folder of N documents; no text is read before it is needed.

    A batch is checked when it is read, a page of the ids and their index when it is first used.

    Attributes:
        folder: the store's folder.
        facts: `documents`, `empty` (without title and text), `bytes`, `blocks`.
        parts: the files of the texts.
        id_ends_N1: int64 [N + 1], where each id ends in `id_bytes`.
        id_bytes: uint8, all ids.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.facts = {name: int(about[name]) for name in ("documents", "empty", "bytes", "blocks")}
        self.parts = [folder / "parts" / name for name in about["parts"]]
        self._files = about["files"]
        self._pages = self._open_pages(about.get("sums"))
        self._texts = [self._map(*each) for each in zip(self.parts, about["parts"].values())]
        self._blocks_B = self._array("blocks.npy")
        self.id_ends_N1 = self._array("id_ends.npy")
        self.id_bytes = np.frombuffer(self._pages["ids.bin"].data, np.uint8)
        if (
            self._blocks_B.shape != (self.facts["blocks"], 5)
            or len(self.id_ends_N1) != len(self) + 1
        ):
            raise self._damaged("store.json", "it contradicts the other files")
        self._ids = id_array(self.id_bytes, self.id_ends_N1)
        self._index: HashIndex | None = None
        self._first_rows: np.ndarray | None = None

    def _open_pages(self, about: Mapping[str, int] | None) -> dict[str, Pages]:
        """Maps the files with their checksums: of pages, or of whole files in version 1."""
        maps = {n: self._map(self.folder / n, int(e["bytes"])) for n, e in self._files.items()}
        if about is None:
            whole = {n: np.array([e["crc32"]], np.uint32) for n, e in self._files.items()}
            return {n: self._page(n, maps[n], whole[n], max(1, maps[n].size)) for n in maps}
        data = self._map(self.folder / SUMS, about["bytes"])
        if zlib.crc32(data) != about["crc32"]:
            raise self._damaged(SUMS, "its checksum is wrong")
        sums, pages, at = _array(data), {}, 0
        for name, mapped in sorted(maps.items()):
            count = -(-mapped.size // PAGE)
            pages[name] = self._page(name, mapped, sums[at : at + count], PAGE)
            at += count
        return pages

    def _page(self, name: str, data: pa.Buffer, sums: np.ndarray, page: int) -> Pages:
        return Pages(data, sums, page, lambda: self._damaged(name, "its checksum is wrong"))

    def __len__(self) -> int:
        return self.facts["documents"]

    def close(self) -> None:
        """Unmaps the files; the documents cannot be read afterwards."""
        self._pages.clear()
        self._texts.clear()

    @property
    def doc_ids(self) -> pa.Array:
        """All ids in order, large_string [N], mapped."""
        self.check_ids()
        return self._ids

    def check_ids(self) -> None:
        """Raises ArtifactError if the bytes of an id are damaged."""
        for name in ("ids.bin", "id_ends.npy"):
            self._pages[name].check_all()

    @property
    def blocks_B(self) -> np.ndarray:
        """First row, part, offset, length and CRC-32 of each batch, int64 [B, 5]."""
        self._pages["blocks.npy"].check_all()
        return self._blocks_B

    def ids_at(self, positions: np.ndarray) -> pa.Array:
        """Returns the ids of the documents at positions, large_string [Q]."""
        self._check_items("id_ends.npy", positions, positions + 1)
        starts, stops = self.id_ends_N1[positions], self.id_ends_N1[positions + 1]
        self._pages["ids.bin"].check(starts, stops)
        return self._ids.take(pa.array(positions))

    def find(self, wanted: pa.Array, live: Bits | None) -> Array:
        """Returns the row of each id, int64 [Q]; -1 where there is no such document.

        Of several documents with one id, the first that is in `live` counts.
        """
        if self._index is None:
            self._index = self._open_index()
        return self._index.find(wanted, live)

    def _open_index(self) -> HashIndex:
        if "hashes.npy" not in self._files:
            return HashIndex.of(self.doc_ids)
        if "fences.npy" not in self._files:  # version 1
            for name in ("hashes.npy", "order.npy"):
                self._pages[name].check_all()
            fences = None
        else:
            self._pages["fences.npy"].check_all()
            fences = self._array("fences.npy")

        def check(first_Q: np.ndarray, last_Q: np.ndarray) -> None:
            for name in ("hashes.npy", "order.npy"):
                self._check_items(name, first_Q, last_Q)

        hashes_N, order_N = self._array("hashes.npy"), self._array("order.npy")
        return HashIndex(hashes_N, order_N, self.ids_at, fences=fences, check=check)

    def _check_items(self, name: str, first_Q: np.ndarray, last_Q: np.ndarray) -> None:
        """Checks the pages of the elements of an array from each first to each last."""
        pages = self._pages[name]
        array = self._array(name)
        begin = pages.data.size - array.nbytes
        pages.check(begin + first_Q * array.itemsize, begin + (last_Q + 1) * array.itemsize)

    def rows(self, wanted_Q: Array) -> pa.Table:
        """Returns the documents of rows as a table of the schema DOCUMENTS, in that order."""
        if not len(wanted_Q):
            return DOCUMENTS.empty_table()
        unique, back = np.unique(wanted_Q, return_inverse=True)
        if self._first_rows is None:
            self._first_rows = np.ascontiguousarray(self.blocks_B[:, ROW])
        block_of = np.searchsorted(self._first_rows, unique, side="right") - 1
        batches = []
        for block in np.unique(block_of):
            local = unique[block_of == block] - self._first_rows[block]
            batches.append(self.block(int(block)).take(pa.array(local)))
        stored = pa.Table.from_batches(batches).combine_chunks().take(pa.array(back))
        ids = self.ids_at(wanted_Q).cast(pa.string())
        return pa.table([ids, stored["title"], stored["text"]], schema=DOCUMENTS)

    def tables(self) -> Iterator[pa.Table]:
        """Yields all documents in order, a table of the schema DOCUMENTS per batch."""
        ids, first_rows = self.doc_ids, self.blocks_B[:, ROW].tolist()
        for block, row in enumerate(first_rows):
            batch = self.block(block)
            doc_ids = ids.slice(row, batch.num_rows).cast(pa.string())
            yield pa.table([doc_ids, batch["title"], batch["text"]], schema=DOCUMENTS)

    def verify(self) -> None:
        """Reads and checks everything.

        Raises:
            ArtifactError: something is damaged.
        """
        for pages in self._pages.values():
            pages.check_all()
        for block in range(len(self.blocks_B)):
            self.block(block)

    def check_file(self, name: str) -> None:
        """Raises ArtifactError if a file beside the texts is damaged."""
        self._pages[name].check_all()

    def block(self, block: int) -> pa.RecordBatch:
        """Returns a batch of titles and texts; ArtifactError if it is damaged."""
        _, part, offset, length, crc = self._blocks_B[block].tolist()
        message = self._texts[part].slice(offset, length)
        if message.size != length or zlib.crc32(message) != crc:
            raise self._damaged(self.parts[part].name, f"batch {block} has a wrong checksum")
        return pa.ipc.read_record_batch(pa.ipc.read_message(message), STORED)

    def _map(self, path: Path, size: int) -> pa.Buffer:
        """Returns a file's bytes; its descriptor is closed, so a store may have many parts."""
        try:
            actual = path.stat().st_size
            if actual != size:
                raise self._damaged(path.name, f"it has {actual} bytes, not {size}")
            if not size:
                return pa.py_buffer(b"")
            with pa.memory_map(str(path)) as mapped:
                return mapped.read_buffer()
        except FileNotFoundError:  # at either step: a writer may remove it between them
            raise self._damaged(path.name, "it is missing") from None

    def _array(self, name: str) -> np.ndarray:
        try:
            return _array(self._pages[name].data)
        except (ValueError, TypeError, SyntaxError, tokenize.TokenError) as error:
            raise self._damaged(name, f"its header cannot be read: {error}") from error

    def _damaged(self, name: str, why: str) -> ArtifactError:
        return ArtifactError(f"{self.folder}: {name} is damaged: {why}; build it again")


def _array(data: pa.Buffer) -> np.ndarray:
    """Returns a mapped array of NumPy's format."""
    head = io.BytesIO(data.slice(0, min(_HEADER, data.size)))
    np.lib.format.read_magic(head)
    shape, _, dtype = np.lib.format.read_array_header_1_0(head)
    return np.frombuffer(data, dtype, offset=head.tell()).reshape(shape)
