"""Embedding a corpus: splits in, vector shards out, through the restartable sharded map.

Memory is bounded by two windows of texts and one batch, never by the corpus.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from raydist.data.columns import columns_of, split_columns
from raydist.data.rejects import Rejects
from raydist.dense.changes import VECTORS
from raydist.dense.chunks import Chunker, check_chunks
from raydist.dense.files import VectorWriter
from raydist.dense.forms import PRECISIONS, Precision
from raydist.dense.segments import SHARDS
from raydist.dense.spec import EmbeddingSpec
from raydist.dense.vectors import VectorShards
from raydist.errors import ConfigError, JobError
from raydist.fingerprints import model_fingerprint
from raydist.models.backbone import resolve_folder
from raydist.models.biencoder import BiEncoder
from raydist.models.encode import WINDOW, EncodeStats, encode_rows, in_windows, padding_waste
from raydist.models.folders.biencoder import requested
from raydist.models.folders.encoder import read_encoder_folder
from raydist.models.inference import load_encoder
from raydist.models.spec import BiEncoderSettings, EncoderSource
from raydist.run_writer import first_blank, warn_of_blank
from raydist.shard_files import Split, Stats, Work
from raydist.shards import sharded_map

_WINDOW_CHARACTERS = 8 << 20

Read = Callable[[Split, Rejects], Iterable[pa.Table]]
"""Reads a split as tables of the DOCUMENTS schema and notes skipped lines; must be picklable."""


def embed_corpus(
    splits: Sequence[Split],
    read: Read,
    folder: Path,
    model: EncoderSource,
    spec: EmbeddingSpec = EmbeddingSpec(),  # noqa: B008  frozen
    *,
    window: int = WINDOW,
) -> dict[str, Any]:
    """Writes `folder/shards/` and returns the facts for the folder's manifest.

    Of documents that share an id, one stays, as `spec.duplicates` says.

    Args:
        splits: descriptors of the corpus, fixed by the data.
        read: turns a split into tables.
        folder: an interrupted run of the same splits is continued.
        model: the bi-encoder.
        spec: how vectors are stored, and by how many workers; each has `cpus_per_worker` threads.
        window: documents sorted by length together.

    Raises:
        DataError: a document id occurs twice, and `spec.duplicates` is `error`.
        JobError: a split keeps failing, or a vector is not finite.
    """
    facts = embed_parts(splits, read, folder, model, spec, window=window)
    return {**facts, **VECTORS.mark_repeats(folder, facts, spec.duplicates)}


def embed_parts(
    splits: Sequence[Split],
    read: Read,
    folder: Path,
    model: EncoderSource,
    spec: EmbeddingSpec = EmbeddingSpec(),  # noqa: B008  frozen
    *,
    window: int = WINDOW,
) -> dict[str, Any]:
    """Does the same with documents that share an id included; arguments as `embed_corpus`."""
    check_forms(spec)
    described, dimension = describe_model(model.settings(), spec.dimension, spec.precision)
    if spec.chunk.tokens:
        check_chunks(spec.chunk, Path(described.folder), model.settings())
    make_worker = partial(
        _make_worker,
        read=read,
        model=replace(model, path=described.path),  # each node resolves a name or URI for itself
        spec=spec,
        window=window,
    )
    stats = sharded_map(
        splits,
        make_worker,
        folder / SHARDS,
        workers=spec.workers,
        cpus_per_worker=spec.cpus_per_worker,
        gpus_per_worker=spec.gpus_per_worker,
        label="embed",
        unit="document",
    )
    tokens, padded = (sum(int(s[name]) for s in stats) for name in ("tokens", "padded"))
    facts = {
        "dimension": dimension,
        "model": asdict(described),
        "shards": len(stats),
        "documents": sum(int(s["documents"]) for s in stats),
        "precision": spec.precision,
        **({"rescore_precision": finer} if (finer := spec.rescore_precision) != "none" else {}),
        "tokens": tokens,
        "padding_waste": padding_waste(tokens, padded),
        "seconds": sum(float(s["seconds"]) for s in stats),
    }
    if spec.chunk.tokens:
        facts["chunk"] = asdict(spec.chunk)
    facts |= columns_of(stats, [split.get("path", "the corpus") for split in splits])
    blank = first_blank(VectorShards.map(folder, facts).doc_ids)
    warn_of_blank(blank)
    return {**facts, "blank_id": blank}


def check_forms(spec: EmbeddingSpec) -> None:
    """Raises ConfigError where the form for rescoring is not finer than that which is searched."""
    finer = PRECISIONS[: PRECISIONS.index(spec.precision)]
    if spec.rescore_precision not in ("none", *finer):
        expected = f"expected one of {', '.join(finer)}" if finer else "leave it out"
        raise ConfigError(
            f"rescore_precision={spec.rescore_precision}: is not finer than "
            f"precision={spec.precision}; {expected}"
        )


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A bi-encoder as the manifest of its vectors names it.

    Attributes:
        kind: one vector a text, or weights of terms.
        path: as it was named; absolute for a folder.
        folder: where its files lie on this machine.
        fingerprint: of its files.
        asked: what was set beside the folder's own contract.
        pooling: of the contract that holds.
        normalize: of the contract that holds.
    """

    kind: str
    path: str
    folder: str
    fingerprint: str
    asked: Mapping[str, Any]
    pooling: str
    normalize: bool


def describe_model(
    model: BiEncoderSettings, truncate: int = 0, precision: Precision = "float32"
) -> tuple[EmbeddingModel, int]:
    """Returns a model, without its weights, and the dimension of its vectors.

    Settings that the model does not support raise here, before anything is written.
    """
    path = model.path or ""
    folder = resolve_folder(path)
    read, truncate = read_encoder_folder(folder, model, truncate)
    contract = read.contract
    dimension = truncate or read.length
    if precision == "binary" and dimension % 8:
        raise ConfigError(f"precision=binary: a dimension of {dimension} is not a multiple of 8")
    explicit = {name: value for name, value in requested(model).items() if value is not None}
    if model.attention != "sdpa":
        explicit["attention"] = model.attention
    described = EmbeddingModel(
        kind=contract.kind,
        path=str(Path(path).absolute()) if Path(path).is_dir() else path,
        folder=str(folder.absolute()),
        fingerprint=model_fingerprint(folder),
        asked=explicit | ({"replace_contract": True} if model.replace_contract else {}),
        pooling=contract.pooling,
        normalize=contract.normalize,
    )
    return described, dimension


def _make_worker(*, read: Read, model: EncoderSource, spec: EmbeddingSpec, window: int) -> Work:
    if spec.workers:
        torch.set_num_threads(max(1, int(spec.cpus_per_worker)))
    encoder = load_encoder(model, truncate=spec.dimension)

    def work(split: Split, target: Path) -> Stats:
        stats = EncodeStats()
        documents: deque[Window] = deque()
        chunker = Chunker(encoder.tokenizer, spec.chunk) if spec.chunk.tokens else None
        characters = 0
        rejects = Rejects(target / "rejects.jsonl")

        def texts() -> Iterator[list[str]]:
            nonlocal characters
            tables = read(split, rejects)
            for each in windows_of(chunker(tables) if chunker else tables, window):
                documents.append(each)
                characters += sum(map(len, each.contents))
                yield each.contents

        with VectorWriter(
            target, encoder.dimension, spec.precision, spec.rescore_precision
        ) as writer:
            for vectors_nD in in_windows(
                encoder, texts(), "document", encode_rows, max_tokens=spec.max_tokens, stats=stats
            ):
                own = documents.popleft()
                _check_finite(vectors_nD, own.doc_ids, encoder)
                writer.append(own.doc_ids, vectors_nD, own.columns)
        return {
            "documents": writer.rows,
            "bytes": characters,
            "rejected": rejects.count,
            "tokens": stats.tokens,
            "padded": stats.padded,
            "seconds": round(stats.seconds, 3),
            **({"columns": types} if (types := writer.columns) else {}),
        }

    return work


class Window(NamedTuple):
    """Documents that are encoded together: their ids, contents, and columns, None without any."""

    doc_ids: pa.Array
    contents: list[str]
    columns: pa.Table | None


def windows_of(
    tables: Iterable[pa.Table], size: int, characters: int = _WINDOW_CHARACTERS
) -> Iterator[Window]:
    """Yields windows of up to `size` documents or about `characters` of text.

    A document's contents are its title, a newline and its text; the text alone without a title.
    """
    ids: list[str] = []
    contents: list[str] = []
    columns: list[pa.Table] = []
    room = characters
    for table in tables:
        for start in range(0, table.num_rows, 256):
            batch, extra = split_columns(table.slice(start, 256))
            first = 0
            rows = zip(*(batch[name].to_pylist() for name in ("doc_id", "title", "text")))
            for row, (name, title, text) in enumerate(rows, 1):
                ids.append(name)
                contents.append(f"{title}\n{text}" if title else text)
                room -= len(text)
                if len(ids) >= size or room <= 0:
                    columns += [] if extra is None else [extra.slice(first, row - first)]
                    yield _window(ids, contents, columns)
                    ids, contents, columns, room, first = [], [], [], characters, row
            columns += [] if extra is None else [extra.slice(first)]
    if ids:
        yield _window(ids, contents, columns)


def _window(ids: list[str], contents: list[str], columns: list[pa.Table]) -> Window:
    return Window(
        pa.array(ids, pa.string()), contents, pa.concat_tables(columns) if columns else None
    )


def _check_finite(vectors_nD: np.ndarray, doc_ids: pa.Array, encoder: BiEncoder) -> None:
    finite_n = np.isfinite(vectors_nD).all(axis=1)
    if not finite_n.all():
        name = doc_ids[int(np.flatnonzero(~finite_n)[0])].as_py()
        dtype = next(encoder.parameters()).dtype
        raise JobError(
            f"document {name!r}: its vector is not finite (weights in {dtype}); try "
            "model.dtype=float32"
        )
