"""Searches one index or several and writes a run.

    raydist search index=IDX queries=queries.jsonl k=1000 out=run.txt
    raydist search index=IDX,VEC fusion=rrf queries=queries.jsonl k=1000 out=hybrid.txt
    raydist search index=VEC queries=queries.jsonl by=document filter="lang == 'en'" out=run.txt
    raydist search index=IDX query="boundary layer flow" k=5 explain=true
    raydist search index=IDX k=5

`query=` shows the best documents with the words that match, and with `explain=true` what each term
adds to their scores. The last line prompts for queries: `?51` explains document 51's score. What an
index is (bag of words, vectors) is read from its manifest.

The name of `out=` decides the form of the run: `.parquet`, `.csv`, `.tsv`, `.jsonl` (with the
documents' texts, where an index has them), else TREC lines. Queries are searched in batches, so any
number of them streams; row order in the run is the ranking.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raydist import log, storage
from raydist.artefact import planned
from raydist.bow.ahead import SEARCH, WEIGHTED, prepare
from raydist.bow.exchange.vectors import Vector, are_vectors, read_vectors
from raydist.bow.feedback.retriever import FeedbackRetriever
from raydist.bow.search.fields import FieldsRetriever
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.sharded.plan import HEADERS, Launch
from raydist.bow.sharded.search import ShardedSearch
from raydist.build import check_shards, check_used, open_retriever, open_sharded
from raydist.commands.answers.show import Bow, prompt, show
from raydist.config.base import Flags
from raydist.config.search import SearchConfig
from raydist.data.ids import IdList
from raydist.dense.spec import ByDocument
from raydist.disk import disk_errors, is_stream
from raydist.errors import ConfigError, DataError, JobError
from raydist.fingerprints import value_fingerprint
from raydist.manifest import read_manifest
from raydist.protocols import Filtered, Retriever, Scanning, Selective, TextStore
from raydist.records import RUN, Query, Run
from raydist.run_writer import (
    CHOICE,
    Columns,
    Write,
    first_blank,
    group_starts,
    open_run,
    run_form,
    trec_lines,
)
from raydist.shard_files import Split, Stats, shard_path
from raydist.shards import sharded_map

Config = SearchConfig
Queries = Sequence[Query | Vector]
"""Texts, or ids with weighted terms."""

_BATCH = 1024  # queries per batch
_AHEAD = 2  # batches of queries
_SPLIT = 256  # queries per split at least, the unit of work and of restart
_SPLITS = 512  # at most
_SHOWN = 10  # documents that are shown if `k` is not given


def run(config: SearchConfig, flags: Flags) -> None:
    """Writes the run of all queries, or prompts for them."""
    out = Path(config.out) if config.out else None
    if out is not None and out.is_dir():
        raise ConfigError(f"out = {out}: is a folder, expected the file to write")
    if config.shards:
        _check_shards(config, out)
    if config.queries is None and (config.query is None or out is None):
        _answer(config, flags)
        return
    queries = _read_queries(config)
    if out is None or run_form(out) == "trec":
        _refuse_blanks(config, queries)
    search = None
    if not config.shards and (flags.dry_run or not config.workers):
        search = FusedSearch(config)
    goal = f" and write {out}" if out is not None else ""
    where = f"{', '.join(config.index)}{goal}"
    if planned(flags.dry_run, f"search {log.count(len(queries), 'query')} in {where}"):
        return
    if search is not None:
        _compile(search)
    tag = config.tag or (config.fusion.kind if config.fusion is not None else "raydist")
    if config.shards:
        with _shards(config) as sharded:
            answered = _write(sharded.tables(queries), out, tag, None)
    elif search is not None:
        answered = _write(search.tables(queries), out, tag, search)
    else:
        reader = FusedSearch(config) if out is not None and run_form(out) == "jsonl" else None
        with _search_on_ray(config, queries, out) as tables:
            answered = _write(tables, out, tag, reader)
    if answered < len(queries):
        missed = f"{len(queries) - answered:,} of {log.count(len(queries), 'query')}"
        log.warn(f"no results for {missed}")


def _check_shards(config: SearchConfig, out: Path | None) -> None:
    """Raises ConfigError for what a search by shards does not do."""
    if config.queries is None and (config.query is None or out is None):
        raise ConfigError("shards: documents are not shown; give queries=, or query= and out=")
    if out is not None and run_form(out) == "jsonl":
        raise ConfigError(
            f"out = {out}: JSON lines hold the documents' texts, which shards do not open; choose "
            "another suffix, or leave shards out"
        )
    for folder in config.index:
        check_shards(folder, config.shards, config.bow, config.dense)


@contextlib.contextmanager
def _shards(config: SearchConfig) -> Iterator[FusedSearch]:
    """Gives a search whose indexes are opened by actors, some segments each."""
    from raydist.actors import Actors

    with contextlib.ExitStack() as stack:

        def launch(makers: Sequence[Callable[[], Any]]) -> Actors:
            actors = Actors(makers, cpus=float(config.bow.threads))
            stack.callback(actors.close)
            return actors

        yield FusedSearch(config, launch)


def _manifest(config: SearchConfig, folder: str) -> dict[str, Any]:
    # Nothing but the manifest of what is searched by shards is copied here.
    return read_manifest(storage.local(folder, HEADERS if config.shards else None))


def _read_queries(config: SearchConfig) -> Queries:
    """Reads texts, or weighted terms, if the indexes hold those."""
    from raydist.data.readers import read_queries

    if config.query is not None:
        return [Query("query", config.query)]
    assert config.queries is not None
    manifests = [_manifest(config, each) for each in config.index]
    weighted = [bool(each.get("unit")) for each in manifests]
    by_model = all(each.get("model") for each in manifests if each.get("unit"))
    if by_model and not (all(weighted) and all(map(are_vectors, config.queries.paths))):
        return read_queries(config.queries)
    if not all(weighted):
        raise ConfigError(
            f"index = {','.join(config.index)}: some hold weighted terms, others do not"
        )
    return [vector for path in config.queries.paths for vector in read_vectors(path)]


def _refuse_blanks(config: SearchConfig, queries: Queries) -> None:
    """Raises DataError, before the search, for ids that TREC lines cannot carry."""
    names = [q[0] if isinstance(q, tuple) else q.query_id for q in queries]
    if (query_id := first_blank(pa.array(names, pa.string()))) is not None:
        raise DataError(f"queries: the id {query_id!r}: {CHOICE}")
    for folder in config.index:
        if config.shards or _manifest(config, folder).get("blank_id") is None:
            continue  # of shards only the run's ids are seen, when they are written
        ids = open_retriever(folder, dense=config.dense).doc_ids  # it may be deleted by now
        for path, wanted in ((config.ids, True), (config.exclude_ids, False)):
            if path is not None:
                listed = pc.is_in(ids.cast(pa.large_string()), value_set=IdList.read(path).column)
                ids = ids.filter(listed if wanted else pc.invert(listed))
        if (doc_id := first_blank(ids)) is not None:
            raise DataError(f"index = {folder}: the document id {doc_id!r}: {CHOICE}")


def _compile(search: FusedSearch) -> None:
    """Begins to compile the kernels that rank, those that a search needs."""
    kernels: dict[str, str] = {}
    for each in search.retrievers:
        if isinstance(each, BowRetriever) and each.is_weighted:
            kernels |= WEIGHTED
        elif isinstance(each, BowRetriever | FeedbackRetriever) and each.is_pruned:
            kernels |= SEARCH
    prepare(kernels)


def _answer(config: SearchConfig, flags: Flags) -> None:
    """Shows the documents of one query, or prompts for queries."""
    where = ", ".join(config.index)
    if config.query is None and config.out is not None:
        raise ConfigError(f"out = {config.out}: a prompt writes no run; give queries= or query=")
    plan = f"prompt for queries and search {where}" if config.query is None else f"search {where}"
    search = FusedSearch(config)
    if config.explain and search.bow is None:
        raise ConfigError(f"explain: only a bag-of-words index explains scores, not {where}")
    if planned(flags.dry_run, plan):
        return
    _compile(search)
    k = config.k if "k" in config.model_fields_set else _SHOWN
    if config.query is None:
        prompt(search, search.bow, k)
        return
    show(search([Query("query", config.query)], k), search.bow, config.query, config.explain)


def _write(
    tables: Iterable[pa.Table], out: Path | None, tag: str, search: FusedSearch | None
) -> int:
    """Writes the rows of whole queries as they come; returns how many queries have results."""
    results = answered = 0
    with _writer(out, tag, search) as write:
        for table in tables:
            write(table)
            results += table.num_rows
            answered += len(group_starts(table["query_id"]))
    if out is not None:
        log.say(f"{out}: {log.count(results, 'result')} of {log.count(answered, 'query')}")
    return answered


@contextlib.contextmanager
def _writer(out: Path | None, tag: str, search: FusedSearch | None) -> Iterator[Write]:
    if out is None:
        yield trec_lines(sys.stdout.write, tag)
        return
    texts, columns = (search.texts, search.columns) if search is not None else (None, None)
    with disk_errors(out), open_run(out, RUN, tag, texts, columns) as write:
        yield write


class FusedSearch:
    """The indexes of a configuration, opened, and their fusion.

    Attributes:
        retrievers: one per index, over the documents that the configuration selects.
    """

    def __init__(self, config: SearchConfig, launch: Launch | None = None) -> None:
        """Opens the indexes: whole, or by shards if `launch` starts these."""
        self._config = config
        check_used([_manifest(config, each) for each in config.index], config.bow, config.dense)
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
            self._searches = self._by_document(config.by)

    def _by_document(self, by: ByDocument) -> list[Callable[[Queries, int], Run]]:
        """Returns searches for documents: of indexes of passages, or of all if none is one."""
        from raydist.dense.by_document import rank_documents, sizes_of

        cut = ["chunk" in _manifest(self._config, folder) for folder in self._config.index]
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
            for batch, run in self._runs(_batches(queries, size)):
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
    from raydist.data.ids import IdList

    if config.ids is None and config.exclude_ids is None:
        return retriever
    excluded = IdList.read(config.exclude_ids) if config.exclude_ids else IdList(())
    if config.ids is None:
        return retriever.without(excluded.column)
    wanted = IdList.read(config.ids).column
    return retriever.only(wanted.filter(pa.array(excluded.positions(wanted) < 0)))


def _batches(queries: Queries, size: int = _BATCH) -> Iterator[Queries]:
    for start in range(0, len(queries), size):
        yield queries[start : start + size]


@contextlib.contextmanager
def _search_on_ray(
    config: SearchConfig, queries: Queries, out: Path | None
) -> Iterator[Iterator[pa.Table]]:
    """Searches on Ray; gives the rows of the run in the order of the queries, split by split.

    Workers take queries, not segments: each opens the whole index, whose files are mapped and
    shared by the workers of a machine, so every query meets the statistics and the thresholds of
    all segments, and the run is the same for any number of workers. Finished splits are kept beside
    `out` until the block ends, so the same command continues after a crash.
    """
    manifests = [read_manifest(storage.local(folder)) for folder in config.index]
    values = [tuple(q) if isinstance(q, tuple) else (q.query_id, q.text) for q in queries]
    key = value_fingerprint([config.identity(), manifests, values])
    step = max(_SPLIT, -(-len(queries) // _SPLITS))
    splits = [
        {"first": first, "size": min(step, len(queries) - first)}
        for first in range(0, len(queries), step)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        beside = out is not None and not is_stream(out)
        folder = out.absolute().with_name(f".{out.name}.{key}") if out and beside else Path(scratch)
        sharded_map(
            splits,
            partial(_Worker, config, list(queries), manifests),
            folder,
            workers=config.workers,
            cpus_per_worker=float(config.bow.threads),
            label="search",
            unit="query",
        )
        yield (_read_table(shard_path(folder, number)) for number in range(len(splits)))
        if beside:
            shutil.rmtree(folder)


class _Worker:
    def __init__(
        self, config: SearchConfig, queries: Queries, manifests: Sequence[Mapping[str, Any]]
    ) -> None:
        self._search = FusedSearch(config)
        self._queries = queries
        # Workers start at different times, and must all search the same generation.
        for folder, manifest in zip(config.index, manifests):
            if read_manifest(storage.local(folder)) != manifest:
                raise JobError(f"{folder}: was changed while its search began; run it again")

    def __call__(self, split: Split, target: Path) -> Stats:
        """Writes the rows of a split's queries."""
        queries = self._queries[split["first"] : split["first"] + split["size"]]
        tables = [self._search(batch).table for batch in _batches(queries)]
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, RUN) as writer:
            for table in tables:
                writer.write_table(table)
        return {"queries": len(queries)}


def _read_table(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
