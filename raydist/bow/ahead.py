"""The largest kernels of the verbs, to be compiled while the others are; see kernels/ahead.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raydist.bow.spec import BowSearchSpec
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

_TOKENIZER = {"raydist.text.tokenizer:tokenize": "(uint64[:, ::1], boolean)"}
_STEMMER = {
    "raydist.text.porter:stem_words": "(uint8[::1], uint64[::1], uint8[:, ::1], int64[::1], "
    "uint8[::1], uint64[::1])",
}

INDEX = {
    **MERGE,
    "raydist.bow.build.splits:_gather": "(int64[::1], uint64[::1], uint64[::1], uint64[::1], "
    "uint32[::1], uint32[::1])",
    **_STEMMER,
}
"""What a build needs, the last first."""

SEARCH = {
    "raydist.bow.search.scan:scan": f"({', '.join(['uint64'] * 7)})",
    "raydist.bow.search.query:rank_queries": "(uint64[:, ::1], uint64[:, ::1], uint64[:, ::1], "
    "uint32[::1], int64[::1], int64, boolean, int64, int64, boolean, int64[::1], float32[::1], "
    "int64[::1])",
    **_STEMMER,
    **_TOKENIZER,
}
"""What a search needs, the longest first; of the analysis what is needed last."""

_ASKED = "uint64[:, ::1], int64, uint64[:, ::1], int64, int64"
WEIGHTED = {
    "raydist.bow.weighted.rank:rank_weighted": f"({_ASKED}, float64)",
    "raydist.bow.weighted.sums:sum_weighted": f"({_ASKED})",
}
"""What a search for weighted terms needs."""


def kernels_of(manifest: Mapping[str, Any], search: BowSearchSpec) -> dict[str, str]:
    """Returns what a search of an output needs of the largest kernels, by its manifest."""
    if manifest["kind"] != "bow-index" or search.is_structured or search.sort is not None:
        return {}
    return WEIGHTED if manifest.get("unit") else SEARCH


def prepare(kernels: Mapping[str, str], processes: int = 1) -> None:
    """Begins to compile what the cache does not have, beside this process; says so."""
    if compile_ahead(kernels, processes):
        say("compiling machine code, once on this machine; it takes some seconds")
