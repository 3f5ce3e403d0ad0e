"""Embeds a corpus by a sparse model: splits become spills, the spills become one segment.

    corpus ─ splits ─► read, weigh terms, invert ─► spills ─► merge ─► segments/00000

The result is an index of weighted terms that knows its model. It depends on the documents and the
model alone, and a restart redoes the splits without a done marker.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raydist.bow.build.append import Check, append_built
from raydist.bow.build.delete import mark_deleted
from raydist.bow.build.merge import MAX_DOCUMENTS, merge_spills
from raydist.bow.build.spills import Spill, write_spill
from raydist.bow.build.weighted import WeightedDocuments, inverted
from raydist.bow.index import BowIndex, encode_term
from raydist.data.rejects import Rejects
from raydist.data.store.idhash import find_duplicates
from raydist.data.store.repeats import REMEDY, description, repeats_within
from raydist.dense.embed import EmbeddingModel, windows_of
from raydist.dense.spec import EmbeddingSpec
from raydist.disk import disk_errors
from raydist.errors import ConfigError, DataError, JobError
from raydist.generations import WORK
from raydist.models.encode import WINDOW, EncodeStats, in_windows, padding_waste, term_rows
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

_FIRST = "00000"  # segment
_MEMORY = 1 << 30  # of the merge
_BLOCK_SIZE = 128


def check_spec(spec: EmbeddingSpec) -> None:
    """Raises ConfigError for options that are of vectors alone."""
    plain = EmbeddingSpec()
    for name in ("precision", "dimension", "ann"):
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

    Of documents that share an id, one stays, as `spec.duplicates` says.

    Args:
        splits: descriptors of the corpus, fixed by the data.
        read: turns a split into tables.
        folder: an interrupted run of the same splits is continued.
        model: the sparse model.
        described: the same as the manifest names it.
        spec: how many workers there are, and the unit of weights.
        window: documents sorted by length together.

    Raises:
        DataError: no documents, or a document id occurs twice and `spec.duplicates` is `error`.
        JobError: a split keeps failing, or a weight is not finite.
    """
    facts = embed_parts(splits, read, folder, model, described, spec, _FIRST, window=window)
    if facts.pop("repeats"):
        with disk_errors(folder):
            index = BowIndex.of(folder, facts)
            superfluous = repeats_within(index).superfluous(spec.duplicates)
            facts |= mark_deleted(folder, facts, index, superfluous, _FIRST)
    return facts


def append_terms(
    splits: Sequence[Split],
    read: Read,
    folder: Path,
    model: EncoderSource,
    described: EmbeddingModel,
    spec: EmbeddingSpec,
    *,
    inputs: Mapping[str, str],
    reading: Mapping[str, Any],
    check: Check = lambda *_: None,
) -> dict[str, Any] | None:
    """Adds documents to an index, as a further segment; returns the facts of the new manifest.

    Returns None if the same were appended before.

    Args:
        splits: as for `embed_terms`.
        read: as for `embed_terms`.
        folder: a complete index; an interrupted append of these inputs is continued.
        model: that of the index.
        described: the same as the manifest names it.
        spec: that of the index; with `duplicates=last` documents replace those of the same ids.
        inputs: fingerprints of the inputs by name.
        reading: settings by which `read` makes other documents of the same inputs.
        check: may raise, and the index stays as it was.

    Raises:
        ArtifactError: no complete index.
        DataError, JobError: as for `embed_terms`.
    """

    def build(manifest: Mapping[str, Any], side: Path, name: str) -> dict[str, Any]:
        added = embed_parts(splits, read, side, model, described, spec, name)
        check(side, added)
        return added

    key = [dict(inputs), dict(reading)]
    grown = append_built(
        folder, key, build, inputs=inputs, duplicates=spec.duplicates, work=list(splits)
    )
    return None if grown is None else {**grown, "new_seconds": grown["seconds"]}


def embed_parts(
    splits: Sequence[Split],
    read: Read,
    folder: Path,
    model: EncoderSource,
    described: EmbeddingModel,
    spec: EmbeddingSpec,
    name: str,
    *,
    window: int = WINDOW,
) -> dict[str, Any]:
    """Writes one segment, documents that share an id included; arguments as `embed_terms`.

    Returns the facts for the manifest, and `repeats`, how many documents repeat an id.
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
    repeats = find_duplicates(ids)
    if repeats.count and spec.duplicates == "error":
        raise DataError(f"{description(repeats.count, *repeats.examples[0])} ({REMEDY})")
    blank = first_blank(ids)
    warn_of_blank(blank)
    with disk_errors(folder):
        target = folder / "segments" / name
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
        "segments": [f"segments/{name}"],
        "store": None,
        "analyzer": None,
        "unit": spec.unit,
        "model": asdict(described),
        "empty": sum(int(each["empty"]) for each in stats),
        "rejected": sum(int(each["rejected"]) for each in stats),
        "repeats": repeats.count,
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
            for doc_ids, contents, _ in windows_of(read(split, rejects), window):
                ids.append(doc_ids)
                characters += sum(map(len, contents))
                yield contents

        parts = []
        for rows in in_windows(
            encoder, texts(), "document", term_rows, max_tokens=spec.max_tokens, stats=stats
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
