"""The largest kernels of the verbs, to be compiled while the others are; see kernels/ahead.py."""

from __future__ import annotations

from raydist.kernels.ahead import compile_ahead
from raydist.log import say

_BYTES, _WORDS = "Array(uint8, 1, 'C', True)", "Array(uint32, 1, 'C', True)"
_OFFSETS = "Array(int64, 1, 'C', True)"

MERGE = {
    "raydist.bow.format.postings:encode": "(uint64[:, ::1], int64, int64, int64, boolean)",
    "raydist.bow.format.dictionary:put": f"({_OFFSETS}, {_BYTES}, Array(uint64, 2, 'C', True), "
    f"int64, {_BYTES}, uint64[::1], int64, uint64[:, ::1], uint8[::1])",
    "raydist.bow.build.merge:_place": f"({_OFFSETS}, {_OFFSETS}, {_WORDS}, {_WORDS}, int64, "
    f"{_OFFSETS}, uint32[::1], uint32[::1])",
}
"""What a merge of spills needs."""

INDEX = {
    **MERGE,
    "raydist.bow.build.splits:_gather": "(int64[::1], uint64[::1], uint64[::1], uint64[::1], "
    "uint32[::1], uint32[::1])",
    "raydist.text.porter:stem_words": "(uint8[::1], uint64[::1], uint8[:, ::1], int64[::1], "
    "uint8[::1], uint64[::1])",
}
"""What a build needs, the last first."""

RANKING = "raydist.bow.search.query:rank_queries"
SCANNING = "raydist.bow.search.scan:scan"
SEARCH = {
    SCANNING: f"({', '.join(['uint64'] * 7)})",
    RANKING: "(uint64[:, ::1], uint64[:, ::1], uint64[:, ::1], "
    "uint32[::1], int64[::1], int64, boolean, int64, int64, boolean, int64[::1], float32[::1], "
    "int64[::1])",
}
"""What a search needs."""

RANKING_WEIGHTED = "raydist.bow.weighted.rank:rank_weighted"
SUMMING_WEIGHTED = "raydist.bow.weighted.sums:sum_weighted"
_ASKED = "uint64[:, ::1], int64, uint64[:, ::1], int64, int64"
WEIGHTED = {
    RANKING_WEIGHTED: f"({_ASKED}, float64)",
    SUMMING_WEIGHTED: f"({_ASKED})",
}
"""What a search for weighted terms needs."""


def prepare(kernels: dict[str, str]) -> None:
    """Begins to compile what the cache does not have, by two processes for a search; says so."""
    scanning = {name: kernels[name] for name in kernels if name == SCANNING}
    others = {name: kernels[name] for name in kernels if name != SCANNING}
    if compile_ahead(scanning) | compile_ahead(others):
        say("compiling machine code, once on this machine; it takes some seconds")
