"""Which documents have some ranks in the order of all ids, where no place has all of them.

Each shard sorts its own ids. For every rank its place is narrowed in all shards at once: the middle
one of the longest stretch that is left is compared with all others. So a few dozen rounds find any
number of ranks, whatever the number of documents.

Legend: R ranks, S shards.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.index import BowIndex
from raydist.bow.lookup import by_id
from raydist.protocols import Group

Array = npt.NDArray[Any]


class SortedIds(Sequence[bytes]):
    """The ids of an index's documents with tokens, in ascending order of their bytes.

    Attributes:
        positions: of the documents, int64.
    """

    def __init__(self, index: BowIndex) -> None:
        self.positions = by_id(index)
        self._ids = index.pick_ids(self.positions).cast(pa.large_binary())

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, rank: Any) -> Any:
        return self._ids[rank].as_py()

    def below(self, ids: Sequence[bytes]) -> list[int]:
        """Returns how many ids are below each of some."""
        return [bisect_left(self, each) for each in ids]


def at_ranks(shards: Group, sizes: Sequence[int], ranks: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the shard and the rank there of the documents at ranks in the order of all ids.

    Args:
        shards: answer `ids_at_ranks` and `ids_below`.
        sizes: how many documents with tokens each has.
        ranks: below the sum of the sizes.
    """
    low_RS = np.zeros((len(ranks), len(sizes)), np.int64)
    high_RS = np.tile(np.array(sizes, np.int64), (len(ranks), 1))
    places: list[tuple[int, int]] = [(-1, -1)] * len(ranks)
    waiting = np.arange(len(ranks))
    while len(waiting):
        widths = high_RS[waiting] - low_RS[waiting]
        owner = widths.argmax(axis=1)
        middle = (low_RS[waiting, owner] + high_RS[waiting, owner]) // 2
        pivots: list[bytes] = [b""] * len(waiting)
        own = [np.flatnonzero(owner == number) for number in range(len(sizes))]
        asked = [(middle[each].tolist(),) if len(each) else None for each in own]
        for each, ids in zip(own, shards.ask("ids_at_ranks", asked)):
            for at, name in zip(each.tolist(), ids or ()):
                pivots[at] = name
        below = np.array(shards.ask("ids_below", [(pivots,)] * len(sizes)), np.int64).T
        total, wanted = below.sum(axis=1), np.array(ranks, np.int64)[waiting]
        for at in np.flatnonzero(total == wanted).tolist():
            places[waiting[at]] = int(owner[at]), int(middle[at])
        more, less = total < wanted, total > wanted
        low_RS[waiting[more]] = np.maximum(low_RS[waiting[more]], below[more])
        low_RS[waiting[more], owner[more]] = middle[more] + 1
        high_RS[waiting[less]] = np.minimum(high_RS[waiting[less]], below[less])
        waiting = waiting[total != wanted]
    return places
