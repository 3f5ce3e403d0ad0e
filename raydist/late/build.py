"""Builds a multi-vector index: documents in, coded vectors and lists out.

Three sharded maps follow each other: documents become token vectors (`.work/tokens`), a sample of
these becomes the centroids, and each shard of vectors is coded by them. Then the shards become one
segment. No step holds more than a shard, so memory does not grow with the corpus, and each step is
continued after a crash. What is appended is coded by the centroids of the index.

Shapes: n documents, t vectors, D dimensions, K centroids.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from raydist.dense.segments import segment_facts
from raydist.disk import atomic, remove
from raydist.generations import WORK
from raydist.late.assembly import assemble, write_lists
from raydist.late.format import CODEC, CODES, FIRST, RESIDUALS, Codec
from raydist.late.token_shards import map_vectors, read_documents
from raydist.late.training import train
from raydist.shard_files import Split, Stats, Work, shard_path
from raydist.shards import sharded_map

_BLOCK = 1 << 14
"""Vectors that are coded together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """Who works.

    Attributes:
        workers: Ray actors; 0 works in this process.
        cpus_per_worker: CPUs of an actor.
        gpus_per_worker: GPUs of an actor that embeds.
    """

    workers: int = 0
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0


def build_index(
    splits: Sequence[Split],
    make_embedder: Callable[[], Work],
    folder: Path,
    *,
    dimension: int,
    bits: int,
    unit: bool,
    centroids: int = 0,
    workers: Workers = Workers(),
) -> dict[str, Any]:
    """Writes an index's codec and segment; returns the facts for its manifest.

    Args:
        splits: descriptors of the corpus, fixed by the data.
        make_embedder: returns work that writes a split as a token shard (`TokenWriter`).
        folder: an interrupted build of the same splits is continued.
        dimension: D.
        bits: of a component's residual.
        unit: whether vectors have unit length.
        centroids: how many; 0 chooses by the number of vectors.
        workers: who works.
    """
    stats = _embed(splits, make_embedder, folder, workers)
    lengths = [int(each["vectors"]) for each in stats]
    if not (folder / CODEC).exists():
        codec = train(
            folder / WORK / "tokens",
            lengths,
            dimension,
            bits=bits,
            unit=unit,
            count=centroids,
            workers=workers.workers,
            cpus_per_worker=workers.cpus_per_worker,
        )
        codec.write(folder)
    codec = Codec.open(folder)
    (folder / FIRST).parent.mkdir(exist_ok=True)
    with atomic(folder / FIRST) as partial:
        partial.mkdir()
        about = _code(folder / WORK, lengths, folder, partial, workers)
    return {
        "dimension": dimension,
        "bits": codec.levels.bits,
        "centroids": len(codec.centroids.vectors_KD),
        **segment_facts({FIRST: about}),
        "documents": about["documents"],
        **_sums(stats),
    }


def build_addition(
    splits: Sequence[Split],
    make_embedder: Callable[[], Work],
    index: Path,
    side: Path,
    workers: Workers = Workers(),
) -> dict[str, Any]:
    """Writes a segment beside an index, to be appended to it; returns its facts.

    Args:
        splits: descriptors of what is added.
        make_embedder: as for `build_index`.
        index: whose centroids the vectors are coded by.
        side: the segment's folder; an interrupted build of the same splits is continued.
        workers: who works.
    """
    stats = _embed(splits, make_embedder, side, workers)
    lengths = [int(each["vectors"]) for each in stats]
    segment = side / WORK / "segment"
    remove(segment)
    segment.mkdir()
    about = _code(side / WORK, lengths, index, segment, workers)
    for path in segment.iterdir():
        os.replace(path, side / path.name)
    return {**{name: about[name] for name in ("documents", "vectors")}, **_sums(stats)}


def _embed(
    splits: Sequence[Split], make_embedder: Callable[[], Work], folder: Path, workers: Workers
) -> list[Stats]:
    return sharded_map(
        splits,
        make_embedder,
        folder / WORK / "tokens",
        workers=workers.workers,
        cpus_per_worker=workers.cpus_per_worker,
        gpus_per_worker=workers.gpus_per_worker,
        label="embed",
        unit="document",
    )


def _sums(stats: Sequence[Stats]) -> dict[str, Any]:
    whole = {name: sum(int(each[name]) for each in stats) for name in ("tokens", "padded")}
    return {**whole, "seconds": sum(float(each["seconds"]) for each in stats)}


def _code(
    work: Path, lengths: Sequence[int], index: Path, segment: Path, workers: Workers
) -> dict[str, Any]:
    """Codes the token shards in `work`, and makes a segment of them; returns its description."""
    tokens, coded = work / "tokens", work / "coded"
    sharded_map(
        [{"shard": i, "size": length} for i, length in enumerate(lengths)],
        partial(_coder, tokens, index),
        coded,
        label="code vectors",
        unit="vector",
        workers=workers.workers,
        cpus_per_worker=workers.cpus_per_worker,
    )
    numbers = range(len(lengths))
    documents, vectors = ([shard_path(each, i) for i in numbers] for each in (tokens, coded))
    return assemble(segment, documents, vectors)


def _coder(tokens: Path, index: Path) -> Work:
    codec = Codec.open(index)

    def work(split: Split, target: Path) -> Stats:
        """Writes the codes, residuals and lists of a shard's vectors."""
        shard = shard_path(tokens, int(split["shard"]))
        vectors = map_vectors(shard, codec.dimension)
        lengths_n = read_documents(shard)["vectors"].to_numpy()
        document_t = np.repeat(np.arange(len(lengths_n), dtype=np.int64), lengths_n)
        target.mkdir()
        pairs = []
        with open(target / CODES, "wb") as codes, open(target / RESIDUALS, "wb") as residuals:
            for start in range(0, len(vectors), _BLOCK):
                block = vectors[start : start + _BLOCK].astype(np.float32)
                nearest = codec.centroids.nearest(block)
                codes.write(nearest.astype(codec.code).data)
                rest = block - codec.centroids.vectors_KD[nearest]
                residuals.write(codec.levels.encode(rest).data)
                pairs.append(nearest << 32 | document_t[start : start + len(block)])
        write_lists(target, pairs, len(codec.centroids.vectors_KD))
        return {"vectors": len(vectors)}

    return work
