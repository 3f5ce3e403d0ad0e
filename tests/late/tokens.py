"""Token vectors that are clustered as real ones are, and their exact scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.late.build import Workers, build_index
from raydist.late.token_shards import TokenWriter
from raydist.shard_files import Split, Stats


def documents(count: int, dimension: int = 32, seed: int = 0) -> list[np.ndarray]:
    """Documents of 1 to 40 unit vectors: words near which a document's tokens lie."""
    rng = np.random.default_rng(seed)
    words = rng.standard_normal((200, dimension))
    made = []
    for _ in range(count):
        chosen = words[rng.integers(200, size=rng.integers(1, 41))]
        made.append(unit(chosen + 0.4 * rng.standard_normal(chosen.shape)))
    return made


def queries_of(docs: Sequence[np.ndarray], count: int = 12, seed: int = 1) -> list[np.ndarray]:
    """Queries of a few noisy vectors of some documents."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        own = docs[rng.integers(len(docs))]
        chosen = own[rng.integers(len(own), size=rng.integers(1, 8))]
        made.append(unit(chosen + 0.3 * rng.standard_normal(chosen.shape)))
    return made


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of unit length."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def max_sim(query: np.ndarray, docs: Sequence[np.ndarray]) -> np.ndarray:
    """The sum over the query's vectors of the largest dot product, naively."""
    return np.array([(query.astype(float) @ doc.T).max(axis=1).sum() for doc in docs])


def worker(docs: Sequence[np.ndarray], names: Sequence[str]) -> Any:
    """Work that writes a split of documents as a token shard."""

    def work(split: Split, target: Path) -> Stats:
        part = docs[split["first"] : split["first"] + split["size"]]
        with TokenWriter(target) as writer:
            ids = names[split["first"] : split["first"] + split["size"]]
            lengths = np.array([len(each) for each in part])
            writer.append(pa.array(ids), lengths, np.concatenate(part))
        counts = {"documents": writer.documents, "vectors": writer.vectors}
        return {**counts, "tokens": writer.vectors, "padded": writer.vectors, "seconds": 0.0}

    return work


def splits_of(docs: Sequence[np.ndarray], per_split: int = 50) -> list[Split]:
    """Splits of some documents each."""
    return [
        {"first": first, "size": min(per_split, len(docs) - first)}
        for first in range(0, len(docs), per_split)
    ]


def build(
    docs: Sequence[np.ndarray],
    folder: Path,
    *,
    per_split: int = 50,
    workers: int = 0,
    names: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """An index of documents d0, d1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"d{number}" for number in range(len(docs))]
    options = {"bits": 4, "unit": True, "dimension": docs[0].shape[1], **options}
    return build_index(
        splits_of(docs, per_split),
        partial(worker, docs, names),
        folder,
        workers=Workers(workers=workers),
        **options,
    )
