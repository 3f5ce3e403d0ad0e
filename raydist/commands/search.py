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
from pathlib import Path

import pyarrow as pa

from raydist import log
from raydist.commands.searching.engine import Searching, batches, read, spread
from raydist.config.base import Flags
from raydist.config.search import SearchConfig
from raydist.disk import disk_errors
from raydist.errors import ConfigError
from raydist.records import RUN, Run

Config = SearchConfig
_FEW = 10  # documents at the prompt


def run(config: SearchConfig, flags: Flags) -> None:
    """Writes the run of all queries."""
    out = Path(config.out) if config.out else None
    if out is not None and out.is_dir():
        raise ConfigError(f"out = {out}: is a folder, expected the file to write")
    queries = None if config.queries is None else read(config)
    spread_out = queries is not None and config.workers > 0
    searching = None if spread_out and not flags.dry_run else Searching(config)
    if queries is None:
        assert searching is not None
        _prompt(searching, config, flags)
        return
    if flags.dry_run:
        log.say(f"would search {len(queries):,} queries in {', '.join(config.index)}")
        return
    if searching is None:
        tables = spread(config, queries, out)
    else:
        tables = []
        with log.Progress("search", total=len(queries), unit="queries") as progress:
            for batch in batches(queries):
                tables.append(searching(batch).table)
                progress.advance(len(batch))
    found = Run(pa.concat_tables(tables) if tables else RUN.empty_table(), _tag(config))
    _write(found, out)
    empty = len(queries) - len(found.query_ids)
    if empty:
        log.warn(f"{empty:,} of {len(queries):,} queries found nothing")


def _prompt(searching: Searching, config: SearchConfig, flags: Flags) -> None:
    from raydist.bow.search.retriever import BowRetriever
    from raydist.commands.searching.prompt import ask

    if config.out is not None:
        raise ConfigError(f"out = {config.out}: a prompt writes no run; give queries=")
    if flags.dry_run:
        log.say(f"would ask for queries and search {', '.join(config.index)}")
        return
    bow = next((each for each in searching.retrievers if isinstance(each, BowRetriever)), None)
    k = config.k if "k" in config.model_fields_set else _FEW
    ask(lambda query: searching([query], k), bow)


def _tag(config: SearchConfig) -> str:
    if config.tag is not None:
        return config.tag
    return config.fusion.kind if config.fusion is not None else "raydist"


def _write(found: Run, out: Path | None) -> None:
    if out is None:
        found.write_to(sys.stdout)
        return
    from raydist.data.samples.convert import write_run

    with disk_errors(out):
        write_run(found, out)
    log.say(f"{out}: {len(found):,} results of {len(found.query_ids):,} queries")
