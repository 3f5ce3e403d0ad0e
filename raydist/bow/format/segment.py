"""One segment of an index on disk: sorted terms, their postings, the documents' lengths and ids.

`SegmentWriter` takes terms in order and streams; `Segment` maps the files; `concatenate` joins
segments of consecutive ranges of terms, so that a merge may run in parallel. The bytes depend on
the content alone. Files::

    terms, terms.groups        the dictionary: df and bytes of postings beside each term
    postings                   packed postings with their skips (postings.py), or the skips alone
    docs, tfs                  uint32 arrays of a raw segment (compress=False)
    norms, lengths             a byte per document, and what its exact length is (lengths.py)
    order                      which documents the postings number, if reordered (order.py)
    ids, ids.groups            external ids
    positions, positions.*     positions of terms, where they were asked for (positions.py)
    forward, forward.*         the terms of each document, if the index has them (forward.py)
    columns                    metadata of the documents, where there is any (columns.py)

Legend: N documents, T terms, P postings.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.format import dictionary, postings
from raydist.bow.format.columns import COLUMNS, read_columns
from raydist.bow.format.deletions import Deletions
from raydist.bow.format.files import Files, write
from raydist.bow.format.lengths import unpack_lengths
from raydist.bow.format.order import ORDER, inverse, renumbered
from raydist.bow.format.positions import FILES, Positions, PositionsWriter
from raydist.bow.format.writing import PADDING, StringsWriter, finish
from raydist.errors import ArtifactError
from raydist.kernels.arrays import readonly
from raydist.kernels.bits import Bits

Array = npt.NDArray[Any]

TermPostings = tuple[pa.LargeBinaryArray, Array, Array, Array]
PlacedPostings = tuple[pa.LargeBinaryArray, Array, Array, Array, Array | None]

_NO_BYTES = readonly(np.empty(0, np.uint8))
_SLICE = 1 << 20  # terms copied at once
_NO_NUMBERS = readonly(np.empty(0, np.uint32))


class Segment:
    """A segment opened for reading, with what is deleted from it.

    Deleted documents keep their numbers, ids, lengths and postings: whoever walks these looks at
    `live` too. The statistics are those of the live documents.

    Attributes:
        folder: the one it was opened from.
        documents: N, empty and deleted ones included.
        nonempty: live documents with at least one token.
        size: T, the number of distinct terms, those of deleted documents included.
        tokens: sum of the live documents' lengths.
        postings_total: number of postings, those of deleted documents included.
        deletions: what is deleted, None if nothing is.
        block_size: postings per block.
        compress: whether postings are bit-packed.
        layout: of its postings and lengths.
        files: its files; `files.verify()` checks every byte.
    """

    def __init__(
        self, folder: Path, deletions: Path | None = None, *, in_memory: bool = False
    ) -> None:
        self.folder = folder
        self.files = Files(folder, in_memory=in_memory)
        header = self.files.header
        self.documents: int = header["documents"]
        self.nonempty: int = header["nonempty"]
        self.size: int = header["terms"]
        self.postings_total: int = header["postings"]
        self.tokens: int = header["tokens"]
        self.block_size: int = header["block_size"]
        self.compress: bool = header["compress"]
        self.layout: int = header.get("layout", 1)
        self._checked_ids: tuple[Array, Array] | None = None
        self.deletions = None if deletions is None else Deletions(deletions, self.documents)
        if self.deletions is not None:
            self.nonempty -= self.deletions.nonempty
            self.tokens -= self.deletions.tokens

    @classmethod
    def open(
        cls, folder: Path | str, deletions: Path | None = None, *, in_memory: bool = False
    ) -> Segment:
        """Maps the segment in `folder`, or reads it whole.

        Args:
            folder: the segment's.
            deletions: the folder of what is deleted from it, if anything is.
            in_memory: read the segment into memory and check it.

        Raises:
            ArtifactError: a folder is incomplete, corrupted or of a newer version.
        """
        return cls(Path(folder), deletions, in_memory=in_memory)

    @cached_property
    def dictionary(self) -> tuple[Array, Array]:
        """The bytes of the terms and their groups, checked."""
        for name in ("terms", "terms.groups"):
            self.files.check(name)
        return self.files.array("terms"), self.files.array("terms.groups", np.uint64).reshape(-1, 3)

    @cached_property
    def slot_norms_N(self) -> Array:
        """The lengths as bytes (`formulas.py`) of the documents as the postings number them."""
        self.files.check("norms")
        return self.files.array("norms")

    @cached_property
    def norms_N(self) -> Array:
        """Each document's length as a byte, checked."""
        if self.order_N is None:
            return self.slot_norms_N
        return readonly(self.slot_norms_N[self.slots_N])

    @cached_property
    def order_N(self) -> Array | None:
        """The document at each slot of a reordered segment, None in the documents' own order."""
        if ORDER not in self.files.header["files"]:
            return None
        self.files.check(ORDER)
        return self.files.array(ORDER, np.uint32)

    @cached_property
    def slots_N(self) -> Array:
        """The slot of each document of a reordered segment."""
        assert self.order_N is not None
        return inverse(self.order_N)

    def documents_at(self, slots: Array) -> Array:
        """Returns the documents that the postings number so."""
        return slots if self.order_N is None else self.order_N[slots]

    def by_slot(self, values_N: Array) -> Array:
        """Returns what belongs to the documents in the order of their slots."""
        return values_N if self.order_N is None else values_N[self.order_N]

    def slots_of(self, documents: Bits | None) -> Array:
        """Returns a bit for the slot of each of some documents, none at all (uint8 [0]) for all."""
        if documents is None:
            return _NO_BYTES
        return (documents if self.order_N is None else Bits.of(self.by_slot(documents.flags))).data

    @cached_property
    def packed(self) -> Array:
        """The packed postings with their skips, unchecked."""
        return self.files.array("postings")

    @cached_property
    def raw_docs(self) -> Array:
        """The slots of a raw segment's postings, unchecked; empty in a compressed one."""
        return _NO_NUMBERS if self.compress else self.files.array("docs", np.uint32)

    @cached_property
    def raw_tfs(self) -> Array:
        """The term frequencies of a raw segment's postings, like `raw_docs`."""
        return _NO_NUMBERS if self.compress else self.files.array("tfs", np.uint32)

    @cached_property
    def columns(self) -> pa.Table | None:
        """Metadata of each document, deleted ones included; None where there is none."""
        if COLUMNS not in self.files.header["files"]:
            return None
        self.files.check(COLUMNS)
        return read_columns(self.folder / COLUMNS, self.files.array(COLUMNS))

    @property
    def has_positions(self) -> bool:
        """Whether the positions of terms are stored."""
        return FILES[0] in self.files.header["files"]

    @cached_property
    def positions(self) -> Positions:
        """The positions of terms, of a segment that has them."""
        return Positions(self.files, self.size, self.block_size)

    @property
    def live_documents(self) -> int:
        """Number of documents that are not deleted."""
        return self.documents - (self.deletions.documents if self.deletions else 0)

    @property
    def live_postings(self) -> int:
        """Number of postings of the documents that are not deleted."""
        return self.postings_total - (self.deletions.postings if self.deletions else 0)

    @property
    def live_N(self) -> Array:
        """Whether each document is live, bool."""
        if self.deletions is None:
            return np.ones(self.documents, np.bool_)
        return self.deletions.live.flags

    @cached_property
    def lengths_N(self) -> Array:
        """Exact numbers of tokens per document, uint32."""
        self.files.check("lengths")
        if self.layout > 1:
            try:
                return readonly(unpack_lengths(self.files.array("lengths"), self.norms_N))
            except ValueError as error:
                raise ArtifactError(f"{self.folder}: {error}; build the index again") from None
        lengths = self.files.array("lengths", np.dtype(self.files.header["lengths"]))
        return readonly(lengths, np.uint32)

    @property
    def doc_ids(self) -> pa.LargeStringArray:
        """All external ids in document order, decoded."""
        return self.read_ids(0, self.documents).cast(pa.large_string())

    def read_ids(self, first: int, last: int) -> pa.LargeBinaryArray:
        """Returns the external ids of the documents `first <= d < last`, decoded."""
        return dictionary.decode(*self._ids(), first, last)[0]

    def pick_ids(self, docs: Array, *, short: bool = False) -> pa.Array:
        """Returns the external ids of the documents at `docs`, positions in the segment.

        They are large_string or, if they are to be `short`, string where its offsets suffice.
        """
        ids, groups = self._ids(docs)
        # A cast would take as long as all the rest.
        kind = pa.string() if short else pa.large_string()
        return dictionary.pick_strings(ids, groups, docs, kind)

    def _ids(self, docs: Array | None = None) -> tuple[Array, Array]:
        """Returns the ids and where their groups begin; what `docs` need of them is checked."""
        if self._checked_ids is not None:
            return self._checked_ids
        if "ids" not in self.files.header["files"]:
            raise ArtifactError(f"{self.folder} is a part of a segment and has no document ids")
        ids, groups = self.files.array("ids"), self.files.array("ids.groups", np.uint64)
        if docs is None:
            self.files.check("ids")
            self.files.check("ids.groups")
        elif self.files.unchecked("ids").any() or self.files.unchecked("ids.groups").any():
            first = docs // dictionary.GROUP
            last = np.minimum(first + 1, len(groups) - 1)
            self.files.check_each("ids.groups", 8 * first, 8 * last)
            stops = np.where(first == last, len(ids) - 1, groups[last])
            self.files.check_each("ids", groups[first], stops)
        found = ids, groups.reshape(-1, 1)
        if not (self.files.unchecked("ids").any() or self.files.unchecked("ids.groups").any()):
            self._checked_ids = found
        return found

    @property
    def terms(self) -> pa.LargeBinaryArray:
        """All terms in ascending byte order, decoded."""
        return self.read_terms(0, self.size)[0]

    def read_terms(self, first: int, last: int) -> tuple[pa.LargeBinaryArray, Array, int, int]:
        """Reads the terms `first <= t < last`.

        Returns the terms, `[T, 2]` df and bytes of postings, where the first one's bytes begin in
        the file `postings`, and how many postings precede them.
        """
        assert 0 <= first <= last <= self.size
        terms, numbers_TK, sums = dictionary.decode(*self.dictionary, first, last)
        return terms, numbers_TK, int(sums[1]), int(sums[0])

    def pick_terms(self, positions: Array) -> pa.LargeBinaryArray:
        """Returns the terms at positions in the dictionary."""
        return dictionary.pick_strings(*self.dictionary, positions)

    def lower_bound(self, term: bytes) -> int:
        """Returns how many terms are below `term` in byte order."""
        return int(self.lookup([term])[0, 1])

    def lookup(self, terms: Sequence[bytes]) -> Array:
        """Finds terms.

        Returns uint64 [Q, 6]: found, position, df, bytes of postings, postings before it, where its
        postings begin. A missing term has the position that it would have, and df 0.
        """
        return dictionary.look_up(*self.dictionary, self.size, terms)

    def postings(self, first: int, last: int) -> tuple[Array, Array, Array]:
        """Decodes the postings of the terms `first <= t < last`.

        Returns indptr (int64 [T + 1]), documents and term frequencies (uint32 [P]).
        """
        _, numbers_TK, begin, before = self.read_terms(first, last)
        return self.decode(numbers_TK, begin, before)

    def slices(self, terms: int, postings: int) -> Iterator[TermPostings]:
        """Yields all terms with what `postings` returns, at most about so many at a time."""
        for first, last in self.ranges(terms, postings):
            yield (self.read_terms(first, last)[0], *self.postings(first, last))

    def ranges(self, terms: int, postings: int) -> Iterator[tuple[int, int]]:
        """Yields where consecutive ranges of terms begin and end, of at most about that size."""
        first = 0
        while first < self.size:
            last = min(first + terms, self.size)
            numbers_TK = self.read_terms(first, last)[1]
            ends = np.cumsum(numbers_TK[:, 0].astype(np.int64))
            last = first + max(1, int(np.searchsorted(ends, postings, side="right")))
            yield first, last
            first = last

    def decode(self, numbers_TK: Array, begin: int, before: int) -> tuple[Array, Array, Array]:
        """Decodes consecutive terms from what `read_terms` returned; see `postings`."""
        indptr_T1, docs_P, tfs_P = self.decode_slots(numbers_TK, begin, before)
        if self.order_N is not None:
            docs_P, tfs_P, _ = renumbered(self.order_N, indptr_T1, docs_P, tfs_P)
        return indptr_T1, docs_P, tfs_P

    def read(self, first: int, last: int) -> PlacedPostings:
        """Reads the terms `first <= t < last` with their postings, and positions if it has them."""
        terms, numbers_TK, begin, before = self.read_terms(first, last)
        indptr_T1, docs_P, tfs_P = self.decode_slots(numbers_TK, begin, before)
        positions_W = None
        if self.has_positions:
            positions_W = self.positions.decode(first, indptr_T1, tfs_P)
        if self.order_N is not None:
            docs_P, tfs_P, positions_W = renumbered(
                self.order_N, indptr_T1, docs_P, tfs_P, positions_W
            )
        return terms, indptr_T1, docs_P, tfs_P, positions_W

    def decode_slots(
        self, numbers_TK: Array, begin: int, before: int
    ) -> tuple[Array, Array, Array]:
        """Decodes terms as they are stored: by slot, where the segment is reordered."""
        indptr_T1 = np.zeros(len(numbers_TK) + 1, np.int64)
        np.cumsum(numbers_TK[:, 0], out=indptr_T1[1:])
        total = int(indptr_T1[-1])
        if not self.compress:
            self.files.check("docs", 4 * before, 4 * (before + total))
            self.files.check("tfs", 4 * before, 4 * (before + total))
            span = slice(before, before + total)
            return indptr_T1, self.raw_docs[span], self.raw_tfs[span]
        self.files.check("postings", begin, begin + int(numbers_TK[:, 1].sum()))
        docs = np.empty(total + postings.BLOCK_SLACK, np.uint32)
        tfs = np.empty(total + postings.BLOCK_SLACK, np.uint32)
        df_T, sizes_T = readonly(numbers_TK[:, 0]), readonly(numbers_TK[:, 1])
        shape = self.block_size, self.layout
        postings.decode(self.packed, begin, df_T, sizes_T, *shape, docs, tfs)
        return indptr_T1, docs[:total], tfs[:total]


def open_segments(
    folder: Path, manifest: Mapping[str, Any], *, in_memory: bool = False
) -> list[Segment]:
    """Opens the segments that an index's manifest names, with what it says is deleted from them.

    A manifest names segments in the order of their documents, and deletions by their segment:
    `{"segments": ["segments/00000"], "deletions": {"segments/00000": "deletions/00001-3f/00000"}}`.
    """
    deletions = manifest.get("deletions", {})
    return [
        Segment.open(
            folder / name,
            folder / deletions[name] if name in deletions else None,
            in_memory=in_memory,
        )
        for name in manifest["segments"]
    ]


def concatenate(parts: Sequence[Path], folder: Path) -> dict[str, int]:
    """Joins segments of consecutive ranges of terms over the same documents.

    The result is, byte for byte, what one writer would have written. The documents' lengths and ids
    are taken from the first part. Returns the same statistics as `SegmentWriter.close`; raises
    ArtifactError where parts have different layouts.
    """
    opened = [Segment.open(part) for part in parts]
    head = opened[0].files.header
    for part in opened:
        same = all(part.files.header[key] == head[key] for key in ("documents", "tokens"))
        shape = (part.block_size, part.compress) == (head["block_size"], head["compress"])
        assert same and shape, f"{part.folder} is not a part of the segment of {opened[0].folder}"
        if part.layout != opened[0].layout:  # of a merge that was begun by an earlier version
            raise ArtifactError(
                f"{opened[0].folder} and {part.folder} are of different versions of raydist: "
                "remove them, and begin again"
            )
    folder.mkdir(parents=True, exist_ok=True)
    terms = StringsWriter(folder, "terms", 2)
    last: bytes | None = None
    for part in opened:
        for first in range(0, part.size, _SLICE):
            strings, numbers_TK, _, _ = part.read_terms(first, min(first + _SLICE, part.size))
            assert last is None or last < strings[0].as_py(), "ranges of terms must ascend"
            last = strings[len(strings) - 1].as_py()
            terms.append(strings, numbers_TK)
    terms.close()
    streams = ["postings"] if head["compress"] else ["postings", "docs", "tfs"]
    for name in streams:
        with open(folder / name, "wb") as out:
            for part in opened:
                part.files.check(name)
                size = part.files.header["files"][name]["bytes"] - len(PADDING)
                write(out, part.files.array(name)[:size])
            out.write(PADDING)
    if opened[0].has_positions:
        joined = PositionsWriter(folder)
        for part in opened:
            joined.copy(part.positions)
        joined.close()
        streams += FILES
    once = ("norms", "lengths", "ids", "ids.groups", COLUMNS)
    copied = [name for name in once if name in head["files"]]
    for name in copied:
        opened[0].files.check(name)
        shutil.copyfile(opened[0].folder / name, folder / name)
    kept = ("compress", "block_size", "documents", "nonempty", "layout", "lengths")
    about = {key: head[key] for key in kept if key in head} | {
        "terms": terms.count,
        "postings": sum(part.postings_total for part in opened),
        "tokens": head["tokens"],
    }
    return finish(folder, ["terms", "terms.groups", *streams, *copied], about)
