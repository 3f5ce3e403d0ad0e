"""Builds a multi-vector index: documents in, coded vectors and lists out.

Three sharded maps follow each other: documents become token vectors (`.work/tokens`), a sample of
these becomes the centroids, and each shard of vectors is coded by them. Then the shards become one
segment. No step holds more than a shard, so memory does not grow with the corpus, and each step is
continued after a crash.

Shapes: n documents, t vectors, D dimensions, K centroids.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.disk import atomic
from raydist.late.format import (
    CODEC,
    CODES,
    LIST_STARTS,
    LISTS,
    RESIDUALS,
    SEGMENTS,
    STARTS,
    Codec,
    seal,
)
from raydist.late.token_shards import DOCUMENT, DOCUMENTS, map_vectors, read_documents
from raydist.late.training import train
from raydist.log import Progress
from raydist.shard_files import Split, Stats, Work, shard_path
from raydist.shards import sharded_map

WORK = ".work"
_BLOCK = 1 << 14
"""Vectors that are coded together."""
_ENTRIES = 1 << 22
"""Entries of lists that are merged together."""


def build_index(
    splits: Sequence[Split],
    make_embedder: Callable[[], Work],
    folder: Path,
    *,
    dimension: int,
    bits: int,
    unit: bool,
    centroids: int = 0,
    workers: int = 0,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
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
        workers: Ray actors; 0 works in this process.
        cpus_per_worker: CPUs of an actor.
        gpus_per_worker: GPUs of an actor that embeds.
    """
    work = folder / WORK
    tokens = work / "tokens"
    stats = sharded_map(
        splits,
        make_embedder,
        tokens,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        label="embed",
        unit="document",
    )
    lengths = [int(each["vectors"]) for each in stats]
    if not (folder / CODEC).exists():
        codec = train(
            tokens,
            lengths,
            dimension,
            bits=bits,
            unit=unit,
            count=centroids,
            workers=workers,
            cpus_per_worker=cpus_per_worker,
        )
        codec.write(folder)
    codec = Codec.open(folder)
    coded = work / "coded"
    sharded_map(
        [{"shard": i, "size": length} for i, length in enumerate(lengths)],
        partial(_coder, tokens, folder),
        coded,
        label="code vectors",
        unit="vector",
        workers=workers,
        cpus_per_worker=cpus_per_worker,
    )
    name = "00000"
    about = _assemble(folder / SEGMENTS / name, tokens, coded, len(lengths), codec)
    return {
        "dimension": dimension,
        "bits": codec.levels.bits,
        "centroids": len(codec.centroids.vectors_KD),
        "segments": [{"name": name, "deleted": None}],
        "documents": about["documents"],
        "vectors": about["vectors"],
        "tokens": sum(int(each["tokens"]) for each in stats),
        "padded": sum(int(each["padded"]) for each in stats),
        "seconds": sum(float(each["seconds"]) for each in stats),
    }


def _coder(tokens: Path, folder: Path) -> Work:
    codec = Codec.open(folder)

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
        # A document is in a centroid's list once.
        entries = np.unique(np.concatenate([np.zeros(0, np.int64), *pairs]))
        starts = np.searchsorted(entries >> 32, np.arange(len(codec.centroids.vectors_KD) + 1))
        (target / LIST_STARTS).write_bytes(starts.astype(np.int64).tobytes())
        (target / LISTS).write_bytes((entries & 0xFFFFFFFF).astype(np.uint32).tobytes())
        return {"vectors": len(vectors)}

    return work


def _assemble(
    segment: Path, tokens: Path, coded: Path, shards: int, codec: Codec
) -> dict[str, Any]:
    """Makes one segment of the shards; returns its description."""
    segment.parent.mkdir(exist_ok=True)
    with atomic(segment) as partial, Progress("write the index", shards, "shard") as progress:
        partial.mkdir()
        firsts, documents, vectors = [], 0, 0
        with (
            open(partial / CODES, "wb") as codes,
            open(partial / RESIDUALS, "wb") as residuals,
            open(partial / STARTS, "wb") as starts,
            pa.OSFile(str(partial / DOCUMENTS), "wb") as file,
            pa.ipc.new_file(file, DOCUMENT) as writer,
        ):
            for number in range(shards):
                table = read_documents(shard_path(tokens, number))
                lengths_n = table["vectors"].to_numpy().astype(np.int64)
                ends = vectors + np.cumsum(lengths_n)
                starts.write((ends - lengths_n).data)
                writer.write_table(table)
                for name, sink in ((CODES, codes), (RESIDUALS, residuals)):
                    with open(shard_path(coded, number) / name, "rb") as source:
                        shutil.copyfileobj(source, sink, 1 << 20)
                firsts.append(documents)
                documents += len(lengths_n)
                vectors += int(lengths_n.sum())
                progress.advance(1)
            starts.write(np.array([vectors], np.int64).data)
        _merge_lists(partial, [shard_path(coded, number) for number in range(shards)], firsts)
        return seal(partial, documents=documents, vectors=vectors)


def _merge_lists(target: Path, shards: Sequence[Path], firsts: Sequence[int]) -> None:
    """Writes the lists of all shards, centroid by centroid, some at a time."""
    starts = [np.memmap(shard / LIST_STARTS, np.int64, "r") for shard in shards]
    totals = np.asarray(sum(starts), np.int64)
    (target / LIST_STARTS).write_bytes(totals.tobytes())
    with open(target / LISTS, "wb") as sink:
        for first, stop in _ranges(totals):
            owners, documents = [], []
            for own, shard, base in zip(starts, shards, firsts):
                size = int(own[stop] - own[first])
                part = np.fromfile(shard / LISTS, np.uint32, size, offset=4 * int(own[first]))
                documents.append(part + np.uint32(base))
                owners.append(np.repeat(np.arange(stop - first), np.diff(own[first : stop + 1])))
            order = np.argsort(np.concatenate(owners), kind="stable")
            sink.write(np.concatenate(documents)[order].data)


def _ranges(totals: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields ranges of centroids whose lists are merged together."""
    first, count = 0, len(totals) - 1
    while first < count:
        stop = int(np.searchsorted(totals, totals[first] + _ENTRIES, "right")) - 1
        stop = min(count, max(first + 1, stop))
        yield first, stop
        first = stop
