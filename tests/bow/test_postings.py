"""Postings as bytes: whatever is written is read, and large frequencies cost what they must."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.bow.format.postings import (
    BLOCK_SLACK,
    LAYOUT,
    MOST_EXTRAS,
    Encoding,
    decode,
    encode,
    extra_of,
)
from raydist.kernels.addresses import addresses
from raydist.kernels.arrays import readonly

Array = npt.NDArray[Any]
LARGEST = (1 << 32) - 1


def encoded(lists: Sequence[tuple[list[int], list[int]]], block_size: int) -> tuple[Array, Array]:
    """The bytes of lists of documents and frequencies, and how many each has."""
    df_T = [len(docs) for docs, _ in lists]
    indptr_T1 = readonly(np.append(0, np.cumsum(df_T)), np.int64)
    docs_P = readonly(np.concatenate([docs for docs, _ in lists]), np.uint32)
    tfs_P = readonly(np.concatenate([tfs for _, tfs in lists]), np.uint32)
    norms_N = readonly(np.zeros(int(docs_P.max()) + 1 if max(df_T) > block_size else 1, np.uint8))
    least = np.full(256, 256, np.uint16)
    out = np.full(10 * len(docs_P) + 32 * len(lists) + 16, 0xAA, np.uint8)
    sizes_T = np.zeros(len(lists), np.int64)
    table = addresses(Encoding(indptr_T1, docs_P, tfs_P, norms_N, least, out, sizes_T))
    valid, used = encode(table, 0, len(lists), block_size, True)
    assert valid and used == sizes_T.sum()
    return readonly(np.append(out[:used], np.zeros(16, np.uint8))), sizes_T


def decoded(data: Array, sizes_T: Array, df_T: Sequence[int], block_size: int) -> list[list[int]]:
    """The documents and the frequencies of all lists."""
    total = sum(df_T)
    docs, tfs = np.empty((2, total + BLOCK_SLACK), np.uint32)
    df, sizes = readonly(np.array(df_T), np.uint64), readonly(sizes_T, np.uint64)
    decode(data, 0, df, sizes, block_size, LAYOUT, docs, tfs)
    return [docs[:total].tolist(), tfs[:total].tolist()]


def size_of(tfs: list[int], block_size: int = 128) -> int:
    """The bytes of a list of consecutive documents from 0 on, whose deltas need none."""
    _, sizes_T = encoded([(list(range(len(tfs))), tfs)], block_size)
    return int(sizes_T[0])


@st.composite
def postings(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """A list of documents close to each other or far, with a few larger frequencies or many."""
    count = draw(st.one_of(st.integers(1, 12), st.integers(1, 600)))
    gap = draw(st.sampled_from([1, 2, 9, 300, 1 << 14]))
    seed = draw(st.integers(0, 1 << 32))
    random = np.random.default_rng(seed)
    docs = np.cumsum(random.integers(1, gap + 1, count)) - draw(st.integers(0, 1))
    common = draw(st.sampled_from([1, 2, 3, 17]))
    tfs = random.integers(1, common + 1, count)
    larger = draw(st.sampled_from([0.0, 0.01, 0.05, 0.3, 1.0]))
    most = draw(st.sampled_from([2, 3, 9, 100, LARGEST]))
    tfs = np.where(random.random(count) < larger, random.integers(1, most + 1, count), tfs)
    return docs.tolist(), tfs.tolist()


@settings(max_examples=150, deadline=None)
@given(st.lists(postings(), min_size=1, max_size=6), st.sampled_from([8, 32, 128, 256, 512]))
def test_what_is_written_is_read(lists: list[tuple[list[int], list[int]]], block_size: int) -> None:
    data, sizes_T = encoded(lists, block_size)
    every = [np.concatenate([each[n] for each in lists]).tolist() for n in (0, 1)]
    assert decoded(data, sizes_T, [len(docs) for docs, _ in lists], block_size) == every


@pytest.mark.parametrize("doc", [0, 1, (1 << 30) - 1, (1 << 31) + 5, LARGEST - 1])
@pytest.mark.parametrize("tf", [1, 2, 3, 9, 300, LARGEST])
def test_one_posting_of_any_size(doc: int, tf: int) -> None:
    data, sizes_T = encoded([([doc], [tf]), ([0, doc + 1], [1, tf])], 128)
    assert decoded(data, sizes_T, [1, 2], 128) == [[doc, 0, doc + 1], [tf, 1, tf]]


def test_large_frequencies_cost_a_byte_each() -> None:
    head = 1
    assert size_of([1] * 128) == head
    assert size_of([1, 2, 1, 2, 2] + [1] * 123) == head + 3
    assert size_of([1] * 127 + [4]) == head + 3  # three times
    assert size_of([2] * 128) == head + 16  # all are larger: another width is shorter
    assert size_of([2] * 127 + [3]) == head + 16 + 1
    assert size_of([2] * 126 + [1, 5]) == 3 + 16 + 2  # no form of a byte stands for it
    assert size_of([2] * 8) == head + 1  # 8 bits are shorter than 8 extras
    assert size_of([1000] + [1] * 127) <= 3 + 7 * 16 + 8  # as many bits less as 8 extras stand for


def test_a_last_block_that_is_short_has_extras_of_its_own() -> None:
    plain = size_of([1] * 160)
    assert size_of([1] * 159 + [2]) == plain + 1
    assert size_of([2] + [1] * 159) == plain + 1
    assert size_of([1] * 128 + [2] * 32) == plain + 4


def test_positions_that_no_byte_holds_have_no_extras() -> None:
    assert size_of([1] * 256 + [2], 512) == 3 - 2 + (257 + 7) // 8
    assert size_of([1] * 255 + [2], 512) == 1 + 1


@given(st.lists(st.integers(0, 255), min_size=1, max_size=int(MOST_EXTRAS)), st.integers(0, 255))
def test_extras_of_a_posting_are_counted(extras: list[int], position: int) -> None:
    data = readonly(np.array([*extras, *[position] * 8], np.uint8))
    count = np.uint64(len(extras))
    for i in {position, *extras}:
        assert extra_of(data, np.uint64(0), count, np.uint64(i)) == extras.count(i)
