"""The arrays that the kernel of weighted terms reads and writes.

Legend: N documents of a segment, T its terms, B its blocks, G its groups of blocks, q terms of the
query, C candidates.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from raydist.bow.format.postings import BLOCK_SLACK
from raydist.bow.format.segment import Segment
from raydist.bow.format.weights import BLOCK, GROUP, term_bits
from raydist.kernels.addresses import (
    Bytes,
    Doubles,
    Flags,
    Floats,
    LongGrid,
    Longs,
    Shorts,
    WordGrid,
    Words,
    addresses,
)
from raydist.kernels.bits import Bits

_ROOM = 1 << 14  # candidates beside 4 k
_MOST_ROOM = 1 << 24
_KEPT = 1 << 27  # bytes of a workspace that stay for smaller searches


class WeightedSegment(NamedTuple):
    """A segment's arrays as the kernel reads them; see format/weights.py."""

    weights: Words
    starts: Longs  # [N + 1]
    tops: Bytes  # [rows, B]
    groups: Bytes  # [rows, G]
    about: WordGrid  # [T, 2]
    packed: Bytes  # postings, or the next two
    raw_docs: Words
    raw_tfs: Words
    allowed: Bytes  # a bit per document that may be found, or empty for all
    unchecked_weights: Flags  # chunks whose checksums were not compared
    unchecked_tops: Flags
    unchecked_postings: Flags
    facts: Longs  # documents, groups, bits of a term, postings of a block, layout of the postings


WEIGHTED_ARRAYS = len(WeightedSegment._fields)


def arrays_of(segment: Segment, allowed: Bits | None) -> WeightedSegment:
    """Returns the arrays of a segment; what is small is checked."""
    files = segment.files
    for name in ("weights.starts", "tops.groups", "tops.terms"):
        files.check(name)
    if not segment.compress:
        files.check("docs")
        files.check("tfs")
    groups = -(-segment.documents // (BLOCK * GROUP))
    facts = [segment.documents, groups, term_bits(segment), segment.block_size, segment.layout]
    return WeightedSegment(
        weights=files.array("weights", np.uint32),
        starts=files.array("weights.starts", np.uint64),
        tops=files.array("tops"),
        groups=files.array("tops.groups"),
        about=files.array("tops.terms", np.uint32).reshape(-1, 2),
        packed=segment.packed,
        raw_docs=segment.raw_docs,
        raw_tfs=segment.raw_tfs,
        allowed=segment.slots_of(allowed),
        unchecked_weights=files.unchecked("weights"),
        unchecked_tops=files.unchecked("tops"),
        unchecked_postings=files.unchecked("postings"),
        facts=np.array(facts, np.uint64),
    )


class WeightedWork(NamedTuple):
    """The working memory of a search."""

    rows: LongGrid  # [q, 6] the terms in the segment's dictionary, as `Segment.lookup`
    factors: Doubles  # [q] weights in the query
    parts: Doubles  # [q] of one document's score
    scales: Longs  # [q] by which a frequent term's tops become bounds
    at: Longs  # [q] where a frequent term's tops begin, in groups
    order: Longs  # [q] terms by their largest part
    docs: Words  # postings of one term
    tfs: Words
    bounds: Shorts  # [B] 1 + bound, 0 where a block is done
    keys: Words  # [G] the largest bound of each group
    ready: Bytes  # [G] whether the bounds of its blocks are complete
    table: Shorts  # [T] the query's weights by term, 0 between searches
    slots: Shorts  # [T] the query's terms from 1 on, for those of `table`
    sums: Doubles  # [N] scores, where all are computed
    heap: Floats  # [k] the best scores, the smallest first
    found: Words  # [C] candidates
    scores: Floats  # [C]
    state: Longs  # scores in the heap


class _Sizes(NamedTuple):
    """What a workspace has room for."""

    terms: int = 0
    groups: int = 0
    postings: int = 0
    vocabulary: int = 0
    k: int = 0
    candidates: int = 0
    documents: int = 0


class Workspace:
    """Arrays that grow as searches need it.

    Attributes:
        work: the arrays.
        table: their addresses.
        is_large: whether it has more memory than most searches need.
    """

    def __init__(self) -> None:
        self._sizes = _Sizes()
        self._grow(_Sizes(terms=64, postings=1 << 12, k=16, candidates=_ROOM))

    def fit(self, terms: int, segment: WeightedSegment, k: int) -> None:
        """Makes room for a query of so many terms in a segment."""
        groups = int(segment.facts[1])
        vocabulary, candidates = len(segment.about), 4 * k + _ROOM
        self._grow(_Sizes(terms, groups, vocabulary=vocabulary, k=k, candidates=candidates))

    def postings(self, count: int) -> None:
        """Makes room for the postings of one term."""
        self._grow(_Sizes(postings=count + BLOCK_SLACK))

    def documents(self, count: int) -> None:
        """Makes room for the scores of all documents."""
        self._grow(_Sizes(documents=count))

    def crowd(self) -> bool:
        """Makes room for more candidates; returns whether it did."""
        room = self._sizes.candidates
        if room >= _MOST_ROOM:
            return False
        self._grow(_Sizes(candidates=4 * room))
        return True

    def _grow(self, least: _Sizes) -> None:
        """Makes room for at least so many of each."""
        sizes = _Sizes(*map(max, self._sizes, least))
        if sizes == self._sizes:
            return
        self._sizes = sizes
        terms, groups, postings, vocabulary, k, room, documents = sizes
        self.work = WeightedWork(
            rows=np.zeros((terms, 6), np.uint64),
            factors=np.zeros(terms, np.float64),
            parts=np.zeros(terms, np.float64),
            scales=np.zeros(terms, np.uint64),
            at=np.zeros(terms, np.uint64),
            order=np.zeros(terms, np.uint64),
            docs=np.empty(postings, np.uint32),
            tfs=np.empty(postings, np.uint32),
            bounds=np.zeros(groups * GROUP, np.uint16),
            keys=np.zeros(groups, np.uint32),
            ready=np.zeros(groups, np.uint8),
            table=np.zeros(vocabulary, np.uint16),
            slots=np.zeros(vocabulary, np.uint16),
            sums=np.empty(documents, np.float64),
            heap=np.zeros(k, np.float32),
            found=np.empty(room, np.uint32),
            scores=np.empty(room, np.float32),
            state=np.zeros(1, np.uint64),
        )
        self.table = addresses(self.work)
        self.is_large = sum(each.nbytes for each in self.work) > _KEPT


class PerThread(threading.local):
    """The working memory of each thread that searches."""

    def __init__(self) -> None:
        self.workspace = Workspace()
