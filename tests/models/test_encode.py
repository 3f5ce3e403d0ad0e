from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raydist.models.encode import length_batches, padding_waste


@given(
    lengths=st.lists(st.integers(1, 50), max_size=60),
    budget=st.integers(1, 200),
    rows=st.integers(1, 9),
)
def test_batches_hold_each_row_once_within_the_budget_and_waste_little(lengths, budget, rows):
    lengths = np.asarray(lengths, np.int64)
    batches = list(length_batches(lengths, budget, rows))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= budget
        assert len(batch) <= rows
        assert (np.diff(lengths[batch]) <= 0).all()
    padded = sum(int(lengths[b].max()) * len(b) for b in batches)
    naive = int(lengths.max(initial=0)) * len(lengths)
    assert padded <= naive


def test_padding_waste_is_the_share_of_empty_places():
    assert padding_waste(75, 100) == 0.25
    assert padding_waste(0, 0) == 0.0
