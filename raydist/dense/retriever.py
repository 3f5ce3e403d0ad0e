"""The dense retriever: queries encoded by the model that embedded the documents, then searched.

Shapes: Q queries, D dimensions, k results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch

from raydist.data.filters import passing
from raydist.data.store.repeats import Rows
from raydist.dense.ann import AnnIndex
from raydist.dense.exact import BLOCK, QUERIES, exact_search
from raydist.dense.passages import documents_of, rows_of
from raydist.dense.segments import KIND
from raydist.dense.spec import DenseSearchSpec
from raydist.dense.stored import rescored_search
from raydist.dense.vectors import VectorShards
from raydist.manifest import open_generation
from raydist.models.biencoder import BiEncoder
from raydist.models.folders.recorded import recorded_model
from raydist.models.inference import speed_up
from raydist.protocols import Encoder
from raydist.records import RUN, Query, Run

_RESULT = 72
"""Bytes of a result: row, score, and its line of the run."""


_RARE = 0.1
"""Where fewer documents may be found, scoring all of them takes less than the approximate index."""


class Scan(Protocol):
    """Exact search of vectors."""

    def __call__(
        self, queries_QD: np.ndarray, k: int, *, allowed_N: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores [Q, k] and rows [Q, k]; see `exact_search`."""
        ...


class DenseRetriever:
    """Searches vector shards; make one of a folder with `DenseRetriever.open`.

    Attributes:
        shards: the vectors.
        encoder: encodes queries.
        ann: an approximate index to search instead of all vectors, or None.
        batch: queries multiplied at a time.
        memory: bytes for the results of queries that share one pass over the vectors.
        rescore_depth: candidates per result that are scored by the finer form, if there is one.
        scan: exact search of all vectors.
    """

    def __init__(
        self,
        shards: VectorShards,
        encoder: Encoder,
        *,
        ann: AnnIndex | None = None,
        batch: int = QUERIES,
        block: int = BLOCK,
        device: str | torch.device | None = None,
        tag: str = "dense",
        memory: int = 1 << 30,
        rescore_depth: int = 4,
    ) -> None:
        self.shards = shards
        self.encoder = encoder
        self.ann = ann
        self.batch = batch
        self.block = block
        self.scan: Scan = partial(exact_search, shards, block=block, batch=batch, device=device)
        self.tag = tag
        self.memory = memory
        self.rescore_depth = rescore_depth

    @classmethod
    def open(
        cls,
        folder: str | Path,
        search: DenseSearchSpec = DenseSearchSpec(),  # noqa: B008  frozen
        *,
        batch: int = QUERIES,
        device: str | torch.device | None = None,
        tag: str = "dense",
    ) -> DenseRetriever:
        """Returns the retriever of a folder that `embed` wrote.

        Args:
            folder: with a manifest.
            search: where the model is now, and whether the folder's FAISS index is searched.
            batch: queries searched together.
            device: of model and search; None = an accelerator if the machine has one.
            tag: the run's name.

        Raises:
            ArtifactError: the folder is incomplete, or the model is not the one that embedded it.
            DataError: the model is no longer where it was.
        """
        shards, ann = open_generation(folder, [KIND], partial(_opened, Path(folder), search))
        model, settings = recorded_model(folder, shards.manifest["model"], search.model)
        encoder = BiEncoder.load(model, device=device, **settings)
        speed_up(encoder)
        if shards.dimension != encoder.dimension:
            encoder.truncate = shards.dimension
        return cls(
            shards,
            encoder,
            ann=ann,
            batch=batch,
            device=device,
            tag=tag,
            memory=search.memory,
            rescore_depth=search.rescore_depth,
        )

    @property
    def doc_ids(self) -> pa.ChunkedArray:
        """All document ids in row order, as they lie in the mapped shards."""
        return self.shards.doc_ids

    def only(self, doc_ids: Iterable[str] | pa.Array) -> DenseAmong:
        """Returns a search among these documents alone; unknown ids do not matter."""
        return DenseAmong(self, self.flags(doc_ids))

    def without(self, doc_ids: Iterable[str] | pa.Array) -> DenseAmong:
        """Returns a search among all other documents; unknown ids do not matter."""
        return DenseAmong(self, ~self.flags(doc_ids))

    @cached_property
    def _documents(self) -> Rows:
        return documents_of(self.shards)

    def flags(self, doc_ids: Iterable[str] | pa.Array) -> np.ndarray:
        """Returns which rows are those of documents, bool [N]."""
        ids = doc_ids
        if not isinstance(doc_ids, pa.Array):
            ids = pa.array(list(doc_ids), pa.large_string())
        flags = np.zeros(len(self.shards), bool)
        flags[rows_of(self._documents, self.shards, ids)] = True
        return flags

    def where(self, filter: str) -> DenseAmong:
        """Returns a search among the documents whose columns pass a filter (data/filters.py).

        Raises ConfigError for what is no filter of the columns.
        """
        return DenseAmong(self, passing(filter, self.shards.columns))

    def search(self, queries: Sequence[Query], k: int, allowed_N: np.ndarray | None = None) -> Run:
        """Returns the best `k` documents of each query by inner product; ties in corpus order."""
        step = self.queries_per_pass(k)
        batches = (queries[i : i + step] for i in range(0, len(queries), step))
        runs = [run.table for run in self.search_batches(batches, k, allowed_N)]
        return Run(pa.concat_tables(runs) if runs else RUN.empty_table(), self.tag)

    def queries_per_pass(self, k: int) -> int:
        """Returns for how many queries the vectors are read once."""
        if self.ann is not None:
            return self.batch
        k = min(k * (1 if self.shards.fine is None else self.rescore_depth), len(self.shards))
        return max(self.batch, self.memory // (_RESULT * k + 4 * self.shards.dimension))

    def search_batches(
        self, batches: Iterable[Sequence[Query]], k: int, allowed_N: np.ndarray | None = None
    ) -> Iterator[Run]:
        """Yields a run for each batch of queries, so that any number of queries streams.

        Args:
            batches: queries that share one pass over the vectors.
            k: documents per query.
            allowed_N: rows that may be found, None = all.
        """
        for queries in batches:
            vectors_QD = self.encoder.encode_queries([query.text for query in queries])
            scores_Qk, rows_Qk = self.search_vectors(vectors_QD, k, allowed_N)
            found_Qk = rows_Qk >= 0
            width = found_Qk.sum(axis=1)
            names = pa.array([query.query_id for query in queries], pa.large_string())
            table = pa.table(
                [
                    names.take(pa.array(np.repeat(np.arange(len(queries)), width))),
                    self.shards.ids_at(rows_Qk[found_Qk]),
                    pa.array(scores_Qk[found_Qk]),
                ],
                names=RUN.names,
            )
            yield Run(table, self.tag)

    def search_vectors(
        self, queries_QD: np.ndarray, k: int, allowed_N: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores [Q, k] and rows [Q, k] for query vectors; row -1 = no result."""
        few = allowed_N is not None and np.count_nonzero(allowed_N) < _RARE * len(allowed_N)
        if self.ann is not None and not few:
            return self.ann.search(self.shards, queries_QD, k, allowed_N)
        if self.shards.fine is not None:
            return rescored_search(
                self.shards,
                queries_QD,
                k,
                self.rescore_depth,
                block=self.block,
                batch=self.batch,
                allowed_N=allowed_N,
            )
        return self.scan(queries_QD, k, allowed_N=allowed_N)


def _opened(
    folder: Path, search: DenseSearchSpec, manifest: Mapping[str, Any]
) -> tuple[VectorShards, AnnIndex | None]:
    """Maps, or reads, all files of a generation that the search needs."""
    ann = AnnIndex.open(folder, manifest) if search.approximate else None
    if ann is not None:
        ann.load()
    return VectorShards.map(folder, manifest), ann


@dataclass(frozen=True, slots=True)
class DenseAmong:
    """A dense retriever that finds only the allowed rows; make one with `DenseRetriever.only`."""

    retriever: DenseRetriever
    allowed_N: np.ndarray

    @property
    def doc_ids(self) -> pa.ChunkedArray:
        """The ids of the allowed documents."""
        return self.retriever.doc_ids.filter(pa.array(self.allowed_N))

    def only(self, doc_ids: Iterable[str] | pa.Array) -> DenseAmong:
        """Returns a search among these documents alone, as far as they are allowed."""
        return DenseAmong(self.retriever, self.allowed_N & self.retriever.flags(doc_ids))

    def without(self, doc_ids: Iterable[str] | pa.Array) -> DenseAmong:
        """Returns a search among all other documents, as far as they are allowed."""
        return DenseAmong(self.retriever, self.allowed_N & ~self.retriever.flags(doc_ids))

    def where(self, filter: str) -> DenseAmong:
        """Returns a search among the documents that pass a filter, as far as they are allowed."""
        return DenseAmong(self.retriever, self.allowed_N & self.retriever.where(filter).allowed_N)

    def queries_per_pass(self, k: int) -> int:
        """Returns for how many queries the vectors are read once."""
        return self.retriever.queries_per_pass(k)

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """Returns the best `k` allowed documents of each query."""
        return self.retriever.search(queries, k, self.allowed_N)
