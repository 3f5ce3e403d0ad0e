"""Reading a document store: all files are mapped when it is opened, and what is used is checked.

So an opened store stays as it was, even if its folder is removed, and whoever looks an id up reads
some pages of its index, not all of it.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.data.files import PathLike
from raydist.data.store.format import FORMAT, ROW, STORED, SUMS, VERSION, Codec, id_array
from raydist.data.store.idhash import HashIndex
from raydist.data.store.pages import PAGE, Pages
from raydist.data.store.writer import StoreWriter
from raydist.errors import ArtifactError
from raydist.records import DOCUMENTS, Document

_HEADER = 4096  # bytes; the header of an array is much smaller


class DocumentStore:
    """An opened store of N documents; no text is read before it is needed.

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

    @classmethod
    def open(cls, folder: PathLike) -> DocumentStore:
        """Opens a store; takes milliseconds.

        Raises:
            ArtifactError: the store is incomplete, damaged, or of a newer version.
        """
        path = Path(folder)
        try:
            about = json.loads((path / "store.json").read_bytes())
            crc32 = about.pop("crc32")
            if about["format"] != FORMAT:
                raise ArtifactError(f"{path}: not a document store")
            if about["version"] > VERSION:
                raise ArtifactError(
                    f"{path}: a document store of version {about['version']}; this raydist reads "
                    f"up to {VERSION}: update raydist"
                )
            if crc32 != zlib.crc32(json.dumps(about, sort_keys=True).encode()):
                raise ArtifactError(f"{path / 'store.json'} is damaged: its checksum is wrong")
            return cls(path, about)
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = Path(str(error.filename)).name
            raise ArtifactError(
                f"{path}: not a complete document store: {missing} is missing"
            ) from error
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmaps the files; the store cannot be used afterwards."""
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

    def positions(self, doc_ids: Sequence[str] | pa.Array) -> np.ndarray:
        """Returns the position of each id, int64 [Q]; -1 where there is no such document.

        Of several documents with one id, the first counts.
        """
        if self._index is None:
            self._index = self._open_index()
        wanted = doc_ids if isinstance(doc_ids, pa.Array) else pa.array(doc_ids, pa.large_string())
        return self._index.find(wanted)

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

    def rows(self, positions: Sequence[int] | np.ndarray) -> pa.Table:
        """Returns the documents at positions as a table of the schema DOCUMENTS, in that order.

        Raises:
            IndexError: a position is not from 0 to N - 1.
            ArtifactError: a batch is damaged.
        """
        wanted = np.asarray(positions, np.int64)
        if not len(wanted):
            return DOCUMENTS.empty_table()
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise IndexError(f"{self.folder}: positions from 0 to {len(self) - 1}")
        unique, back = np.unique(wanted, return_inverse=True)
        if self._first_rows is None:
            self._first_rows = np.ascontiguousarray(self.blocks_B[:, ROW])
        block_of = np.searchsorted(self._first_rows, unique, side="right") - 1
        batches = []
        for block in np.unique(block_of):
            local = unique[block_of == block] - self._first_rows[block]
            batches.append(self._block(int(block)).take(pa.array(local)))
        stored = pa.Table.from_batches(batches).combine_chunks().take(pa.array(back))
        ids = self.ids_at(wanted).cast(pa.string())
        return pa.table([ids, stored["title"], stored["text"]], schema=DOCUMENTS)

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
        """Yields all documents in order, a table of the schema DOCUMENTS per batch."""
        ids, first_rows = self.doc_ids, self.blocks_B[:, ROW].tolist()
        for block, row in enumerate(first_rows):
            batch = self._block(block)
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
            self._block(block)

    def _block(self, block: int) -> pa.RecordBatch:
        _, part, offset, length, crc = self._blocks_B[block].tolist()
        message = self._texts[part].slice(offset, length)
        if message.size != length or zlib.crc32(message) != crc:
            raise self._damaged(self.parts[part].name, f"batch {block} has a wrong checksum")
        return pa.ipc.read_record_batch(pa.ipc.read_message(message), STORED)

    def _map(self, path: Path, size: int) -> pa.Buffer:
        """Returns a file's bytes; its descriptor is closed, so a store may have many parts."""
        try:
            actual = path.stat().st_size
        except FileNotFoundError:
            raise self._damaged(path.name, "it is missing") from None
        if actual != size:
            raise self._damaged(path.name, f"it has {actual} bytes, not {size}")
        if not size:
            return pa.py_buffer(b"")
        with pa.memory_map(str(path)) as mapped:
            return mapped.read_buffer()

    def _array(self, name: str) -> np.ndarray:
        try:
            return _array(self._pages[name].data)
        except ValueError as error:
            raise self._damaged(name, str(error)) from error

    def _damaged(self, name: str, why: str) -> ArtifactError:
        return ArtifactError(f"{self.folder}: {name} is damaged: {why}; build it again")


def _array(data: pa.Buffer) -> np.ndarray:
    """Returns a mapped array of NumPy's format."""
    head = io.BytesIO(data.slice(0, min(_HEADER, data.size)))
    np.lib.format.read_magic(head)
    shape, _, dtype = np.lib.format.read_array_header_1_0(head)
    return np.frombuffer(data, dtype, offset=head.tell()).reshape(shape)
