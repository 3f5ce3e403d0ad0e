"""The kernels of a multi-vector search, to be compiled while its model loads."""

from __future__ import annotations

_NUMBERS, _STARTS = "Array(int64, 1, 'C', False)", "Array(int64, 1, 'C', True)"
_FLOATS, _MATRIX = "Array(float32, 1, 'C', False)", "Array(float32, 2, 'C', False)"
_CODES = "Array(uint16, 1, 'C', True)"  # of 65,536 centroids at most
_BYTES = "Array(uint8, 2, 'C', True)"

MULTIVECTOR_SEARCH = {
    "raydist.late.kernels:max_sim": f"({_NUMBERS}, {_STARTS}, {_CODES}, {_BYTES}, {_MATRIX}, "
    f"{_MATRIX}, boolean, {_MATRIX}, {_FLOATS})",
    "raydist.late.kernels:approximate": f"({_NUMBERS}, {_STARTS}, {_CODES}, {_MATRIX}, {_FLOATS})",
    "raydist.late.kernels:listed": f"({_NUMBERS}, {_STARTS}, Array(uint32, 1, 'C', True), "
    f"Array(uint8, 1, 'C', False), {_NUMBERS})",
}
"""What a search needs."""
