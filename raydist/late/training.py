"""Centroids and levels of residuals, trained on a sample of the token vectors.

The sample is every so manieth vector, so it depends on the documents alone. Its vectors are dealt
into cells by the shards of the embedding, then each cell is clustered by itself: both are sharded
maps, whose workers hold a shard or some cells.

Shapes: C cells, D dimensions, s vectors of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from raydist.late.centroids import Centroids, half_squares, k_means, shares
from raydist.late.format import Codec
from raydist.late.residuals import Levels
from raydist.late.token_shards import map_vectors
from raydist.shard_files import Split, Stats, Work, shard_path
from raydist.shards import sharded_map

_PER_CENTROID = 48
"""Sampled vectors for each centroid."""
_PER_CELL = 64
_GROUP = 1 << 17
"""Sampled vectors that a worker clusters at a time, if cells are small enough."""
_LEVEL_VECTORS = 1 << 13
"""Vectors whose components the levels are fitted to, about."""


def choose_count(vectors: int) -> int:
    """Returns how many centroids suit so many vectors: 16 times their root, as a power of 2."""
    return 1 << max(0, int(np.log2(max(1.0, 16 * vectors**0.5))))


def train(
    tokens: Path,
    lengths: Sequence[int],
    dimension: int,
    *,
    bits: int,
    unit: bool,
    count: int = 0,
    workers: int = 0,
    cpus_per_worker: float = 1.0,
) -> Codec:
    """Returns a codec for the vectors in a folder of token shards.

    Args:
        tokens: the folder; what is computed on the way is kept beside it for a restart.
        lengths: vectors of each shard.
        dimension: D.
        bits: of a component's residual.
        unit: whether decoded vectors get unit length.
        count: centroids, as `choose_count` says if 0.
        workers: Ray actors; 0 = in this process.
        cpus_per_worker: CPUs of an actor.
    """
    total = int(sum(lengths))
    count = min(count or choose_count(total), max(1, total))
    cells = 1 << (count.bit_length() - 1) // 2
    cells_CD = k_means(_sample(tokens, lengths, dimension, _PER_CELL * cells), cells)
    size = min(total, _PER_CENTROID * count)
    firsts = np.concatenate(([0], np.cumsum(lengths)))[:-1]
    splits = [
        {"shard": i, "first": int(first), "size": int(length)}
        for i, (first, length) in enumerate(zip(firsts, lengths))
    ]
    dealt = tokens.with_name("sample")
    stats = sharded_map(
        splits,
        partial(_dealer, tokens, cells_CD, total, size),
        dealt,
        label="sample vectors",
        unit="vector",
        workers=workers,
        cpus_per_worker=cpus_per_worker,
    )
    counts_C = np.array([each["counts"] for each in stats], np.int64).sum(axis=0)
    own_C = shares(counts_C, count)
    groups = _groups(counts_C)
    step = max(1, size // _LEVEL_VECTORS)
    clustered = tokens.with_name("centroids")
    sharded_map(
        [
            {"first": first, "stop": stop, "size": int(counts_C[first:stop].sum())}
            for first, stop in groups
        ],
        partial(_clusterer, dealt, len(splits), own_C, dimension, step),
        clustered,
        label="train centroids",
        unit="vector",
        workers=workers,
        cpus_per_worker=cpus_per_worker,
    )
    parts = [np.load(shard_path(clustered, i)) for i in range(len(groups))]
    vectors_KD = np.concatenate([part["centroids"] for part in parts])
    levels = Levels.fit(np.concatenate([part["residuals"] for part in parts]), bits)
    starts = np.concatenate(([0], np.cumsum(np.concatenate([part["counts"] for part in parts]))))
    return Codec(Centroids(vectors_KD, cells_CD, starts.astype(np.int64)), levels, unit)


def _chosen(first: int, length: int, total: int, size: int) -> np.ndarray:
    """Returns which rows of a shard are among `size` evenly spaced ones of all."""
    ends = (np.arange(first, first + length + 1, dtype=np.int64) * size) // max(1, total)
    return np.flatnonzero(np.diff(ends))


def _sample(tokens: Path, lengths: Sequence[int], dimension: int, size: int) -> np.ndarray:
    total, first = int(sum(lengths)), 0
    parts = [np.zeros((0, dimension), np.float32)]
    for number, length in enumerate(lengths):
        rows = _chosen(first, length, total, min(size, total))
        vectors = map_vectors(shard_path(tokens, number), dimension)
        parts.append(vectors[rows].astype(np.float32))
        first += length
    return np.concatenate(parts)


def _dealer(tokens: Path, cells_CD: np.ndarray, total: int, size: int) -> Work:
    halves_C = half_squares(cells_CD)

    def work(split: Split, target: Path) -> Stats:
        """Writes the sampled vectors of a shard, cell by cell."""
        rows = _chosen(int(split["first"]), int(split["size"]), total, size)
        vectors = map_vectors(shard_path(tokens, int(split["shard"])), cells_CD.shape[1])[rows]
        cell_s = np.argmax(vectors.astype(np.float32) @ cells_CD.T - halves_C, axis=1)
        counts = np.bincount(cell_s, minlength=len(cells_CD))
        with open(target, "wb") as file:
            np.save(file, vectors[np.argsort(cell_s, kind="stable")])
        return {"vectors": len(rows), "counts": counts.tolist()}

    return work


def _groups(counts_C: np.ndarray) -> list[tuple[int, int]]:
    """Returns ranges of cells that are clustered together by one worker."""
    groups, first, room = [], 0, 0
    for cell, count in enumerate(counts_C):
        if cell > first and room + count > _GROUP:
            groups.append((first, cell))
            first, room = cell, 0
        room += int(count)
    return [*groups, (first, len(counts_C))]


def _clusterer(dealt: Path, shards: int, own_C: np.ndarray, dimension: int, step: int) -> Work:
    from raydist.shard_files import read_done

    counts = [(read_done(dealt, number) or {})["counts"] for number in range(shards)]
    starts = np.concatenate((np.zeros((shards, 1), np.int64), np.cumsum(counts, axis=1)), axis=1)

    def work(split: Split, target: Path) -> Stats:
        """Writes the centroids of some cells, and residuals of some of their vectors."""
        centroids, residuals, seen = [], [], 0
        for cell in range(int(split["first"]), int(split["stop"])):
            parts = []
            for number in range(shards):
                mapped = np.load(shard_path(dealt, number), mmap_mode="r")
                parts.append(mapped[starts[number, cell] : starts[number, cell + 1]])
            vectors = np.concatenate(parts).astype(np.float32)
            means = k_means(vectors, int(own_C[cell])) if len(vectors) else vectors
            means = means.astype(np.float16).astype(np.float32)
            centroids.append(means)
            some = vectors[-seen % step :: step]
            seen += len(vectors)
            if len(some):
                nearest = np.argmax(some @ means.T - half_squares(means), axis=1)
                residuals.append((some - means[nearest]).ravel())
        with open(target, "wb") as file:  # by its name NumPy would add a suffix
            np.savez(
                file,
                centroids=np.concatenate(centroids).reshape(-1, dimension),
                counts=[len(each) for each in centroids],
                residuals=np.concatenate([np.zeros(0, np.float32), *residuals]),
            )
        return {"vectors": seen}

    return work
