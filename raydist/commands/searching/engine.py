"""What a configuration searches, in this process or spread over workers.

Workers take queries, not segments: each opens the whole index, whose files are mapped and shared by
the workers of a machine, so every query meets the statistics and the thresholds of all segments and
the run is the same for any number of workers.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from raydist import storage
from raydist.bow.exchange.vectors import Vector, read_vectors
from raydist.bow.search.retriever import BowRetriever
from raydist.build import fuse_runs, open_retriever
from raydist.config.search import SearchConfig
from raydist.errors import ConfigError
from raydist.fingerprints import value_fingerprint
from raydist.manifest import read_manifest
from raydist.protocols import Retriever, Selective
from raydist.records import RUN, Query, Run
from raydist.shard_files import Split, Stats, shard_path
from raydist.shards import sharded_map

Queries = Sequence[Query | Vector]
"""Texts, or ids with weighted terms."""

_BATCH = 1024  # queries per batch
_SPLIT = 256  # queries per split at least, the unit of work and of restart
_SPLITS = 512  # at most


class Searching:
    """The opened indexes of a configuration, and their fusion.

    Attributes:
        retrievers: one per index, among the documents that the configuration leaves.
    """

    def __init__(self, config: SearchConfig) -> None:
        kept = {"ties", "threads", "in_memory", "model", "approximate"}
        options = config.model_dump(include=kept)
        self._config = config
        self.retrievers = [
            _among(open_retriever(folder, scoring=config.scoring, **options), config)
            for folder in config.index
        ]

    def __call__(self, queries: Queries, k: int = 0) -> Run:
        """Returns the best `k` documents of each query, as many as configured if 0."""
        config = self._config
        k = k or config.k
        if config.fusion is None:
            return _search(self.retrievers[0], queries, k)
        runs = [_search(each, queries, config.depth or k) for each in self.retrievers]
        return fuse_runs(runs, config.fusion, k=k)


def read(config: SearchConfig) -> Queries:
    """Reads the queries: texts, or weighted terms where the indexes are of such."""
    from raydist.data.readers import read_queries

    assert config.queries is not None
    manifests = [read_manifest(storage.local(folder)) for folder in config.index]
    if not any(manifest.get("unit") for manifest in manifests):
        return read_queries(**config.queries.arguments())
    if not all(manifest.get("unit") for manifest in manifests):
        raise ConfigError(f"index = {','.join(config.index)}: some are of weighted terms, not all")
    return [vector for path in config.queries.paths for vector in read_vectors(path)]


def _search(retriever: Retriever, queries: Queries, k: int) -> Run:
    weighted = [query for query in queries if not isinstance(query, Query)]
    if weighted:
        assert isinstance(retriever, BowRetriever)
        return retriever.search_terms(weighted, k)
    return retriever.search([query for query in queries if isinstance(query, Query)], k)


def _among(retriever: Selective, config: SearchConfig) -> Retriever:
    """Returns the search among the documents that the configuration leaves."""
    from raydist.data.ids import IdList

    if config.ids is None and config.exclude_ids is None:
        return retriever
    wanted = IdList.read(config.ids).ids if config.ids else retriever.doc_ids.to_pylist()
    if config.exclude_ids:
        without = set(IdList.read(config.exclude_ids).ids)
        wanted = [each for each in wanted if each not in without]
    return retriever.only(wanted)


def batches(queries: Queries) -> Iterator[Queries]:
    """Yields the queries, some at a time."""
    for start in range(0, len(queries), _BATCH):
        yield queries[start : start + _BATCH]


def spread(config: SearchConfig, queries: Queries, out: Path | None) -> list[pa.Table]:
    """Searches on Ray; returns the rows of the run in the order of the queries.

    What is done is kept beside `out` until all is, so the same command goes on after a crash.
    """
    checks = [read_manifest(storage.local(folder)) for folder in config.index]
    key = value_fingerprint(
        [
            config.identity(),
            checks,
            [tuple(q) if isinstance(q, tuple) else (q.query_id, q.text) for q in queries],
        ]
    )
    step = max(_SPLIT, -(-len(queries) // _SPLITS))
    splits = [
        {"first": first, "size": min(step, len(queries) - first)}
        for first in range(0, len(queries), step)
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) if out is None else out.absolute().with_name(f".{out.name}.{key}")
        make_worker = partial(_Worker, config, list(queries))
        sharded_map(
            splits,
            make_worker,
            folder,
            workers=config.workers,
            cpus_per_worker=float(config.threads),
            label="search",
            unit="queries",
        )
        tables = [_read(shard_path(folder, number)) for number in range(len(splits))]
        shutil.rmtree(folder)
        Path(place).mkdir(exist_ok=True)
    return tables


class _Worker:
    def __init__(self, config: SearchConfig, queries: Queries) -> None:
        self._search = Searching(config)
        self._queries = queries

    def __call__(self, split: Split, target: Path) -> Stats:
        """Writes the rows of a split's queries."""
        mine = self._queries[split["first"] : split["first"] + split["size"]]
        tables = [self._search(batch).table for batch in batches(mine)]
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, RUN) as writer:
            for table in tables:
                writer.write_table(table)
        return {"queries": len(mine)}


def _read(path: Path) -> pa.Table:
    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all()
