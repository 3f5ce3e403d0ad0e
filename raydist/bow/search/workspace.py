"""The arrays that the kernels of a search share, and how their elements are packed.

Legend: S segments, N documents of one, q terms of the query, B blocks of all its terms one term
after another, W documents of a window, C candidates.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np

from raydist.bow.format.postings import BLOCK_SLACK
from raydist.kernels.addresses import (
    Array,
    Bytes,
    DoubleGrid,
    Doubles,
    Flags,
    Floats,
    LongGrid,
    Longs,
    Offsets,
    WordGrid,
    Words,
    addresses,
)
from raydist.kernels.arrays import readonly
from raydist.text.analyzer import Analyzer
from raydist.text.lexicon import Lexicon
from raydist.text.string_table import joined

U = np.uint64
U32 = np.uint32

MOST_TERMS = 400
"""Terms of a query that the kernels take: of more, 16 bits of a sum do not tell enough apart."""

WINDOW = 16384
"""Documents per window."""

MARGIN = 64
"""Candidates that may be written behind the last one."""

BINS = 512
"""Of a sum's 16 bits, for the first threshold."""

TABULATED = U(16)
"""Frequencies whose impacts are computed before the first window."""

NONE = U(0xFFFFFFFFFFFFFFFF)

# A spot says where a block starts and, above, the widths of its values (postings.py).
START = U(0xFFFFFFFFFFFF)

# A word is a sum of quantised impacts above a payload of exact frequencies, some bits a term.
SUM, PAYLOAD = U32(16), U32(0xFFFF)

# A row of impacts is indexed by (tf - 1) << NORM | norm.
NORM = U(8)

CURSOR = np.dtype(
    [
        ("weight", np.float32),  # boost * idf
        ("scaled", np.float32),  # the same in units of a quantised impact
        ("factor", np.float64),  # what other models take of it (impacts.py), as is the next
        ("statistic", np.float64),
        ("scale", np.float64),  # quantised impacts are so many times the impacts
        ("first", np.uint64),  # its first block
        ("stop", np.uint64),  # the block behind its last
        ("size", np.uint64),  # postings of a block
        ("tail", np.uint64),  # postings of its last block
        ("block", np.uint64),  # the block it has come to
        ("docs_block", np.uint64),  # the block whose documents are unpacked
        ("tfs_block", np.uint64),  # the block whose frequencies are unpacked
        ("place", np.uint64),  # of its unpacked documents, the first not below the window
        ("top", np.uint64),  # largest impact in the window
        ("wide", np.uint64),  # blocks in the window
    ]
)
"""A query's term on its way through its list of postings."""


class SegmentArrays(NamedTuple):
    """A segment's arrays as the kernels read them."""

    packed: Bytes
    raw_docs: Words  # raw segments only, as are raw_tfs
    raw_tfs: Words
    norms: Bytes  # [N], as all of the segment's documents by slot
    order: Words  # [N] the document at each slot of a reordered segment, else empty
    unchecked: Flags  # chunks of the file of `packed` whose checksums were not compared
    unchecked_docs: Flags  # the same of `raw_docs`, as is unchecked_tfs
    unchecked_tfs: Flags
    allowed: Bytes  # a bit per document that may be a candidate, or empty for all
    inverse: Floats  # [256] Lucene's inverse denominator by norm
    model: Doubles  # the model (impacts.py)
    lengths: Words  # [N] exact lengths, or empty for those of the norms
    terms: Bytes  # the dictionary, as are groups
    groups: LongGrid
    lost_terms: Bytes  # the dictionary of the deleted documents, as are lost_groups
    lost_groups: LongGrid
    # terms, largest norm, terms of deleted documents, whether a search is restricted, postings of a
    # block, position of the first document, layout of the postings
    facts: Longs


SEGMENT_ARRAYS = U(len(SegmentArrays._fields))


class Work(NamedTuple):
    """The working memory of a search."""

    # The query's terms in the dictionaries, by segment and term
    rows: LongGrid  # [S q, 6]
    weights: Floats  # [S q] boost * idf, of Lucene's BM25
    factors: DoubleGrid  # [S q, 2] weight and statistic, of other models
    lost: Longs  # [S q] deleted documents that have the term
    tokens: Doubles  # [1] of the query, unknown ones included
    scan: Longs  # [1] address of the kernel scan.py
    caution: Offsets  # [2] searches before the next that expects anything, and after a mistake
    counts: Offsets  # [S] terms that a segment has
    numbers: Words  # [q] the lexicon's numbers of the terms
    boosts: Floats  # [q]
    # Lists
    cursors: Annotated[Array, CURSOR, 1]  # [q]
    order: Longs  # [q] terms by their largest impact in the window
    below: Longs  # [q + 1] sums of the largest impacts in that order
    ends: Words  # [B] last document
    tops: Words  # [B] largest impact
    spots: Longs  # [B] where a block starts
    docs: WordGrid  # [q, block size + BLOCK_SLACK] unpacked documents
    tfs: WordGrid  # the same, tf - 1
    impacts: WordGrid  # [q, 16 * 256] words by tf - 1 and norm
    constants: Words  # [256] words by norm of what a document has whatever its terms, falling
    # A window
    sums: Words  # [W + 128] words, zero between windows
    masks: LongGrid  # [2, W / 64 + 1] which of 64 documents are candidates, the first of the 64
    hits: Words  # [block size + 1] positions in a block
    # Candidates
    candidates: Words  # [C] documents, ascending
    words: Words  # [C]
    exact: Doubles  # [C] scores
    keys: LongGrid  # [2, C] ~score << 32 | document
    bins: Offsets  # [BINS]
    best_docs: Offsets  # [C] the answer
    best_scores: Floats


_NO_TABLE = np.zeros((2, 3), np.uint64)
_REMEMBERED = 1 << 18  # terms that a thread's lexicon may hold
_ROOM = 1 << 17  # candidates beside 4 k
_MOST_ROOM = 1 << 22  # candidates, however many have the same score
_KEPT = 1 << 25  # bytes of a workspace that are kept for smaller searches


class Workspace:
    """Arrays that are grown as queries need it.

    Attributes:
        table: their addresses.
        rows: uint64 [S, MOST_TERMS, 6], the query's terms in the dictionaries, as `Segment.lookup`.
        weights: float32 [S, MOST_TERMS], boost * idf of the same.
        factors: float64 [S, MOST_TERMS, 2], what other models take of the same.
        lost: uint64 [S, MOST_TERMS], deleted documents that have them.
        counts: int64 [S], the number of terms that each segment has.
        scan: uint64 [1], the address of the kernel `scan`, 0 before it is known.
    """

    def __init__(self, segments: int) -> None:
        self.rows = np.zeros((segments, MOST_TERMS, 6), np.uint64)
        self.weights = np.zeros((segments, MOST_TERMS), np.float32)
        self.factors = np.zeros((segments, MOST_TERMS, 2), np.float64)
        self.lost = np.zeros((segments, MOST_TERMS), np.uint64)
        self.counts = np.zeros(segments, np.int64)
        self._tokens = np.zeros(1, np.float64)
        self.scan = np.zeros(1, np.uint64)
        self._caution = np.zeros(2, np.int64)
        self._numbers = np.zeros(MOST_TERMS, np.uint32)
        self._boosts = np.zeros(MOST_TERMS, np.float32)
        self._size = (0, 0, 0, 0)
        self.grow(16, 1 << 12, 128, room_for(10))

    def fits(self, k: int) -> bool:
        """Returns whether its memory is small, or in proportion to results of `k` documents."""
        return self._nbytes <= _KEPT or self._size[3] <= 4 * room_for(k)

    def crowd(self, documents: int) -> bool:
        """Makes room for more candidates among so many documents; returns whether there is more."""
        terms, blocks, block_size, room = self._size
        if room >= min(documents, _MOST_ROOM):
            return False
        self.grow(terms, blocks, block_size, 4 * room)
        return True

    def grow(self, terms: int, blocks: int, block_size: int, room: int) -> None:
        """Makes room for queries of `terms` terms with `blocks` blocks of `block_size` postings."""
        old = self._size
        terms, blocks, room = max(old[0], terms), max(old[1], blocks), max(old[3], room)
        blocks = 1 << (blocks - 1).bit_length()
        self._size = (terms, blocks, block_size, room)
        room += WINDOW + MARGIN
        self._work = Work(
            rows=self.rows.reshape(-1, 6),
            weights=self.weights.reshape(-1),
            factors=self.factors.reshape(-1, 2),
            lost=self.lost.reshape(-1),
            tokens=self._tokens,
            scan=self.scan,
            caution=self._caution,
            counts=self.counts,
            numbers=self._numbers,
            boosts=self._boosts,
            cursors=np.zeros(terms, CURSOR),
            order=np.empty(terms, np.uint64),
            below=np.empty(terms + 1, np.uint64),
            ends=np.empty(blocks, np.uint32),
            tops=np.empty(blocks, np.uint32),
            spots=np.empty(blocks, np.uint64),
            docs=np.empty((terms, block_size + BLOCK_SLACK), np.uint32),
            tfs=np.empty((terms, block_size + BLOCK_SLACK), np.uint32),
            impacts=np.empty((terms, int(TABULATED) << int(NORM)), np.uint32),
            constants=np.zeros(1 << int(NORM), np.uint32),
            sums=np.zeros(WINDOW + 128, np.uint32),
            masks=np.empty((2, WINDOW // 64 + 1), np.uint64),
            hits=np.empty(block_size + 1, np.uint32),
            candidates=np.empty(room, np.uint32),
            words=np.empty(room, np.uint32),
            exact=np.empty(room, np.float64),
            keys=np.empty((2, room), np.uint64),
            bins=np.empty(BINS, np.int64),
            best_docs=np.empty(room, np.int64),
            best_scores=np.empty(room, np.float32),
        )
        self._nbytes = sum(array.nbytes for array in self._work)
        self.table = addresses(self._work)

    def enter(
        self, rows: Sequence[Array], lost: Sequence[Array], factors: Array, tokens: float
    ) -> None:
        """Enters a query's terms that live documents have; see `BowIndex.lookup`.

        `factors` are each term's weight and statistic, float64 [q, 2]; `tokens` are those of the
        query.
        """
        self._tokens[0] = tokens
        for number, (terms, lost_q) in enumerate(zip(rows, lost)):
            present = terms[:, 2] > lost_q
            count = int(present.sum())
            self.counts[number] = count
            self.rows[number, :count] = terms[present]
            self.lost[number, :count] = lost_q[present]
            self.weights[number, :count] = factors[present, 0]
            self.factors[number, :count] = factors[present]


def room_for(k: int) -> int:
    """Returns how many candidates a search for the best `k` has room for."""
    return 4 * k + _ROOM


class PerThread(threading.local):
    """The working memory of each thread that searches.

    Attributes:
        workspace: for the kernels.
        lexicon_table: addresses of the terms' bytes and of where each begins.
    """

    def __init__(self, segments: int) -> None:
        self._segments = segments
        self.workspace = Workspace(segments)
        self.lexicon_table = _NO_TABLE
        self._lexicon: Lexicon | None = None
        self._version = -1
        self._bounds = np.zeros(2, np.int64)

    def shrink(self, k: int) -> None:
        """Gives memory back that larger searches than one for the best `k` have needed."""
        if not self.workspace.fits(k):
            self.workspace = Workspace(self._segments)

    def numbers(self, analyzer: Analyzer, texts: Sequence[str]) -> tuple[Array, Array]:
        """Returns the terms of texts as the lexicon numbers them, and where each text's begin.

        Both (uint32 [W] and int64 [Q + 1]) are valid until the next call.
        """
        lexicon = self._lexicon
        if lexicon is None or len(lexicon.terms) > _REMEMBERED:
            lexicon = self._lexicon = analyzer.lexicon()
            self._version = -1
        if len(texts) == 1:
            terms, bounds = lexicon.numbers(texts[0]), self._bounds
            bounds[1] = len(terms)
        else:
            data, starts = joined([text.encode("utf-8", "surrogatepass") for text in texts])
            terms, lengths = lexicon.analyze(data, readonly(starts, np.int64))
            bounds = np.zeros(len(starts), np.int64)
            np.cumsum(lengths, out=bounds[1:])
        if self._version != lexicon.terms.version:
            self._version = lexicon.terms.version
            self.lexicon_table = addresses([lexicon.terms.heap, lexicon.terms.starts])
        return terms, bounds
