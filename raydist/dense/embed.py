"""Embedding a corpus: splits in, vector shards out, through the restartable sharded map.

Memory is bounded by two windows of texts and one batch, never by the corpus.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raydist.data.rejects import Rejects
from raydist.data.store.idhash import find_duplicates
from raydist.dense.vectors import SHARDS, Precision, VectorShards, VectorWriter
from raydist.errors import ConfigError, DataError, JobError
from raydist.fingerprints import model_fingerprint
from raydist.models.backbone import load_config, resolve_folder
from raydist.models.biencoder import BiEncoder
from raydist.models.encode import WINDOW, EncodeStats, encode_windows, padding_waste
from raydist.models.folder import check_contract, read_folder
from raydist.shard_files import Split, Stats, Work
from raydist.shards import sharded_map

_WINDOW_CHARACTERS = 8 << 20

Read = Callable[[Split, Rejects], Iterable[pa.Table]]
"""Reads a split as tables of the DOCUMENTS schema and notes skipped lines; must be picklable."""


def embed_corpus(
    splits: Sequence[Split],
    read: Read,
    folder: Path,
    *,
    model: str | Path,
    model_options: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
    max_tokens: int = 0,
    window: int = WINDOW,
    workers: int = 0,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
) -> dict[str, Any]:
    """Writes `folder/shards/` and returns the facts for the folder's manifest.

    Args:
        splits: descriptors of the corpus, fixed by the data.
        read: turns a split into tables.
        folder: an interrupted run of the same splits is continued.
        model: folder or name of a bi-encoder.
        model_options: keyword arguments of `BiEncoder.load`.
        precision: how vectors are stored.
        max_tokens: token budget of a batch, padding included; 0 = by the device.
        window: documents sorted by length together.
        workers: Ray actors; 0 = in this process.
        cpus_per_worker: CPUs, and torch threads, of an actor.
        gpus_per_worker: GPUs of an actor.

    Raises:
        DataError: a document id occurs twice.
        JobError: a split keeps failing, or a vector is not finite.
    """
    options = dict(model_options or {})
    described, dimension = describe_model(model, options, precision)
    make_worker = partial(
        _make_worker,
        read=read,
        model=described.path,  # each node resolves a name or URI for itself
        options=options,
        precision=precision,
        max_tokens=max_tokens,
        window=window,
        threads=max(1, int(cpus_per_worker)) if workers else 0,
    )
    stats = sharded_map(
        splits,
        make_worker,
        folder / SHARDS,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        label="embed",
        unit="documents",
    )
    tokens, padded = (sum(int(s[name]) for s in stats) for name in ("tokens", "padded"))
    facts = {
        "dimension": dimension,
        "model": asdict(described),
        "shards": len(stats),
        "documents": sum(int(s["documents"]) for s in stats),
        "precision": precision,
        "tokens": tokens,
        "padding_waste": padding_waste(tokens, padded),
        "seconds": sum(float(s["seconds"]) for s in stats),
    }
    _check_ids(VectorShards.map(folder, facts).doc_ids)
    return facts


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A bi-encoder as the manifest of its vectors names it.

    Attributes:
        path: as it was named; absolute for a folder.
        folder: where its files lie on this machine.
        fingerprint: of its files.
        asked: what was set beside the folder's own contract.
        pooling: of the contract that holds.
        normalize: of the contract that holds.
    """

    path: str
    folder: str
    fingerprint: str
    asked: Mapping[str, Any]
    pooling: str
    normalize: bool


def describe_model(
    model: str | Path, options: Mapping[str, Any], precision: Precision = "float32"
) -> tuple[EmbeddingModel, int]:
    """Returns a model, without its weights, and the dimension of its vectors.

    Options that the model does not support raise here, before anything is written.
    """
    folder = resolve_folder(model)
    overrides = {
        name: options.get(name)
        for name in (
            "pooling",
            "normalize",
            "query_instruction",
            "document_instruction",
            "answer_instruction",
            "query_max_length",
            "document_max_length",
            "padding_side",
            "towers",
            "dimensions",
        )
    }
    replaced = bool(options.get("replace_contract"))
    paths, contract, _ = read_folder(folder, overrides, replaced)
    backbone, truncate = load_config(paths[0]), int(options.get("truncate") or 0)
    check_contract(contract, backbone, truncate)
    dimension = truncate or int(backbone.hidden_size)
    if precision == "binary" and dimension % 8:
        raise ConfigError(f"precision=binary: a dimension of {dimension} is not a multiple of 8")
    explicit = {name: value for name, value in overrides.items() if value is not None}
    name = str(Path(model).absolute()) if Path(model).is_dir() else str(model)
    described = EmbeddingModel(
        path=name,
        folder=str(folder.absolute()),
        fingerprint=model_fingerprint(folder),
        asked=explicit | ({"replace_contract": True} if replaced else {}),
        pooling=contract.pooling,
        normalize=contract.normalize,
    )
    return described, dimension


def default_dtype() -> str:
    """Returns bfloat16 where an accelerator has it, else float32."""
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def _make_worker(
    *,
    read: Read,
    model: str,
    options: Mapping[str, Any],
    precision: Precision,
    max_tokens: int,
    window: int,
    threads: int,
) -> Work:
    if threads:
        torch.set_num_threads(threads)
    encoder = BiEncoder.load(model, **{"dtype": default_dtype(), **options})

    def work(split: Split, target: Path) -> Stats:
        stats = EncodeStats()
        ids: deque[pa.Array] = deque()
        characters = 0
        rejects = Rejects(target / "rejects.jsonl")

        def texts() -> Iterator[list[str]]:
            nonlocal characters
            for doc_ids, contents in windows_of(read(split, rejects), window):
                ids.append(doc_ids)
                characters += sum(map(len, contents))
                yield contents

        with VectorWriter(target, encoder.dimension, precision) as writer:
            for vectors_nD in encode_windows(
                encoder, texts(), "document", max_tokens=max_tokens, stats=stats
            ):
                doc_ids = ids.popleft()
                _check_finite(vectors_nD, doc_ids, encoder)
                writer.append(doc_ids, vectors_nD)
        return {
            "documents": writer.rows,
            "bytes": characters,
            "rejected": rejects.count,
            "tokens": stats.tokens,
            "padded": stats.padded,
            "seconds": round(stats.seconds, 3),
        }

    return work


def windows_of(
    tables: Iterable[pa.Table], size: int, characters: int = _WINDOW_CHARACTERS
) -> Iterator[tuple[pa.Array, list[str]]]:
    """Yields `(doc_ids, contents)` of up to `size` documents or about `characters` of text.

    A document's contents are its title, a newline and its text; the text alone without a title.
    """
    ids: list[str] = []
    contents: list[str] = []
    room = characters
    for table in tables:
        for batch in table.to_batches(max_chunksize=256):
            names = batch["doc_id"].to_pylist()
            titles = batch["title"].to_pylist()
            for name, title, text in zip(names, titles, batch["text"].to_pylist()):
                ids.append(name)
                contents.append(f"{title}\n{text}" if title else text)
                room -= len(text)
                if len(ids) >= size or room <= 0:
                    yield pa.array(ids, pa.string()), contents
                    ids, contents, room = [], [], characters
    if ids:
        yield pa.array(ids, pa.string()), contents


def _check_finite(vectors_nD: np.ndarray, doc_ids: pa.Array, encoder: BiEncoder) -> None:
    finite_n = np.isfinite(vectors_nD).all(axis=1)
    if not finite_n.all():
        name = doc_ids[int(np.flatnonzero(~finite_n)[0])].as_py()
        dtype = next(encoder.parameters()).dtype
        raise JobError(
            f"document {name!r}: its vector is not finite (weights in {dtype}); try dtype=float32"
        )


def _check_ids(doc_ids: pa.ChunkedArray) -> None:
    """Raises DataError if an id occurs twice; needs a dozen bytes per document."""
    twice = find_duplicates(doc_ids)
    if twice.count:
        raise DataError(
            f"corpus: {twice.count} documents repeat an id, the first is {twice.examples[0][0]!r}; "
            "ids must be unique"
        )
