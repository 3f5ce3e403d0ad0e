"""Sets of numbers as bits, against Python's sets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raydist.kernels.bits import Bits

FLAGS = st.lists(st.booleans(), min_size=1, max_size=300)


@given(FLAGS)
def test_bits_are_a_set(flags: list[bool]) -> None:
    bits, members = Bits.of(np.array(flags)), [n for n, flag in enumerate(flags) if flag]
    everything = np.arange(len(flags))
    assert bits.flags.tolist() == bits.has(everything).tolist() == flags
    assert bits.count == len(members)
    assert bits.rank(everything).tolist() == [sum(flags[:n]) for n in everything]
    assert bits.select(np.arange(len(members))).tolist() == members
    assert Bits.full(len(flags)).count == len(flags)


@given(FLAGS, st.data())
def test_numbers_are_taken_out(flags: list[bool], data: st.DataObject) -> None:
    out = data.draw(st.sets(st.sampled_from(range(len(flags)))))
    rest = Bits.of(np.array(flags)).without(np.array(sorted(out), np.int64))
    assert rest.flags.tolist() == [flag and n not in out for n, flag in enumerate(flags)]
