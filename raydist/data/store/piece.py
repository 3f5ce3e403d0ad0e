"""One folder of a document store: its files are mapped when it is opened, and checked when used.

So what is opened stays as it was, even if its folder is removed.

Legend: N documents, B batches, Q documents or ids that are asked for.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist import on_demand
from raydist.data.store.format import (
    LENGTH,
    OFFSET,
    PART,
    ROW,
    STORED,
    SUMS,
    frame_sum,
    id_array,
)
from raydist.data.store.idhash import HashIndex
from raydist.data.store.pages import PAGE, Pages
from raydist.errors import ArtifactError
from raydist.kernels.bits import Bits
from raydist.records import DOCUMENTS

Array = npt.NDArray[Any]

_TOGETHER = 16  # batches of a table
_LONGEST = 4096  # bytes; the header of an array is much smaller
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<size>..)\{'descr': '(?P<dtype>[<|][a-z]\d)', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[\d, ]*)\), \} *\n",
    re.DOTALL,
)


class Piece:
    """An opened folder of N documents; no text is read before it is needed.

    A batch is checked when it is read, a page of the ids and their index when it is first used.

    Attributes:
        folder: the store's folder.
        facts: `documents`, `empty` (without title and text), `bytes`, `blocks`.
        parts: the files of the texts.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.facts = {name: int(about[name]) for name in ("documents", "empty", "bytes", "blocks")}
        self.parts = [folder / "parts" / name for name in about["parts"]]
        self._about = about
        self._maps: dict[str, pa.Buffer] = {}
        self._pages: dict[str, Pages] = {}
        self._index: HashIndex | None = None
        for name in self._sizes:
            if not on_demand.is_absent(folder / name):
                self._map(name)
        if "id_ends.npy" in self._maps:  # it fits the header
            _ = self.id_ends_N1
        if "blocks.npy" in self._maps:
            _ = self._blocks_B

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """The bytes of each file."""
        about = self._about
        sizes = {name: int(each["bytes"]) for name, each in about["files"].items()}
        sizes |= {f"parts/{name}": int(size) for name, size in about["parts"].items()}
        return sizes | ({SUMS: int(about["sums"]["bytes"])} if "sums" in about else {})

    @cached_property
    def _blocks_B(self) -> Array:
        blocks_B = self._array("blocks.npy")
        if blocks_B.shape != (self.facts["blocks"], 5):
            raise self._damaged("store.json", "it contradicts the other files")
        return blocks_B

    @cached_property
    def id_ends_N1(self) -> Array:
        """Where each id ends in `id_bytes`, int64 [N + 1]."""
        id_ends_N1 = self._array("id_ends.npy")
        if len(id_ends_N1) != len(self) + 1:
            raise self._damaged("store.json", "it contradicts the other files")
        return id_ends_N1

    @property
    def id_bytes(self) -> Array:
        """All ids, uint8."""
        return np.frombuffer(self._pages_of("ids.bin").data, np.uint8)

    @cached_property
    def _ids(self) -> pa.Array:
        return id_array(self.id_bytes, self.id_ends_N1)

    @cached_property
    def _sums(self) -> dict[str, Array]:
        """The checksums of each file's pages; of version 1, one of the whole file."""
        files = self._about["files"]
        if "sums" not in self._about:
            return {name: np.array([each["crc32"]], np.uint32) for name, each in files.items()}
        data = self._map(SUMS)
        if zlib.crc32(data) != self._about["sums"]["crc32"]:
            raise self._damaged(SUMS, "its checksum is wrong")
        counts = [-(-self._sizes[name] // PAGE) for name in sorted(files)]
        ends = np.cumsum(counts)[:-1]
        return dict(zip(sorted(files), np.split(_array(data), ends)))

    def _pages_of(self, name: str) -> Pages:
        """Returns a file beside the texts with its checksums."""
        if name not in self._pages:
            data = self._map(name)
            page = PAGE if "sums" in self._about else max(1, data.size)
            self._pages[name] = Pages(
                data, self._sums[name], page, lambda: self._damaged(name, "its checksum is wrong")
            )
        return self._pages[name]

    def __len__(self) -> int:
        return self.facts["documents"]

    def close(self) -> None:
        """Unmaps the files; the documents cannot be read afterwards."""
        self._pages.clear()
        self._maps.clear()

    @property
    def doc_ids(self) -> pa.Array:
        """All ids in order, large_string [N], mapped."""
        self.check_ids()
        return self._ids

    def check_ids(self) -> None:
        """Raises ArtifactError if the bytes of an id are damaged."""
        for name in ("ids.bin", "id_ends.npy"):
            self._pages_of(name).check_all()

    @property
    def blocks_B(self) -> np.ndarray:
        """First row, part, offset, length and CRC-32 of each batch, int64 [B, 5]."""
        self._pages_of("blocks.npy").check_all()
        return self._blocks_B

    def ids_at(self, positions: np.ndarray) -> pa.Array:
        """Returns the ids of the documents at positions, large_string [Q]."""
        self._check_items("id_ends.npy", positions, positions + 1)
        starts, stops = self.id_ends_N1[positions], self.id_ends_N1[positions + 1]
        self._pages_of("ids.bin").check(starts, stops)
        return self._ids.take(pa.array(positions))

    def find(self, wanted: pa.Array, live: Bits | None) -> Array:
        """Returns the row of each id, int64 [Q]; -1 where there is no such document.

        Of several documents with one id, the first that is in `live` counts.
        """
        if self._index is None:
            self._index = self._open_index()
        return self._index.find(wanted, live)

    def _open_index(self) -> HashIndex:
        if "hashes.npy" not in self._about["files"]:
            return HashIndex.of(self.doc_ids)
        if "fences.npy" not in self._about["files"]:  # version 1
            for name in ("hashes.npy", "order.npy"):
                self._pages_of(name).check_all()
            fences = None
        else:
            self._pages_of("fences.npy").check_all()
            fences = self._array("fences.npy")

        def check(first_Q: np.ndarray, last_Q: np.ndarray) -> None:
            for name in ("hashes.npy", "order.npy"):
                self._check_items(name, first_Q, last_Q)

        hashes_N, order_N = self._array("hashes.npy"), self._array("order.npy")
        return HashIndex(hashes_N, order_N, self.ids_at, fences=fences, check=check)

    def _check_items(self, name: str, first_Q: np.ndarray, last_Q: np.ndarray) -> None:
        """Checks the pages of the elements of an array from each first to each last."""
        pages = self._pages_of(name)
        array = self._array(name)
        begin = pages.data.size - array.nbytes
        pages.check(begin + first_Q * array.itemsize, begin + (last_Q + 1) * array.itemsize)

    @cached_property
    def _first_rows(self) -> Array:
        return np.ascontiguousarray(self.blocks_B[:, ROW])

    def rows(self, wanted_Q: Array) -> pa.Table:
        """Returns the documents of rows as a table of the schema DOCUMENTS, in that order."""
        if not len(wanted_Q):
            return DOCUMENTS.empty_table()
        unique, back = np.unique(wanted_Q, return_inverse=True)
        block_of = np.searchsorted(self._first_rows, unique, side="right") - 1
        batches, blocks = [], np.unique(block_of)
        fetched = self._fetch(blocks)
        for block in blocks.tolist():
            local = unique[block_of == block] - self._first_rows[block]
            batches.append(self.block(block, fetched.get(block)).take(pa.array(local)))
        stored = pa.Table.from_batches(batches).combine_chunks().take(pa.array(back))
        ids = self.ids_at(wanted_Q).cast(pa.string())
        return pa.table([ids, stored["title"], stored["text"]], schema=DOCUMENTS)

    def tables(self) -> Iterator[pa.Table]:
        """Yields all documents in order, tables of the schema DOCUMENTS of some batches each."""
        ids, ends = self.doc_ids, [*self.blocks_B[:, ROW].tolist(), len(self)]
        for first in range(0, len(ends) - 1, _TOGETHER):
            last = min(first + _TOGETHER, len(ends) - 1)
            texts = pa.Table.from_batches([self.block(each) for each in range(first, last)])
            doc_ids = ids.slice(ends[first], ends[last] - ends[first]).cast(pa.string())
            yield pa.table([doc_ids, texts["title"], texts["text"]], schema=DOCUMENTS)

    def verify(self) -> None:
        """Reads and checks everything.

        Raises:
            ArtifactError: something is damaged.
        """
        for name in self._about["files"]:
            self.check_file(name)
        for block in range(len(self.blocks_B)):
            self.block(block)
        for part in range(len(self.parts)):
            self.check_frame(part)

    def check_frame(self, part: int) -> None:
        """Raises ArtifactError if what surrounds the batches of a part is damaged."""
        if "frames" in self._about:
            name = self.parts[part].name
            data = np.frombuffer(self._map(f"parts/{name}"), np.uint8)
            if frame_sum(data, self.blocks_B, part) != self._about["frames"][part]:
                raise self._damaged(name, "Arrow's schema or its end has a wrong checksum")

    def check_file(self, name: str) -> None:
        """Raises ArtifactError if a file beside the texts is damaged."""
        self._pages_of(name).check_all()

    def block(self, block: int, message: pa.Buffer | None = None) -> pa.RecordBatch:
        """Returns a batch of titles and texts; ArtifactError if it is damaged.

        Args:
            block: its number.
            message: its bytes, where they were fetched already.
        """
        _, part, offset, length, crc = self._blocks_B[block].tolist()
        path = self.parts[part]
        if message is None and on_demand.is_absent(path):
            (message,) = self._fetch(np.array([block])).values()
        elif message is None:
            message = self._map(f"parts/{path.name}").slice(offset, length)
        if message.size != length or zlib.crc32(message) != crc:
            raise self._damaged(path.name, f"batch {block} has a wrong checksum")
        return pa.ipc.read_record_batch(pa.ipc.read_message(message), STORED)

    def _fetch(self, blocks: Array) -> dict[int, pa.Buffer]:
        """Fetches the bytes of those batches that are not on this disk, many at a time."""
        fetched: dict[int, pa.Buffer] = {}
        for part in np.unique(self._blocks_B[blocks, PART]).tolist():
            if on_demand.is_absent(self.parts[part]):
                mine = blocks[self._blocks_B[blocks, PART] == part]
                places = self._blocks_B[mine][:, [OFFSET, LENGTH]].tolist()
                spans = [(start, start + size) for start, size in places]
                messages = on_demand.read(self.parts[part], spans)
                fetched |= dict(zip(mine.tolist(), map(pa.py_buffer, messages)))
        return fetched

    def _map(self, name: str) -> pa.Buffer:
        """Returns a file's bytes; its descriptor is closed, so a store may have many parts."""
        if name not in self._maps:
            on_demand.fetch(self.folder / name)
            self._maps[name] = self._mapped(self.folder / name, self._sizes[name])
        return self._maps[name]

    def _mapped(self, path: Path, size: int) -> pa.Buffer:
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
            return _array(self._pages_of(name).data)
        except (ValueError, TypeError) as error:
            raise self._damaged(name, f"its header cannot be read: {error}") from error

    def _damaged(self, name: str, why: str) -> ArtifactError:
        return ArtifactError(f"{self.folder}: {name} is damaged: {why}; build it again")


def _array(data: pa.Buffer) -> np.ndarray:
    """Returns a mapped array of NumPy's format.

    NumPy reads the header by Python's parser, which fails now and then where two threads use it
    (a SystemError about its depth of recursion, Python 3.11).
    """
    head = _HEADER.match(data.slice(0, min(_LONGEST, data.size)).to_pybytes())
    if head is None:
        raise ValueError("it is none of an array")
    shape = tuple(int(each) for each in head["shape"].split(b",") if each.strip())
    start = 10 + int.from_bytes(head["size"], "little")
    return np.frombuffer(data, head["dtype"].decode(), offset=start).reshape(shape)
