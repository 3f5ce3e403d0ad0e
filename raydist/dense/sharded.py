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
from typing import Any, NamedTuple

import numpy as np
import torch

from raydist import storage
from raydist.dense.exact import BLOCK, exact_search, merge_top
from raydist.dense.segments import FIRST, KIND, SHARDS
from raydist.dense.vectors import Stretch, VectorShards
from raydist.manifest import opening_generation
from raydist.protocols import Group
from raydist.shard_files import shard_path

Best = tuple[np.ndarray, np.ndarray]
"""Scores [Q, k] and rows [Q, k]."""


class RowPart(NamedTuple):
    """Some rows of a folder of vectors, and the files that have them.

    Attributes:
        folder: of the vectors, or its URI.
        manifest: the folder's.
        files: that have the rows.
        rows: the first of them and the one behind the last, counted from the files' first row.
    """

    folder: str
    manifest: Mapping[str, Any]
    files: tuple[Stretch, ...]
    rows: tuple[int, int]

    @property
    def patterns(self) -> list[str]:
        """Patterns of the files that it needs, relative to the folder."""
        deletions = self.manifest.get("deletions", {})
        places = [Path(deletions[each.segment]) for each in self.files if each.segment in deletions]
        for segment, numbers, _ in self.files:
            shards = Path(SHARDS) if segment == FIRST else Path(segment, SHARDS)
            places += [shard_path(shards, number) for number in numbers]
        return [f"{place.as_posix()}/*" for place in places]


class RowShard:
    """Some rows of a folder of vectors."""

    def __init__(self, part: RowPart, block: int) -> None:
        """Maps the files of the part; of a remote folder only these are copied.

        Raises:
            ArtifactError: a file is missing or damaged, or the folder is of another generation now.
            JobError: the folder is not here.
        """
        folder = storage.seen(storage.local(part.folder, part.patterns))
        with opening_generation(part.folder, folder, part.manifest, [KIND]):
            self._shards = VectorShards.map(folder, part.manifest, part.files)
        self._rows = range(*part.rows)
        self._block = block

    @staticmethod
    def held(part: RowPart, *_: Any) -> int | None:
        """Returns how many bytes of a part's files are copied here, None where nothing is."""
        return storage.held(part.folder, part.patterns)

    def documents(self) -> int:
        """Returns how many rows it has."""
        return len(self._rows)

    def search(self, queries_QD: np.ndarray, k: int, allowed: np.ndarray | None) -> Best:
        """Returns the scores and numbers of the best of these rows, from 0.

        `allowed` has a flag for each row.
        """
        scores, rows = exact_search(
            self._shards, queries_QD, k, block=self._block, allowed_N=allowed, rows=self._rows
        )
        return scores, rows - self._rows.start


class ShardedScan:
    """Exact search of all rows, by shards that have consecutive ones."""

    def __init__(
        self,
        folder: str,
        shards: VectorShards,
        count: int,
        launch: Callable[[Sequence[Callable[[], Any]]], Group],
        block: int = BLOCK,
    ) -> None:
        """Starts so many shards of a folder of vectors, each with about as many blocks.

        Args:
            folder: of the vectors, or its URI.
            shards: all of them.
            count: how many shards.
            launch: makes them somewhere.
            block: rows multiplied at a time.
        """
        blocks = -(-len(shards) // block)
        places = [min(len(shards), block * (number * blocks // count)) for number in range(count)]
        self._rows = list(pairwise([*places, len(shards)]))
        makers = []
        for start, stop in self._rows:
            files, base = shards.stretches(range(start, stop))
            rows = start - base, stop - base
            part = RowPart(folder, shards.manifest, tuple(files), rows)
            makers.append(partial(RowShard, part, block))
        self._group = launch(makers)

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
        answers = [
            (torch.from_numpy(reply[0]), torch.from_numpy(reply[1] + first))
            for reply, (first, _) in zip(replies, self._rows)
            if reply is not None
        ]
        scores, rows = answers[0]
        for more, others in answers[1:]:
            scores, rows = merge_top(scores, rows, more, others, k)
        return scores.numpy(), rows.numpy()
