"""Embeds a corpus by a sparse model: splits become spills, the spills become one segment.

    corpus ─ splits ─► read, weigh terms, invert ─► spills ─► merge ─► segments/00000

The result is an index of weighted terms that knows its model. It depends on the documents and the
model alone, and a restart redoes the splits without a done marker.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raydist.bow.build.merge import MAX_DOCUMENTS, merge_spills
from raydist.bow.build.spills import Spill, write_spill
from raydist.bow.build.weighted import WeightedDocuments, inverted
from raydist.bow.index import encode_term
from raydist.data.rejects import Rejects
from raydist.data.store.idhash import find_duplicates
from raydist.dense.embed import EmbeddingModel, windows_of
from raydist.dense.spec import EmbeddingSpec
from raydist.disk import disk_errors
from raydist.errors import ConfigError, DataError, JobError
from raydist.generations import WORK
from raydist.log import count
from raydist.models.encode import WINDOW, EncodeStats, encode_term_windows, padding_waste
from raydist.models.inference import load_encoder
from raydist.models.spec import EncoderSource
from raydist.run_writer import first_blank, warn_of_blank
from raydist.shard_files import Split, Stats, Work, shard_path
from raydist.shards import sharded_map
from raydist.sparse.vocabulary import vocabulary

Read = Callable[[Split, Rejects], Iterable[pa.Table]]
"""Reads a split as tables of the DOCUMENTS schema and notes skipped lines; must be picklable."""

SHARDS = f"{WORK}/splits"
"""Where the spills of a build lie below its output."""

_SEGMENT = "segments/00000"
_MEMORY = 1 << 30  # of the merge
_BLOCK_SIZE = 128


def check_spec(spec: EmbeddingSpec) -> None:
    """Raises ConfigError for options that are of vectors alone."""
    plain = EmbeddingSpec()
    for name in ("precision", "dimension", "ann", "duplicates"):
        if getattr(spec, name) != getattr(plain, name):
            raise ConfigError(f"{name}: is for vectors, and the model weighs terms; leave it out")


def embed_terms(
    splits: Sequence[Split],
    read: Read,
    folder: Path,
    model: EncoderSource,
    described: EmbeddingModel,
    spec: EmbeddingSpec,
    *,
    window: int = WINDOW,
) -> dict[str, Any]:
    """Writes an index into a folder and returns the facts for its manifest.

    Args:
        splits: descriptors of the corpus, fixed by the data.
        read: turns a split into tables.
        folder: an interrupted run of the same splits is continued.
        model: the sparse model.
        described: the same as the manifest names it.
        spec: how many workers there are, and the unit of weights.
        window: documents sorted by length together.

    Raises:
        DataError: no documents, or a document id occurs twice.
        JobError: a split keeps failing, or a weight is not finite.
    """
    shards = folder / SHARDS
    stats = sharded_map(
        splits,
        partial(
            _make_worker,
            read=read,
            model=replace(model, path=described.path),
            spec=spec,
            window=window,
        ),
        shards,
        workers=spec.workers,
        cpus_per_worker=spec.cpus_per_worker,
        gpus_per_worker=spec.gpus_per_worker,
        label="embed",
        unit="document",
    )
    documents = sum(int(each["documents"]) for each in stats)
    if not documents:
        raise DataError("the corpus has no documents")
    if documents >= MAX_DOCUMENTS:
        raise DataError(f"{documents:,} documents: a segment numbers them with 32 bits")
    parts = [shard_path(shards, number) for number in range(len(stats))]
    ids = pa.chunked_array([Spill(part).doc_ids for part in parts], pa.large_string())
    _check_ids(ids)
    blank = first_blank(ids)
    warn_of_blank(blank)
    with disk_errors(folder):
        target = folder / _SEGMENT
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        merged = merge_spills(
            parts,
            target,
            work=folder / WORK / "ranges",
            compress=True,
            block_size=_BLOCK_SIZE,
            memory=_MEMORY,
            weighted=True,
            reordered=spec.reorder,
            workers=spec.workers,
            cpus_per_worker=spec.cpus_per_worker,
        )
    tokens, padded = (sum(int(each[name]) for each in stats) for name in ("read", "padded"))
    return {
        **merged,
        "segments": [_SEGMENT],
        "store": None,
        "analyzer": None,
        "unit": spec.unit,
        "model": asdict(described),
        "empty": sum(int(each["empty"]) for each in stats),
        "blank_id": blank,
        "model_tokens": tokens,
        "padding_waste": padding_waste(tokens, padded),
        "seconds": sum(float(each["seconds"]) for each in stats),
    }


def _make_worker(*, read: Read, model: EncoderSource, spec: EmbeddingSpec, window: int) -> Work:
    if spec.workers:
        torch.set_num_threads(max(1, int(spec.cpus_per_worker)))
    encoder = load_encoder(model)
    names = vocabulary(encoder.tokenizer, encoder.dimension)
    terms = pa.array([encode_term(name) for name in names], pa.large_binary())

    def work(split: Split, target: Path) -> Stats:
        stats = EncodeStats()
        ids: deque[pa.Array] = deque()
        characters = 0
        target.mkdir(parents=True)
        rejects = Rejects(target / "rejects.jsonl")

        def texts() -> Iterator[list[str]]:
            nonlocal characters
            for doc_ids, contents in windows_of(read(split, rejects), window):
                ids.append(doc_ids)
                characters += sum(map(len, contents))
                yield contents

        parts = []
        for rows in encode_term_windows(
            encoder, texts(), "document", max_tokens=spec.max_tokens, stats=stats
        ):
            doc_ids = ids.popleft()
            impacts = np.rint(rows.weights.astype(np.float64) / spec.unit)
            _check(impacts, rows.offsets, doc_ids, spec.unit)
            numbers = rows.terms.astype(np.uint32)
            offsets = rows.offsets.astype(np.int64)
            parts.append(WeightedDocuments(doc_ids, offsets, numbers, impacts.astype(np.uint32)))
        written = write_spill(target, inverted(parts, terms))
        return {
            "documents": written["documents"],
            "empty": written["empty"],
            "bytes": characters,
            "rejected": rejects.count,
            "read": stats.tokens,
            "padded": stats.padded,
            "seconds": round(stats.seconds, 3),
        }

    return work


def _check(impacts: Any, offsets: Any, doc_ids: pa.Array, unit: float) -> None:
    wrong = ~(impacts < 1 << 32)  # which numbers that are none are, too
    if wrong.any():
        entry = int(np.flatnonzero(wrong)[0])
        name = doc_ids[int(np.searchsorted(offsets, entry, side="right")) - 1].as_py()
        raise JobError(
            f"document {name!r}: a weight is {impacts[entry] * unit}, expected a finite one below "
            f"2**32 units of {unit}; try model.dtype=float32"
        )


def _check_ids(doc_ids: pa.ChunkedArray) -> None:
    """Raises DataError if an id occurs twice."""
    twice = find_duplicates(doc_ids)
    if twice.count:
        raise DataError(
            f"corpus: {count(twice.count, 'document')} with the id of an earlier one, the first "
            f"{twice.examples[0][0]!r}; remove them, or give them ids of their own"
        )
