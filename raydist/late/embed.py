"""Embeds a corpus into a multi-vector index."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raydist.data.rejects import Rejects
from raydist.dense.embed import EmbeddingModel, Read, describe_model, windows_of
from raydist.dense.spec import EmbeddingSpec
from raydist.errors import ConfigError, JobError
from raydist.late.build import Workers, build_addition, build_index
from raydist.late.changes import LATE
from raydist.late.format import FIRST
from raydist.late.spec import LateSpec
from raydist.late.token_shards import TokenWriter, read_documents
from raydist.log import count, warn
from raydist.models.encode import WINDOW, EncodeStats, in_windows, padding_waste, token_rows
from raydist.models.inference import load_encoder
from raydist.models.spec import EncoderSource
from raydist.run_writer import first_blank, warn_of_blank
from raydist.shard_files import Split, Stats, Work

_BITS = 4


def check(spec: EmbeddingSpec, late: LateSpec, dimension: int) -> None:
    """Raises ConfigError for what a multi-vector index of so many dimensions does not have."""
    if spec.precision != "float32":
        raise ConfigError(
            f"precision={spec.precision}: a multi-vector index has bits=1, 2, 4 or 8; set that"
        )
    if spec.dimension:
        raise ConfigError(f"dimension={spec.dimension}: vectors of tokens are kept whole")
    if spec.ann.kind != "none":
        raise ConfigError(
            f"ann.kind={spec.ann.kind}: a multi-vector index has centroids instead; leave it out"
        )
    bits = late.bits or _BITS
    if dimension * bits % 8:
        raise ConfigError(
            f"bits={bits}: {dimension} dimensions do not fill whole bytes; expected more bits"
        )


def embed_tokens(
    splits: Sequence[Split],
    read: Read,
    folder: Path,
    model: EncoderSource,
    spec: EmbeddingSpec = EmbeddingSpec(),  # noqa: B008  frozen
    late: LateSpec = LateSpec(),  # noqa: B008  frozen
    *,
    window: int = WINDOW,
) -> dict[str, Any]:
    """Writes a multi-vector index and returns the facts for its manifest.

    Args:
        splits: descriptors of the corpus, fixed by the data.
        read: turns a split into tables.
        folder: an interrupted run of the same splits is continued.
        model: the multi-vector model.
        spec: by how many workers.
        late: how vectors are coded.
        window: documents sorted by length together.

    Raises:
        DataError: a document id occurs twice, and `spec.duplicates` is `error`.
        JobError: a split keeps failing, or a vector is not finite.
    """
    described, dimension = describe_model(model.settings())
    check(spec, late, dimension)
    facts = build_index(
        splits,
        _embedder(read, model, described, spec, window),
        folder,
        dimension=dimension,
        bits=late.bits or _BITS,
        unit=described.normalize,
        centroids=late.centroids,
        workers=_workers(spec),
    )
    facts = _described(folder / FIRST, facts, described)
    return {**facts, **LATE.mark_repeats(folder, facts, spec.duplicates)}


def embed_addition(
    splits: Sequence[Split],
    read: Read,
    index: Path,
    side: Path,
    model: EncoderSource,
    spec: EmbeddingSpec = EmbeddingSpec(),  # noqa: B008  frozen
    *,
    window: int = WINDOW,
) -> dict[str, Any]:
    """Writes a segment that is to be appended to an index, and returns its facts.

    Arguments as for `embed_tokens`, and where the index and the segment lie.
    """
    described, _ = describe_model(model.settings())
    make_worker = _embedder(read, model, described, spec, window)
    facts = build_addition(splits, make_worker, index, side, _workers(spec))
    return _described(side, facts, described)


def _workers(spec: EmbeddingSpec) -> Workers:
    return Workers(
        workers=spec.workers,
        cpus_per_worker=spec.cpus_per_worker,
        gpus_per_worker=spec.gpus_per_worker,
    )


def _embedder(
    read: Read, model: EncoderSource, described: EmbeddingModel, spec: EmbeddingSpec, window: int
) -> Callable[[], Work]:
    return partial(
        _make_worker,
        read=read,
        model=replace(model, path=described.path),  # each node resolves it for itself
        spec=spec,
        window=window,
    )


def _described(segment: Path, facts: dict[str, Any], model: EmbeddingModel) -> dict[str, Any]:
    """Returns facts with what a segment's documents and the model add."""
    table = read_documents(segment)
    if empty := int((table["vectors"].to_numpy() == 0).sum()):
        warn(f"{count(empty, 'document')} without a vector, which no search finds")
    blank = first_blank(table["doc_id"])
    warn_of_blank(blank)
    waste = padding_waste(facts["tokens"], facts.pop("padded"))
    return {**facts, "model": asdict(model), "padding_waste": waste, "blank_id": blank}


def _make_worker(*, read: Read, model: EncoderSource, spec: EmbeddingSpec, window: int) -> Work:
    if spec.workers:
        torch.set_num_threads(max(1, int(spec.cpus_per_worker)))
    encoder = load_encoder(model)

    def work(split: Split, target: Path) -> Stats:
        stats = EncodeStats()
        ids: deque[pa.Array] = deque()
        characters = 0

        def texts() -> Iterator[list[str]]:
            nonlocal characters
            for doc_ids, contents, _ in windows_of(read(split, rejects), window):
                ids.append(doc_ids)
                characters += sum(map(len, contents))
                yield contents

        with TokenWriter(target) as writer:
            rejects = Rejects(target / "rejects.jsonl")
            for rows in in_windows(
                encoder, texts(), "document", token_rows, max_tokens=spec.max_tokens, stats=stats
            ):
                doc_ids = ids.popleft()
                _check_finite(rows.vectors, rows.lengths, doc_ids)
                writer.append(doc_ids, rows.lengths, rows.vectors)
        return {
            "documents": writer.documents,
            "vectors": writer.vectors,
            "bytes": characters,
            "rejected": rejects.count,
            "tokens": stats.tokens,
            "padded": stats.padded,
            "seconds": round(stats.seconds, 3),
        }

    return work


def _check_finite(vectors_tD: np.ndarray, lengths_n: np.ndarray, doc_ids: pa.Array) -> None:
    finite_t = np.isfinite(vectors_tD).all(axis=1)
    if not finite_t.all():
        at = int(np.flatnonzero(~finite_t)[0])
        name = doc_ids[int(np.searchsorted(np.cumsum(lengths_n), at, "right"))].as_py()
        raise JobError(
            f"document {name!r}: one of its vectors is not finite; try model.dtype=float32"
        )
