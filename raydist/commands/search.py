"""Searches one index or several and writes a run.

    raydist search index=IDX queries=queries.jsonl k=1000 out=run.txt
    raydist search index=IDX,VEC fusion=rrf queries=queries.jsonl k=1000 out=hybrid.txt
    raydist search index=IDX

The last one asks for queries and shows the best documents, `?ID` what makes a document's score.
What an index is (bag of words, vectors) is read from its manifest. Queries are searched in batches,
so any number of them streams; row order in the run is the ranking.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from raydist import log
from raydist.build import fuse_runs, open_retriever
from raydist.config.base import Flags
from raydist.config.search import SearchConfig
from raydist.errors import ConfigError
from raydist.manifest import disk_errors
from raydist.protocols import Retriever, Selective
from raydist.records import RUN, Query, Run

__all__ = ["Config", "run"]

Config = SearchConfig
_BATCH = 1024  # queries per batch
_FEW = 10  # documents at the prompt


def run(config: SearchConfig, flags: Flags) -> None:
    """Writes the run of all queries."""
    from raydist.data.readers import read_queries

    out = Path(config.out) if config.out else None
    if out is not None and out.is_dir():
        raise ConfigError(f"out = {out}: is a folder, expected the file to write")
    queries = None if config.queries is None else read_queries(**config.queries.arguments())
    options = config.model_dump(include={"ties", "threads", "in_memory", "model", "approximate"})
    whole = [open_retriever(folder, scoring=config.scoring, **options) for folder in config.index]
    retrievers = [_among(each, config) for each in whole]
    if queries is None:
        _prompt(retrievers, config, flags)
        return
    if flags.dry_run:
        log.say(f"would search {len(queries):,} queries in {', '.join(config.index)}")
        return
    tables = []
    with log.Progress("search", total=len(queries), unit="queries") as progress:
        for batch in _batches(queries):
            tables.append(_search(retrievers, batch, config).table)
            progress.advance(len(batch))
    found = Run(pa.concat_tables(tables) if tables else RUN.empty_table(), _tag(config))
    _write(found, out)
    empty = len(queries) - len(found.query_ids)
    if empty:
        log.warn(f"{empty:,} of {len(queries):,} queries found nothing")


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


def _prompt(retrievers: Sequence[Retriever], config: SearchConfig, flags: Flags) -> None:
    from raydist.bow.search import BowRetriever
    from raydist.commands.searching.prompt import ask

    if config.out is not None:
        raise ConfigError(f"out = {config.out}: a prompt writes no run; give queries=")
    if flags.dry_run:
        log.say(f"would ask for queries and search {', '.join(config.index)}")
        return
    bow = next((each for each in retrievers if isinstance(each, BowRetriever)), None)
    if "k" not in config.model_fields_set:
        config = config.model_copy(update={"k": _FEW})
    ask(lambda query: _search(retrievers, [query], config), bow)


def _search(retrievers: Sequence[Retriever], queries: Sequence[Query], config: SearchConfig) -> Run:
    if config.fusion is None:
        return retrievers[0].search(queries, config.k)
    depth = config.depth or config.k
    runs = [retriever.search(queries, depth) for retriever in retrievers]
    return fuse_runs(runs, config.fusion, k=config.k)


def _batches(queries: Sequence[Query]) -> Iterator[Sequence[Query]]:
    for start in range(0, len(queries), _BATCH):
        yield queries[start : start + _BATCH]


def _tag(config: SearchConfig) -> str:
    if config.tag is not None:
        return config.tag
    return config.fusion.kind if config.fusion is not None else "raydist"


def _write(found: Run, out: Path | None) -> None:
    if out is None:
        found.write_to(sys.stdout)
        return
    from raydist.data.convert import write_run

    with disk_errors(out):
        write_run(found, out)
    log.say(f"{out}: {len(found):,} results of {len(found.query_ids):,} queries")
