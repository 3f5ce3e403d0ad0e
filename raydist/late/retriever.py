"""The multi-vector retriever: queries encoded by the model that embedded the documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch

from raydist.late.format import KIND
from raydist.late.search import LateIndex
from raydist.late.spec import LateSearchSpec
from raydist.manifest import open_generation
from raydist.models.spec import EncoderPlace
from raydist.records import RUN, Query, Run

QUERIES = 64


class TokenEncoder(Protocol):
    """Turns texts into vectors of their tokens."""

    def encode_queries(self, texts: Sequence[str]) -> Sequence[np.ndarray]:
        """Returns float32 vectors [q, D] of each text."""
        ...


class LateRetriever:
    """Searches a multi-vector index; make one of a folder with `LateRetriever.open`.

    Attributes:
        index: the mapped index.
        encoder: encodes queries.
        spec: how far to look.
    """

    def __init__(
        self,
        index: LateIndex,
        encoder: TokenEncoder,
        spec: LateSearchSpec = LateSearchSpec(),  # noqa: B008  frozen
        *,
        threads: int = 1,
        tag: str = "late",
    ) -> None:
        self.index = index
        self.encoder = encoder
        self.spec = spec
        self.threads = threads
        self.tag = tag

    @classmethod
    def open(
        cls,
        folder: str | Path,
        spec: LateSearchSpec = LateSearchSpec(),  # noqa: B008  frozen
        model: EncoderPlace | None = None,
        *,
        threads: int = 0,
        device: str | torch.device | None = None,
        tag: str = "late",
    ) -> LateRetriever:
        """Returns the retriever of a folder that `embed` wrote.

        Args:
            folder: with a manifest.
            spec: how far to look.
            model: where the model is now, and how to load it.
            threads: queries that are searched beside each other; 0 = torch's number.
            device: of the model, and of scores if it is a GPU with room for the index; None = an
                accelerator if the machine has one.
            tag: the run's name.

        Raises:
            ArtifactError: the folder is incomplete or damaged, or the model is not the one that
                embedded it.
            DataError: the model is no longer where it was.
        """
        from raydist.models.biencoder import BiEncoder
        from raydist.models.folders.recorded import recorded_model

        index, described = open_generation(folder, [KIND], partial(_opened, Path(folder)))
        place, settings = recorded_model(folder, described, model)
        encoder: Any = BiEncoder.load(place, device=device, **settings)
        index.on(encoder.device)
        return cls(index, encoder, spec, threads=threads or torch.get_num_threads(), tag=tag)

    @property
    def doc_ids(self) -> pa.ChunkedArray:
        """The ids of all documents that are not deleted, in the order of the corpus."""
        return pa.chunked_array(list(self.index.documents.id_parts()), pa.string())

    def only(self, doc_ids: Iterable[str] | pa.Array) -> LateAmong:
        """Returns a search among these documents alone; unknown ids do not matter."""
        return LateAmong(self, 1 - self._flags(doc_ids))

    def without(self, doc_ids: Iterable[str] | pa.Array) -> LateAmong:
        """Returns a search among all other documents; unknown ids do not matter."""
        return LateAmong(self, self._flags(doc_ids))

    def _flags(self, doc_ids: Iterable[str] | pa.Array) -> np.ndarray:
        ids = doc_ids
        if not isinstance(doc_ids, pa.Array):
            ids = pa.array(list(doc_ids), pa.large_string())
        positions = self.index.documents.find(ids)
        flags = np.zeros(len(self.index), np.uint8)
        flags[positions[positions >= 0]] = 1
        return flags

    def search(self, queries: Sequence[Query], k: int, barred_N: np.ndarray | None = None) -> Run:
        """Returns the best `k` documents of each query by MaxSim; ties in corpus order."""
        batches = (queries[i : i + QUERIES] for i in range(0, len(queries), QUERIES))
        tables = [self._table(batch, k, barred_N) for batch in batches]
        return Run(pa.concat_tables(tables) if tables else RUN.empty_table(), self.tag)

    def _table(self, queries: Sequence[Query], k: int, barred_N: np.ndarray | None) -> pa.Table:
        vectors = self.encoder.encode_queries([query.text for query in queries])
        found = self.index.search(vectors, k, self.spec, barred_N=barred_N, threads=self.threads)
        names = pa.array([query.query_id for query in queries], pa.large_string())
        widths = [len(scores) for scores, _ in found]
        columns = [
            names.take(pa.array(np.repeat(np.arange(len(queries)), widths))),
            self.index.documents.pick_ids(np.concatenate([numbers for _, numbers in found])),
            pa.array(np.concatenate([scores for scores, _ in found])),
        ]
        return pa.table(columns, names=RUN.names)


def _opened(folder: Path, manifest: Mapping[str, Any]) -> tuple[LateIndex, Mapping[str, Any]]:
    return LateIndex.open(folder, manifest), manifest["model"]


class LateAmong:
    """A multi-vector retriever that finds only some documents; see `LateRetriever.only`."""

    def __init__(self, retriever: LateRetriever, barred_N: np.ndarray) -> None:
        self._retriever = retriever
        self._barred_N = barred_N

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """Returns the best `k` allowed documents of each query."""
        return self._retriever.search(queries, k, self._barred_N)
