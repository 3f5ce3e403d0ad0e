"""Exact search of vectors whose rows are shared by several processes.

Each multiplies the same blocks as one process would, and has whole blocks, so that scores are the
same to the bit.

Shapes: Q queries, D dimensions, N rows in all, k results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raydist import storage
from raydist.dense.exact import BLOCK, exact_search, merge_top
from raydist.dense.vectors import VectorShards
from raydist.protocols import Group

Best = tuple[np.ndarray, np.ndarray]
"""Scores [Q, k] and rows [Q, k]."""


class RowShard:
    """Some rows of a folder of vectors."""

    def __init__(
        self, folder: Path, manifest: Mapping[str, Any], rows: tuple[int, int], block: int
    ) -> None:
        """Maps the folder; only vectors of the rows are read."""
        self._shards = VectorShards.map(storage.seen(folder), manifest)
        self._rows = range(*rows)
        self._block = block

    def documents(self) -> int:
        """Returns how many rows it has."""
        return len(self._rows)

    def search(self, queries_QD: np.ndarray, k: int, allowed: np.ndarray | None) -> Best:
        """Returns the scores and row numbers of the best rows; `allowed` has a flag for each."""
        return exact_search(
            self._shards, queries_QD, k, block=self._block, allowed_N=allowed, rows=self._rows
        )


class ShardedScan:
    """Exact search of all rows, by shards that have consecutive ones."""

    def __init__(
        self,
        folder: Path,
        shards: VectorShards,
        count: int,
        launch: Callable[[Sequence[Callable[[], Any]]], Group],
        block: int = BLOCK,
    ) -> None:
        """Starts so many shards of a folder of vectors, each with about as many blocks."""
        blocks = -(-len(shards) // block)
        places = [min(len(shards), block * (number * blocks // count)) for number in range(count)]
        self._rows = list(pairwise([*places, len(shards)]))
        self._group = launch(
            [partial(RowShard, folder, shards.manifest, rows, block) for rows in self._rows]
        )

    def __call__(self, queries_QD: np.ndarray, k: int, allowed_N: np.ndarray | None = None) -> Best:
        """Returns what `exact_search` does.

        A group that does without lost shards answers None for them.
        """
        replies = self._group.ask(
            "search",
            [
                (queries_QD, k, None if allowed_N is None else allowed_N[first:last])
                for first, last in self._rows
            ],
        )
        answers = [each for each in replies if each is not None]
        scores, rows = map(torch.from_numpy, answers[0])
        for more, others in answers[1:]:
            scores, rows = merge_top(
                scores, rows, torch.from_numpy(more), torch.from_numpy(others), k
            )
        return scores.numpy(), rows.numpy()
