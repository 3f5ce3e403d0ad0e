"""The indexes of a search, opened, and their fusion."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pyarrow as pa

from raydist import log
from raydist.bow.exchange.vectors import Vector
from raydist.bow.search.fields import FieldsRetriever
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.sharded.plan import Launch
from raydist.bow.sharded.search import ShardedSearch
from raydist.build import check_used, manifest_of, open_retriever, open_sharded
from raydist.commands.answers.show import Bow
from raydist.config.search import SearchConfig
from raydist.data.ids import IdList
from raydist.dense.spec import ByDocument
from raydist.errors import ConfigError
from raydist.protocols import Filtered, Retriever, Scanning, Selective, TextStore
from raydist.records import Query, Run
from raydist.run_writer import Columns

Queries = Sequence[Query | Vector]
"""Texts, or ids with weighted terms."""

_BATCH = 1024  # queries per batch
_AHEAD = 2  # batches of queries


class FusedSearch:
    """The indexes of a configuration, opened, and their fusion.

    Attributes:
        retrievers: one per index, over the documents that the configuration selects.
    """

    def __init__(self, config: SearchConfig, launch: Launch | None = None) -> None:
        """Opens the indexes: whole, or by shards if `launch` starts these."""
        self._config = config
        manifests = [manifest_of(each, config.shards) for each in config.index]
        check_used(manifests, config.bow, config.dense, config.late)
        self.retrievers: list[Retriever] = []
        for folder in config.index:
            if launch is not None:
                sharded = open_sharded(folder, config.shards, launch, config.bow, config.dense)
                self.retrievers.append(_among(sharded, config))
            else:
                opened = open_retriever(folder, config.bow, config.dense, config.late)
                self.retrievers.append(_among(opened, config))
        texts = [isinstance(each, Bow | ShardedSearch) for each in self.retrievers]
        # Shards rank ahead of what is merged or written; queries' vectors come from one thread.
        self._ahead = _AHEAD if launch is not None and all(texts) else 0
        if config.bow.feedback and not any(texts):
            raise ConfigError(
                "feedback: expands queries of bag-of-words indexes, and index names none"
            )
        if config.bow.fields and not any(
            isinstance(each, FieldsRetriever) for each in self.retrievers
        ):
            raise ConfigError("fields: vectors have none; leave them out")
        if config.bow.sort is not None and not all(texts):
            raise ConfigError("sort: vectors are not sorted by columns; search an index alone")
        if config.bow.filter and not all(isinstance(r, Filtered) for r in self.retrievers):
            raise ConfigError("filter: a multi-vector index has no columns; leave one of them out")
        self._searches: list[Callable[[Queries, int], Run]]
        self._searches = [partial(_search, each) for each in self.retrievers]
        if config.by is not None:
            cut = ["chunk" in each for each in manifests]
            self._searches = self._by_document(config.by, cut)

    def _by_document(
        self, by: ByDocument, cut: Sequence[bool]
    ) -> list[Callable[[Queries, int], Run]]:
        """Returns searches for documents: of indexes that are cut into passages, or of all."""
        from raydist.dense.by_document import rank_documents, sizes_of

        searches: list[Callable[[Queries, int], Run]] = []
        for search, retriever, own in zip(self._searches, self.retrievers, cut):
            sizes = sizes_of(retriever, by)
            ranked = partial(rank_documents, search, by=by, sizes=sizes)
            searches.append(ranked if own or not any(cut) else search)
        return searches

    @property
    def bow(self) -> Bow | None:
        """The first search of a bag-of-words index, None if there is none."""
        return next((each for each in self.retrievers if isinstance(each, Bow)), None)

    @property
    def texts(self) -> TextStore | None:
        """The documents' texts, of the first index that has them."""
        indexes = (each.index for each in self.retrievers if isinstance(each, Bow))
        return next((each.store for each in indexes if each.store is not None), None)

    @property
    def columns(self) -> Columns | None:
        """The documents' metadata, of the first index that has any."""
        indexes = (each.index for each in self.retrievers if isinstance(each, Bow))
        return next((each.column_values for each in indexes if each.columns is not None), None)

    def __call__(self, queries: Queries, k: int = 0) -> Run:
        """Returns the best `k` documents of each query, as many as configured if 0."""
        config = self._config
        k = k or config.k
        if config.fusion is None:
            return self._search(self._searches[0], queries, k)
        runs = [self._search(each, queries, config.depth or k) for each in self._searches]
        from raydist.dense.fusion import fuse

        return fuse(runs, k, config.fusion)

    def _search(self, search: Callable[[Queries, int], Run], queries: Queries, k: int) -> Run:
        source = self._config.queries
        if source is None or not source.exclude_own:
            return search(queries, k)
        return search(queries, k + 1).without_own().top(k)

    def tables(self, queries: Queries) -> Iterator[pa.Table]:
        """Yields the rows of the run, batch by batch, while progress is shown."""
        k = self._config.depth or self._config.k
        if self._config.by is not None:
            from raydist.dense.by_document import first_depth

            k = first_depth(k, self._config.by)
        scans = [each for each in self.retrievers if isinstance(each, Scanning)]
        size = max([_BATCH, *(each.queries_per_pass(k) for each in scans)])
        with log.Progress("search", total=len(queries), unit="query") as progress:
            for batch, run in self._runs(batches_of(queries, size)):
                yield run.table
                progress.advance(len(batch))

    def _runs(self, batches: Iterator[Queries]) -> Iterator[tuple[Queries, Run]]:
        if not self._ahead:
            yield from ((batch, self(batch)) for batch in batches)
            return
        with ThreadPoolExecutor(self._ahead) as pool:
            waiting: deque[tuple[Queries, Future[Run]]] = deque()
            for batch in batches:
                waiting.append((batch, pool.submit(self, batch)))
                if len(waiting) > self._ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()


def _search(retriever: Retriever, queries: Queries, k: int) -> Run:
    weighted = [query for query in queries if not isinstance(query, Query)]
    if weighted:
        assert isinstance(retriever, BowRetriever | ShardedSearch)
        return retriever.search_terms(weighted, k)
    return retriever.search([query for query in queries if isinstance(query, Query)], k)


def _among(retriever: Selective, config: SearchConfig) -> Retriever:
    """Returns the search over the documents that the configuration selects."""
    if config.ids is None and config.exclude_ids is None:
        return retriever
    excluded = IdList.read(config.exclude_ids) if config.exclude_ids else IdList(())
    if config.ids is None:
        return retriever.without(excluded.column)
    wanted = IdList.read(config.ids).column
    return retriever.only(wanted.filter(pa.array(excluded.positions(wanted) < 0)))


def batches_of(queries: Queries, size: int = _BATCH) -> Iterator[Queries]:
    """Yields the queries in batches."""
    for start in range(0, len(queries), size):
        yield queries[start : start + size]
