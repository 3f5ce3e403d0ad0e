"""Before the first window of a search: a term's quantised impacts, its blocks and their maxima."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.search.lists import FIRST, TFS, quantised, value_of
from raydist.kernels.intrinsics import load64
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64
U32 = np.uint32
F32 = np.float32
LOW = U(0xFFFFFFFF)


@kernel
def fill(table: Array, j: Any, scaled: Any, inverse: Array, norms: Any, bits: Any) -> None:
    """Fills a term's impacts by tf and norm, with what its payload says of the tf."""
    for row in range(TFS):
        payload = U32(0)
        if bits > U(1):
            payload = U32(min(row + U(1), (U(1) << bits) - U(1)) << (j * bits))
        tf = F32(row + U(1))
        for norm in range(norms):
            q = quantised(scaled, tf, inverse[norm])
            table[j, (row << U(8)) + norm] = (q << U32(16)) | payload


@kernel
def skips(
    packed: Array,
    raw: Array,
    state: Array,
    ends: Array,
    tops: Array,
    spots: Array,
    table: Array,
    scaled: Array,
    inverse: Array,
    bins: Array,
    j: Any,
    at: Any,
    begin: Any,
    step: Any,
) -> None:
    """Reads a term's skips at `at`: its blocks, from `begin` on, and their largest impacts."""
    for b in range(state[FIRST, j], state[FIRST, j + U(1)]):
        entry = load64(packed, at)
        pairs = U(packed[at + U(8)])
        at += U(9)
        top: Any = U32(0)
        for _ in range(pairs):
            row = U(packed[at]) - U(1)
            norm = U(packed[at + U(1)])
            q = value_of(table, scaled, inverse, j, row, norm) >> U32(16)
            bins[q >> U32(7)] += 1
            if row == U(254):  # or more
                q = value_of(table, scaled, inverse, j, LOW, norm) >> U32(16)
            top = max(top, q)
            at += U(2)
        ends[b] = U32(entry & LOW)
        tops[b] = top
        spots[b] = begin | ((entry >> U(48)) << U(48))
        begin += step + ((entry >> U(32)) & U(65535))


@kernel
def reached(bins: Array, k: Any) -> Any:
    """Returns an impact that k of the binned ones reach, 0 if there are fewer."""
    seen = 0
    at: Any = bins.shape[0]
    while at > 0:
        at -= 1
        seen += bins[at]
        if seen >= k:
            return U(at) << U(7)
    return U(0)
