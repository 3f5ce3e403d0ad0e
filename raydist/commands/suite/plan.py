"""What a benchmark has to run: its collections, looked at, and a cell for each system on each.

A cell knows what it is made of: the contents of its collection, the settings of its system, the
models. That tells whether it is finished, whatever else has changed in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydist import log
from raydist.config.base import Block, identity
from raydist.config.benchmark import (
    BenchmarkConfig,
    Collection,
    System,
    build_config,
    rerank_config,
    search_config,
)
from raydist.config.inputs import inputs
from raydist.data.spec import CorpusSource
from raydist.errors import ConfigError, RaydistError
from raydist.fingerprints import value_fingerprint
from raydist.manifest import MANIFEST
from raydist.records import Qrels, Query
from raydist.sameness import without

RECORD = "cell.json"
VALUES = "values.parquet"
Step = tuple[str, Block]
"""A verb and its configuration."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A collection that was looked at.

    Attributes:
        corpus: where its documents are, if any system reads them.
        queries: those that are judged.
        qrels: the judgements.
        exclude_own: a query is no document for itself.
        file: where the queries are written.
        contents: what tells documents and judgements from others.
    """

    corpus: CorpusSource | None
    queries: Sequence[Query]
    qrels: Qrels
    exclude_own: bool
    file: Path
    contents: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cell:
    """A system on a collection.

    Attributes:
        collection, system: their names.
        folder: of its ranking, the values of its queries, and its record.
        builds: what builds the folders that are searched; other cells may share them.
        steps: what makes the ranking of them.
        run: the file of the ranking.
        ranked: what the ranking is made of.
        measured: what the values are made of.
    """

    collection: str
    system: str
    folder: Path
    builds: Sequence[Step]
    steps: Sequence[Step]
    run: Path
    ranked: str
    measured: str

    @property
    def name(self) -> str:
        """What messages and runs call it."""
        return f"{self.system} on {self.collection}"

    @property
    def record(self) -> dict[str, Any]:
        """What was recorded of it; nothing before it was begun."""
        try:
            record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    @property
    def state(self) -> str:
        """What there is to do: `run` it, `measure` its ranking, or nothing, as it is `done`."""
        record = self.record
        if (record.get("ranked"), record.get("finished")) != (self.ranked, True):
            return "run"
        if not self.run.is_file():
            return "run"
        if not (self.folder / VALUES).is_file():
            return "measure"
        return "done" if record.get("measured") == self.measured else "measure"


def plan_cells(config: BenchmarkConfig) -> tuple[dict[str, Judged], list[Cell]]:
    """Returns the collections by name, and the cells, collection by collection.

    Raises:
        ConfigError, DataError: a mistake in any of them.
    """
    out = Path(config.out)
    judged = {
        name: _look(name, each, out / "collections" / name, config)
        for name, each in config.collections.items()
    }
    cells = []
    for collection, data in judged.items():
        for name, system in config.systems.items():
            with _named(f"systems.{name}"):
                cells.append(_cell(config, collection, data, name, system))
    return judged, cells


def _look(name: str, collection: Collection, folder: Path, config: BenchmarkConfig) -> Judged:
    """Reads judgements and queries.

    Raises:
        ConfigError: no query has both.
        DataError: a part is not there, or cannot be read.
    """
    from raydist.data.contents import contents
    from raydist.data.readers import read_qrels, read_queries

    with _named(f"collections.{name}"):
        corpus, source, judgements = collection.sources()
        qrels, texts = read_qrels(judgements), read_queries(source)
        queries = [query for query in texts if query.query_id in qrels]
        if not queries:
            raise ConfigError(
                f"queries: none of {log.count(len(texts), 'query')} is judged (for example "
                f"{texts[0].query_id!r}; the qrels have {next(iter(qrels))!r})"
            )
        if len(queries) < len(qrels):
            missing = f"{len(qrels) - len(queries):,} of {log.count(len(qrels), 'judged query')}"
            log.warn(f"{name}: {missing} without a text, which count 0")
        parts: dict[str, Any] = {"qrels": judgements}
        if all(system.run is not None for system in config.systems.values()):
            corpus = None
        if corpus is not None:
            parts["corpus"] = corpus
        read = {key: str(contents(each, config.fingerprint)) for key, each in parts.items()}
    return Judged(corpus, queries, qrels, collection.exclude_own, folder / "queries.jsonl", read)


def _cell(
    config: BenchmarkConfig, collection: str, data: Judged, name: str, system: System
) -> Cell:
    folder = Path(config.out) / "cells" / collection / name
    builds: list[Step] = []
    steps: list[Step] = []
    if system.run is not None:
        from raydist.data.contents import contents

        run = Path(system.run.replace("{collection}", collection))
        made_of: list[Any] = [str(contents([str(run)], config.fingerprint))]
    else:
        run = folder / "run.parquet"
        builds, made_of = _builds(config, collection, data, system)
        steps = _steps(config, data, system, [each.out for _, each in builds], run)  # type: ignore[attr-defined]
        made_of += [[(q.query_id, q.text) for q in data.queries], data.exclude_own]
        made_of.append(_made_of(system.search))
        if system.rerank is not None:
            made_of += [_made_of(system.rerank), data.contents["corpus"]]
    ranked = value_fingerprint(made_of)
    how = [config.measures, config.ties, data.exclude_own, data.contents["qrels"]]
    measured = value_fingerprint([ranked, *how])
    return Cell(collection, name, folder, builds, steps, run, ranked, measured)


def _builds(
    config: BenchmarkConfig, collection: str, data: Judged, system: System
) -> tuple[list[Step], list[Any]]:
    """Returns what builds the folders that a system searches, and their names.

    A folder is named for what it is made of, so that the same index is built once.
    """
    builds: list[Step] = []
    names: list[Any] = []
    assert data.corpus is not None
    for verb, step in system.builds().items():
        names.append(f"{verb}-{value_fingerprint([_made_of(step), data.contents['corpus']])}")
        folder = Path(config.out) / "builds" / collection / names[-1]
        builds.append((verb, build_config(verb, step, data.corpus, str(folder), config.workers)))
    return builds, names


def _steps(
    config: BenchmarkConfig, data: Judged, system: System, folders: Sequence[str], run: Path
) -> list[Step]:
    """Returns what makes a ranking: a search, and perhaps a reranker."""
    queries = {"path": [str(data.file)]}
    searched = {**queries, "exclude_own": data.exclude_own}
    first = run if system.rerank is None else run.with_name("candidates.parquet")
    search = search_config(system, list(folders), searched, str(first), config.workers)
    if system.rerank is None:
        return [("search", search)]
    assert data.corpus is not None
    rerank = rerank_config(
        system.rerank, str(first), queries, data.corpus, str(run), config.workers
    )
    return [("search", search), ("rerank", rerank)]


def _made_of(step: Block) -> Any:
    """Returns what decides the result of a step: its settings, and its models by their contents."""
    read = inputs(step)
    places = [place for each in read.values() for place in each.places]
    return [without(identity(step), places), {name: str(each) for name, each in read.items()}]


def is_built(step: Step) -> bool:
    """Returns whether a folder that is searched is there."""
    return (Path(step[1].out) / MANIFEST).exists()  # type: ignore[attr-defined]


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Makes the mistakes of a part of the configuration begin with its name."""
    try:
        yield
    except RaydistError as error:
        lines = str(error).splitlines()
        error.args = ("\n".join(f"{where}: {line}" for line in lines),)
        raise
