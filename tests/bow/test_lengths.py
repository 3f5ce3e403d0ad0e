"""Lengths of documents as the bits that their norms lack."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.bow.format.lengths import pack_lengths, unpack_lengths
from raydist.bow.formulas import NORM_LENGTHS, norm_bytes

EDGES = sorted({int(n) + d for n in NORM_LENGTHS for d in (-1, 0, 1)} - {-1} | {(1 << 32) - 1})
lengths = st.one_of(st.integers(0, 200), st.sampled_from(EDGES), st.integers(0, (1 << 32) - 1))


@given(st.lists(lengths, max_size=300))
def test_lengths_are_read_as_they_are_written(values: list[int]) -> None:
    lengths_N = np.array(values, np.uint32)
    norms_N = norm_bytes(lengths_N)
    assert unpack_lengths(pack_lengths(lengths_N, norms_N), norms_N).tolist() == values


def test_every_edge_of_a_norm() -> None:
    lengths_N = np.array(EDGES, np.uint32)
    norms_N = norm_bytes(lengths_N)
    assert unpack_lengths(pack_lengths(lengths_N, norms_N), norms_N).tolist() == EDGES


def test_a_length_has_the_bits_that_its_norm_lacks() -> None:
    # Norms stand for one length each up to 40, for 2 up to 56, and for 4 up to 88.
    for length, bits in [(0, 0), (39, 0), (40, 1), (55, 1), (56, 2), (87, 2), (88, 3)]:
        lengths_N = np.full(800, length, np.uint32)
        assert len(pack_lengths(lengths_N, norm_bytes(lengths_N))) == 100 * bits + 8


def test_lengths_of_other_norms_are_refused() -> None:
    lengths_N = np.array([100, 200, 300], np.uint32)
    data = pack_lengths(lengths_N, norm_bytes(lengths_N))
    with pytest.raises(ValueError, match="bytes of lengths, the norms have"):
        unpack_lengths(data, norm_bytes(lengths_N[:1]))
