"""Postings of weighted terms during a search, and what a search may need before it goes on."""

from __future__ import annotations

from typing import Any

import numpy as np

from raydist.bow.format.files import CHUNK
from raydist.bow.format.postings import BLOCK_SLACK, decode
from raydist.bow.weighted.workspace import WeightedSegment, WeightedWork
from raydist.kernels.addresses import Array
from raydist.kernels.jit import inlined, kernel

U = np.uint64

# Outcomes. MANY: bounds rule out too little; the last three name a file to be checked.
RANKED, CRAMPED, CROWDED, MANY, POSTINGS, TOPS, WEIGHTS = 0, 1, 2, 3, 4, 5, 6


@inlined
def is_unchecked(flags: Array, start: Any, stop: Any) -> Any:
    """Returns whether some bytes of a file are in chunks that were not checked yet."""
    for chunk in range(U(start) // U(CHUNK), (U(stop) + U(CHUNK - 1)) // U(CHUNK)):
        if flags[chunk]:
            return True
    return False


@kernel
def load(segment: WeightedSegment, work: WeightedWork, j: Any) -> Any:
    """Decodes the postings of a term; returns an outcome with its values."""
    rows, docs, tfs = work.rows, work.docs, work.tfs
    count = rows[j, 2]
    if count + U(BLOCK_SLACK) > U(docs.shape[0]):
        return CRAMPED, np.int64(count), np.int64(0)
    if segment.raw_docs.shape[0]:
        start = rows[j, 4]
        for p in range(count):
            docs[p] = segment.raw_docs[start + p]
            tfs[p] = segment.raw_tfs[start + p]
        return RANKED, np.int64(0), np.int64(0)
    begin, end = rows[j, 5], rows[j, 5] + rows[j, 3]
    if is_unchecked(segment.unchecked_postings, begin, end):
        return POSTINGS, np.int64(begin), np.int64(end)
    df, size = rows[j, 2:3], rows[j, 3:4]
    decode(segment.packed, begin, df, size, segment.facts[3], segment.facts[4], docs, tfs)
    return RANKED, np.int64(0), np.int64(0)
