"""Reading a document store: all files are mapped when it is opened, and what is used is checked.

So an opened store stays as it was, even if its folder is removed.
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
from raydist.data.store import idhash
from raydist.data.store.format import FORMAT, ROW, STORED, VERSION, Codec, id_array
from raydist.data.store.writer import StoreWriter
from raydist.errors import ArtifactError
from raydist.records import DOCUMENTS, Document

_HEADER = 4096  # bytes; the header of an array is much smaller


class DocumentStore:
    """An opened store of N documents; no text is read before it is needed.

    A batch is checked when it is read, the ids when one is first looked up.

    Attributes:
        folder: the store's folder.
        facts: `documents`, `empty` (without title and text), `bytes`, `blocks`.
        parts: the files of the texts.
        blocks_B: int64 [B, 5]: first row, part, offset, length and CRC-32 of each batch.
        id_ends_N1: int64 [N + 1], where each id ends in `id_bytes`.
        id_bytes: uint8, all ids.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.facts = {name: int(about[name]) for name in ("documents", "empty", "bytes", "blocks")}
        self.parts = [folder / "parts" / name for name in about["parts"]]
        self._files = about["files"]
        sizes = {name: int(each["bytes"]) for name, each in self._files.items()}
        self._maps = {name: self._map(folder / name, size) for name, size in sizes.items()}
        self._texts = [self._map(*each) for each in zip(self.parts, about["parts"].values())]
        self.blocks_B = self._array("blocks.npy", check=True)
        self.id_ends_N1 = self._array("id_ends.npy")
        self.id_bytes = np.frombuffer(self._maps["ids.bin"], np.uint8)
        if (
            self.blocks_B.shape != (self.facts["blocks"], 5)
            or len(self.id_ends_N1) != len(self) + 1
        ):
            raise self._damaged("store.json", "it contradicts the other files")
        self._ids: pa.Array | None = None
        self._index: tuple[np.ndarray, np.ndarray] | None = None

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
        self._maps.clear()
        self._texts.clear()

    @property
    def doc_ids(self) -> pa.Array:
        """All ids in order, large_string [N], mapped."""
        if self._ids is None:
            self._check_sum("ids.bin")
            self._check_sum("id_ends.npy")
            self._ids = id_array(self.id_bytes, self.id_ends_N1)
        return self._ids

    def positions(self, doc_ids: Sequence[str]) -> np.ndarray:
        """Returns the position of each id, int64 [Q]; -1 where there is no such document.

        Of several documents with one id, the first counts.
        """
        ids = self.doc_ids
        if self._index is None:
            if "hashes.npy" in self._files:
                hashes = self._array("hashes.npy", check=True)
                self._index = hashes, self._array("order.npy", check=True)
            else:
                hashes = idhash.hash_ids(ids)
                order = idhash.order_of(hashes)
                self._index = hashes[order], order
        return idhash.find(ids, *self._index, pa.array(doc_ids, pa.large_string()))

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
        block_of = np.searchsorted(self.blocks_B[:, ROW], unique, side="right") - 1
        batches = []
        for block in np.unique(block_of):
            local = unique[block_of == block] - self.blocks_B[block, ROW]
            batches.append(self._block(int(block)).take(pa.array(local)))
        stored = pa.Table.from_batches(batches).combine_chunks().take(pa.array(back))
        ids = self.doc_ids.take(pa.array(wanted)).cast(pa.string())
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
        ids = self.doc_ids
        for block in range(len(self.blocks_B)):
            batch = self._block(block)
            doc_ids = ids.slice(int(self.blocks_B[block, ROW]), batch.num_rows).cast(pa.string())
            yield pa.table([doc_ids, batch["title"], batch["text"]], schema=DOCUMENTS)

    def verify(self) -> None:
        """Reads and checks everything.

        Raises:
            ArtifactError: something is damaged.
        """
        for name in self._files:
            self._check_sum(name)
        for block in range(len(self.blocks_B)):
            self._block(block)

    def _block(self, block: int) -> pa.RecordBatch:
        _, part, offset, length, crc = self.blocks_B[block].tolist()
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

    def _array(self, name: str, check: bool = False) -> np.ndarray:
        if check:
            self._check_sum(name)
        data = self._maps[name]
        head = io.BytesIO(data.slice(0, min(_HEADER, data.size)))
        try:
            np.lib.format.read_magic(head)
            shape, _, dtype = np.lib.format.read_array_header_1_0(head)
            values = np.frombuffer(data, dtype, offset=head.tell())
            return values.reshape(shape)
        except ValueError as error:
            raise self._damaged(name, str(error)) from error

    def _check_sum(self, name: str) -> None:
        if zlib.crc32(self._maps[name]) != self._files[name]["crc32"]:
            raise self._damaged(name, "its checksum is wrong")

    def _damaged(self, name: str, why: str) -> ArtifactError:
        return ArtifactError(f"{self.folder}: {name} is damaged: {why}; build it again")
