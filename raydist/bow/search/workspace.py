"""The working memory of one thread's searches, and its lexicon.

Legend: q terms of the query, B blocks of all its terms one term after another, W documents of a
window, C candidates, S segments.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.format.codec import BLOCK_SLACK
from raydist.bow.search.lists import BINS, WINDOW
from raydist.kernels.addresses import addresses
from raydist.text.analyzer import Analyzer
from raydist.text.lexicon import Lexicon

Array = npt.NDArray[Any]
U = np.uint64

MOST_TERMS = 256
"""Terms of a query that the kernel takes: its sums have 16 bits."""

_REMEMBERED = 1 << 18  # terms that a thread's lexicon may hold
_ROOM = 1 << 17  # candidates beside 4 k and a window

# Rows of the table of a workspace's addresses.
STATE = U(0)  # see lists.py
ENDS = U(1)  # [B] last document
TOPS = U(2)  # [B] largest Q
SPOTS = U(3)  # [B] where the block lies | widths << 48
DOCS_OF = U(4)  # [q, block_size + slack] unpacked
TFS_OF = U(5)  # the same, tf - 1
TABLE = U(6)  # [q, 16 * 256] Q << 16 | payload by tf - 1 and norm
SUMS = U(7)  # [W + 128], zero between windows
MASKS = U(8)
HITS = U(9)  # [block_size + 1]
FOUND = U(10)  # [C] candidates in ascending order
VALUE = U(11)  # [C] their sums << 16 | payload
EXACT = U(12)  # [C]
BINNED = U(13)
KEYS = U(14)  # [2, C] ~score << 32 | document
ROWS = U(15)  # [S q, 6] what the dictionary said of each term that a segment has
WEIGHTS = U(16)  # [S q] boost * idf
COUNTS = U(17)  # [S] terms that a segment has
NUMBERS = U(18)  # [q] the lexicon's numbers of the terms
BOOSTS = U(19)  # [q]
BEST_DOCS = U(20)  # [C] the answer
BEST_SCORES = U(21)


class Workspace:
    """Arrays that are grown as queries need it.

    Attributes:
        table: their addresses.
        rows: uint64 [S, MOST_TERMS, 6], what the dictionaries said of the terms they have.
        weights: float32 [S, MOST_TERMS], boost * idf of the same.
        counts: int64 [S], how many these are.
        docs: int64, receives documents, best first.
        scores: float32, their scores.
    """

    def __init__(self, segments: int) -> None:
        self.rows = np.zeros((segments, MOST_TERMS, 6), np.uint64)
        self.weights = np.zeros((segments, MOST_TERMS), np.float32)
        self.counts = np.zeros(segments, np.int64)
        self._numbers = np.zeros(MOST_TERMS, np.uint32)
        self._boosts = np.zeros(MOST_TERMS, np.float32)
        self._size = (0, 0, 0, 0)
        self.grow(16, 1 << 12, 128, 10)

    def grow(self, terms: int, blocks: int, block_size: int, k: int) -> None:
        """Makes room for queries of so many terms and blocks, this size of block and this k."""
        have = self._size
        terms, blocks, k = max(have[0], terms), max(have[1], blocks), max(have[3], k)
        blocks = 1 << (blocks - 1).bit_length()
        self._size = (terms, blocks, block_size, k)
        room = 4 * k + _ROOM + WINDOW + 64
        self.docs = np.empty(room, np.int64)
        self.scores = np.empty(room, np.float32)
        self._arrays: list[Array] = [
            np.zeros((10, terms + 1), np.uint64),
            np.empty(blocks, np.uint32),
            np.empty(blocks, np.uint32),
            np.empty(blocks, np.uint64),
            np.empty((terms, block_size + BLOCK_SLACK), np.uint32),
            np.empty((terms, block_size + BLOCK_SLACK), np.uint32),
            np.empty((terms, 16 * 256), np.uint32),
            np.zeros(WINDOW + 128, np.uint32),
            np.empty((2, WINDOW // 64 + 1), np.uint64),
            np.empty(block_size + 1, np.uint32),
            np.empty(room, np.uint32),
            np.empty(room, np.uint32),
            np.empty(room, np.float64),
            np.empty(BINS, np.int64),
            np.empty((2, room), np.uint64),
            self.rows.reshape(-1, 6),
            self.weights.reshape(-1),
            self.counts,
            self._numbers,
            self._boosts,
            self.docs,
            self.scores,
        ]
        self.table = addresses(self._arrays)

    def enter(self, rows: Sequence[Array], weights: Array) -> None:
        """Enters what each segment says of a query's terms, and their weights."""
        for number, found in enumerate(rows):
            here = found[:, 0] > 0
            count = int(here.sum())
            self.counts[number] = count
            self.rows[number, :count] = found[here]
            self.weights[number, :count] = weights[here]


class PerThread(threading.local):
    """What each thread that searches has of its own.

    Attributes:
        workspace: for the kernels.
        lexicon_table: addresses of the terms' bytes and of where each begins.
    """

    def __init__(self, segments: int) -> None:
        self.workspace = Workspace(segments)
        self.lexicon_table: Array
        self._lexicon: Lexicon | None = None
        self._version = -1

    def numbers(self, analyzer: Analyzer, text: str) -> Array:
        """Returns a text's terms as the lexicon numbers them (uint32, valid until the next)."""
        lexicon = self._lexicon
        if lexicon is None or len(lexicon.terms) > _REMEMBERED:
            lexicon = self._lexicon = analyzer.lexicon()
            self._version = -1
        numbers = lexicon.numbers(text)
        if self._version != lexicon.terms.version:
            self._version = lexicon.terms.version
            self.lexicon_table = addresses([lexicon.terms.heap, lexicon.terms.starts])
        return numbers
