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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from raydist import log, storage
from raydist.artefact import planned
from raydist.build import check_shards, compile_search, manifest_of, open_retriever
from raydist.config.base import Flags
from raydist.config.search import SearchConfig
from raydist.data.ids import IdList
from raydist.disk import disk_errors, is_stream
from raydist.errors import ConfigError, DataError, JobError
from raydist.fingerprints import value_fingerprint
from raydist.manifest import read_manifest
from raydist.records import RUN, Query
from raydist.run_writer import (
    CHOICE,
    Write,
    first_blank,
    group_starts,
    open_run,
    run_form,
    trec_lines,
)
from raydist.shard_files import Split, Stats, shard_path
from raydist.shards import sharded_map

if TYPE_CHECKING:  # numba is imported while other processes compile
    from raydist.commands.answers.fused import FusedSearch, Queries

Config = SearchConfig

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
    if not (flags.dry_run or config.shards or config.workers):
        compile_search(map(manifest_of, config.index), config.bow)
    if config.queries is None and (config.query is None or out is None):
        _answer(config, flags)
        return
    from raydist.commands.answers.fused import FusedSearch

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
    from raydist.commands.answers.fused import FusedSearch

    with contextlib.ExitStack() as stack:

        def launch(makers: Sequence[Callable[[], Any]]) -> Actors:
            actors = Actors(makers, cpus=float(config.bow.threads))
            stack.callback(actors.close)
            return actors

        yield FusedSearch(config, launch)


def _read_queries(config: SearchConfig) -> Queries:
    """Reads texts, or weighted terms, if the indexes hold those."""
    from raydist.bow.exchange.vectors import are_vectors, read_vectors
    from raydist.data.readers import read_queries

    if config.query is not None:
        return [Query("query", config.query)]
    assert config.queries is not None
    manifests = [manifest_of(each, config.shards) for each in config.index]
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
        if config.shards or manifest_of(folder, config.shards).get("blank_id") is None:
            continue  # of shards only the run's ids are seen, when they are written
        ids = open_retriever(folder, dense=config.dense).doc_ids  # it may be deleted by now
        for path, wanted in ((config.ids, True), (config.exclude_ids, False)):
            if path is not None:
                listed = pc.is_in(ids.cast(pa.large_string()), value_set=IdList.read(path).column)
                ids = ids.filter(listed if wanted else pc.invert(listed))
        if (doc_id := first_blank(ids)) is not None:
            raise DataError(f"index = {folder}: the document id {doc_id!r}: {CHOICE}")


def _answer(config: SearchConfig, flags: Flags) -> None:
    """Shows the documents of one query, or prompts for queries."""
    from raydist.commands.answers.fused import FusedSearch
    from raydist.commands.answers.show import prompt, show

    where = ", ".join(config.index)
    if config.query is None and config.out is not None:
        raise ConfigError(f"out = {config.out}: a prompt writes no run; give queries= or query=")
    plan = f"prompt for queries and search {where}" if config.query is None else f"search {where}"
    search = FusedSearch(config)
    if config.explain and search.bow is None:
        raise ConfigError(f"explain: only a bag-of-words index explains scores, not {where}")
    if planned(flags.dry_run, plan):
        return
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
        from raydist.commands.answers.fused import FusedSearch

        self._search = FusedSearch(config)
        self._queries = queries
        # Workers start at different times, and must all search the same generation.
        for folder, manifest in zip(config.index, manifests):
            if read_manifest(storage.local(folder)) != manifest:
                raise JobError(f"{folder}: was changed while its search began; run it again")

    def __call__(self, split: Split, target: Path) -> Stats:
        """Writes the rows of a split's queries."""
        from raydist.commands.answers.fused import batches_of

        queries = self._queries[split["first"] : split["first"] + split["size"]]
        tables = [self._search(batch).table for batch in batches_of(queries)]
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, RUN) as writer:
            for table in tables:
                writer.write_table(table)
        return {"queries": len(queries)}


def _read_table(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
