"""Candidates of a search for weighted terms: the best scores, and the documents that reach them."""

from __future__ import annotations

from typing import Any

import numpy as np

from raydist.bow.weighted.lists import CROWDED, RANKED
from raydist.bow.weighted.workspace import WeightedWork
from raydist.kernels.addresses import Array
from raydist.kernels.jit import inlined, kernel

U = np.uint64
U32 = np.uint32


@inlined
def offer(work: WeightedWork, count: Any, k: Any, doc: Any, score: Any) -> Any:
    """Takes a document if it is among the best so far; returns an outcome and their number."""
    found, scores, heap = work.found, work.scores, work.heap
    size = work.state[0]
    outcome = RANKED
    if size < k or score >= heap[0]:
        if count == U(found.shape[0]):
            count = kept(work, count, k)
            if U(2) * count > U(found.shape[0]):
                outcome = CROWDED
        if outcome == RANKED:
            found[count] = U32(doc)
            scores[count] = score
            count += U(1)
            if size < k:
                work.state[0] = size + U(1)
                _rise(heap, size, score)
            elif score > heap[0]:
                _sink(heap, k, score)
    return outcome, count


@inlined
def _rise(heap: Array, at: Any, score: Any) -> None:
    """Puts a score at the end of a heap of `at` scores."""
    at = U(at)
    while at and heap[(at - U(1)) >> U(1)] > score:
        heap[at] = heap[(at - U(1)) >> U(1)]
        at = (at - U(1)) >> U(1)
    heap[at] = score


@inlined
def _sink(heap: Array, size: Any, score: Any) -> None:
    """Puts a score in place of the smallest one."""
    at = U(0)
    while True:
        child = U(2) * at + U(1)
        if child >= size:
            break
        if child + U(1) < size and heap[child + U(1)] < heap[child]:
            child += U(1)
        if heap[child] >= score:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = score


@kernel
def kept(work: WeightedWork, count: Any, k: Any) -> Any:
    """Drops the candidates below the k-th score; returns how many are left."""
    found, scores = work.found, work.scores
    if work.state[0] < k:
        return count
    least = work.heap[0]
    to = U(0)
    for i in range(count):
        found[to] = found[i]
        scores[to] = scores[i]
        to += U(scores[i] >= least)
    return to
