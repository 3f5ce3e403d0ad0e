"""Stages: retrievers make runs, rerankers turn runs into runs, `>>` puts one behind the other.

bm25 = rd.open("idx").bm25()
pipe = bm25 % 100 >> rd.rerank("cross-encoder/ms-marco-MiniLM-L6-v2", depth=50)
pipe.search("what causes rain?")           # a table
pipe.search(queries, k=50)                 # a run
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, overload

from raydist.api.hits import Hits
from raydist.api.inputs import Queries, queries_of, text_or_queries
from raydist.errors import ConfigError

if TYPE_CHECKING:
    from raydist.api.run import Run
    from raydist.protocols import Retriever, TextStore
    from raydist.records import Query
    from raydist.records import Run as AnyRun
    from raydist.text.analyzer import Analyzer

_SHOWN = 10  # documents of a query that is typed in


class Source(Protocol):
    """The first stage of a pipeline."""

    @property
    def texts(self) -> TextStore | None:
        """The documents' texts, if it has them."""

    @property
    def analyzer(self) -> Analyzer | None:
        """What makes terms of texts, if it has one."""

    def search(self, queries: Sequence[Query], k: int) -> AnyRun:
        """Returns the best `k` documents of each query."""

    def identity(self) -> Any:
        """Returns JSON that tells its results from others."""

    def served(self) -> dict[str, Any]:
        """Returns the keys of `serve` that answer the same."""


class Step(Protocol):
    """A stage that turns a run into a run."""

    @property
    def needs_texts(self) -> bool:
        """Whether it reads the documents' texts, and has none of its own."""

    def depth_of(self, k: int) -> int:
        """Returns how many documents of each query it takes to give `k`."""

    def apply(self, run: AnyRun, queries: Sequence[Query], texts: TextStore | None) -> AnyRun:
        """Returns the new run."""

    def identity(self) -> Any:
        """Returns JSON that tells its results from others."""

    def served(self) -> dict[str, Any]:
        """Returns the keys of `serve` that answer the same."""


@dataclass(frozen=True, slots=True, repr=False)
class Steps:
    """Stages that turn runs into runs; `pipeline >> steps` puts them behind a retriever.

    >>> import raydist as rd
    >>> rd.rerank("bm25", depth=10) % 5
    rerank('bm25', depth=10) % 5
    """

    steps: tuple[Step, ...]

    def __rshift__(self, other: Steps) -> Steps:
        _check_step(other)
        if not isinstance(other, Steps):
            return NotImplemented
        return Steps((*self.steps, *other.steps))

    def __rrshift__(self, retriever: Any) -> Pipeline:
        return pipeline_of(retriever) >> self

    def __mod__(self, k: int) -> Steps:
        return Steps((*self.steps, Cut(k)))

    def __repr__(self) -> str:
        return _joined(self.steps)


@dataclass(frozen=True, slots=True, repr=False)
class Cut:
    """The first `k` documents of each query."""

    k: int
    needs_texts = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", _number(self.k, "%"))

    def depth_of(self, k: int) -> int:
        """Returns how many documents of each query it takes to give `k`."""
        return min(k, self.k)

    def apply(self, run: AnyRun, queries: Sequence[Query], texts: TextStore | None) -> AnyRun:
        """Returns the new run."""
        return run.top(self.k)

    def identity(self) -> Any:
        """Returns JSON that tells its results from others."""
        return {"cut": self.k}

    def served(self) -> dict[str, Any]:
        """Returns the keys of `serve` that answer the same."""
        raise ConfigError(f"% {self.k}: a service takes the number of results from its requests")

    def __repr__(self) -> str:
        return f"% {self.k}"


class Pipeline:
    """Turns queries into a run, stage by stage; made by `Index.bm25`, `Vectors.dense`, `fuse`.

    >>> import raydist as rd
    >>> index = rd.index([{"id": "1", "text": "heron fish"}, {"id": "2", "text": "boat"}], "idx")
    >>> pipe = index.bm25() >> rd.rerank("bm25", depth=10)
    >>> pipe
    bm25('idx') >> rerank('bm25', depth=10)
    >>> pipe.search({"q1": "heron"}, k=5)["q1"][0].id
    '1'

    Attributes:
        source: the first stage.
        steps: the others.
    """

    def __init__(self, source: Source, steps: Sequence[Step] = ()) -> None:
        """Puts stages together.

        Raises:
            ConfigError: a stage needs texts, and there are none.
        """
        self.source = source
        self.steps = tuple(steps)
        needy = next((step for step in self.steps if step.needs_texts), None)
        if needy is not None and source.texts is None:
            raise ConfigError(
                f"{needy!r}: needs the documents' texts, and {source!r} has none; give texts=, "
                "an index or a corpus"
            )

    @property
    def texts(self) -> TextStore | None:
        """The documents' texts by id, None where no index has them."""
        return self.source.texts

    def __rshift__(self, other: Steps) -> Pipeline:
        _check_step(other)
        if not isinstance(other, Steps):
            return NotImplemented
        return Pipeline(self.source, (*self.steps, *other.steps))

    def __mod__(self, k: int) -> Pipeline:
        """Returns the pipeline that keeps the first `k` documents of each query."""
        return Pipeline(self.source, (*self.steps, Cut(k)))

    @overload
    def search(self, queries: str, k: int | None = None) -> Hits: ...  # type: ignore[overload-overlap]
    @overload
    def search(self, queries: Queries, k: int | None = None) -> Run: ...
    def search(self, queries: Queries, k: int | None = None) -> Hits | Run:
        """Returns the best documents of a query, or of each of several.

        Args:
            queries: the text of one, or several: `{id: text}`, texts, a DataFrame, a `Path`.
            k: documents of each query; 10 of a single one, else 1000.

        Returns:
            the hits of a single query, which show themselves; the run of several.

        Raises:
            RaydistError: the queries cannot be read, or a stage fails.
        """
        from raydist.records import Query

        checked = text_or_queries(queries)
        if not isinstance(checked, str):
            return self.run(checked, 1000 if k is None else k)
        run = self.run([Query("query", checked)], _SHOWN if k is None else k)
        rows = run.table
        return Hits.of(
            checked,
            rows["doc_id"].to_pylist(),
            rows["score"].to_pylist(),
            self.texts,
            self.source.analyzer,
        )

    def run(self, queries: Sequence[Query], k: int) -> Run:
        """Returns the run of queries that have been read; what a `Retriever` of raydist does."""
        from raydist.api.run import Run

        k = _number(k, "k =")
        depth = k
        for step in reversed(self.steps):
            depth = step.depth_of(depth)
        run = self.source.search(queries, depth)
        for step in self.steps:
            run = step.apply(run, queries, self.texts)
        return Run.of(run.top(k))

    def cached(self, folder: str | os.PathLike[str]) -> Pipeline:
        """Returns the pipeline whose runs are kept in a folder, by what they were made from.

        The same search is then read, and not done again: the queries, `k`, the indexes' contents,
        the models' and all settings are the same.

        Raises:
            ConfigError: a stage cannot tell its results from those of another.
        """
        return Pipeline(Cached(self, Path(folder)))

    def identity(self) -> Any:
        """Returns JSON that tells the pipeline's results from others."""
        return [self.source.identity(), *(step.identity() for step in self.steps)]

    def served(self) -> dict[str, Any]:
        """Returns the keys of `serve` whose service answers the same.

        Raises:
            ConfigError: no service does.
        """
        keys = self.source.served()
        for step in self.steps:
            more = step.served()
            if keys.keys() & more.keys():
                raise ConfigError(f"{self!r}: a service has one reranker")
            keys |= more
        return keys

    def __repr__(self) -> str:
        return f"{self.source!r}{_continued(self.steps)}"


def _joined(steps: Sequence[Step]) -> str:
    return _continued(steps).removeprefix(" >> ").strip()


def _continued(steps: Sequence[Step]) -> str:
    return "".join(f" {s!r}" if isinstance(s, Cut) else f" >> {s!r}" for s in steps)


class Foreign:
    """Any object with `search(queries, k)` as a source, such as a `BowRetriever`."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        index = getattr(retriever, "index", None)
        self.texts: TextStore | None = getattr(index, "store", None)
        self.analyzer: Analyzer | None = getattr(index, "analyzer", None)

    def search(self, queries: Sequence[Query], k: int) -> AnyRun:
        """Returns the best `k` documents of each query."""
        return self._retriever.search(queries, k)

    def identity(self) -> Any:
        """Raises ConfigError: nothing is known of it."""
        raise ConfigError(f"{self!r}: cannot tell its results from others', so they are not cached")

    def served(self) -> dict[str, Any]:
        """Raises ConfigError: a service opens folders."""
        raise ConfigError(f"{self!r}: a service searches folders; begin with rd.open(FOLDER)")

    def __repr__(self) -> str:
        return type(self._retriever).__name__


def _number(k: object, name: str) -> int:
    """Returns a number of documents, of Python or NumPy."""
    if isinstance(k, bool) or not hasattr(k, "__index__") or (number := operator.index(k)) < 1:
        raise ConfigError(f"{name} {k!r}: expected a number of documents from 1")
    return number


def _check_step(value: object) -> None:
    """Refuses what cannot follow `>>`; another library's object may know it.

    Raises:
        ConfigError: naming what makes a stage.
    """
    if not isinstance(value, Steps) and not hasattr(value, "__rrshift__"):
        name = repr(value) if isinstance(value, str) else type(value).__name__
        raise ConfigError(f">> {name}: expected a stage such as raydist.rerank(MODEL)")


def pipeline_of(value: Any) -> Pipeline:
    """Returns the pipeline of an index, of vectors, or of any object with `search`.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(value, Pipeline):
        return value
    if isinstance(pipeline := getattr(value, "pipeline", None), Pipeline):
        return pipeline
    if not isinstance(value, type) and callable(getattr(value, "search", None)):
        return Pipeline(Foreign(cast("Retriever", value)))
    name = repr(value) if isinstance(value, str | int | Steps) else type(value).__name__
    raise ConfigError(
        f"{name}: expected an index, vectors, a pipeline, or an object with search(queries, k); "
        "raydist.open(PATH) opens a folder"
    )


class Fused:
    """Several pipelines, whose runs become one."""

    def __init__(self, pipelines: Sequence[Pipeline], fusion: Any, depth: int) -> None:
        self._pipelines = pipelines
        self._fusion = fusion
        self._depth = depth
        sources = [each.source for each in pipelines]
        self.texts = next((each.texts for each in sources if each.texts is not None), None)
        self.analyzer = next((s.analyzer for s in sources if s.analyzer is not None), None)

    def search(self, queries: Sequence[Query], k: int) -> AnyRun:
        """Returns the best `k` documents of each query."""
        from raydist.dense.fusion import fuse as fuse_runs

        runs = [each.run(queries, self._depth or k) for each in self._pipelines]
        return fuse_runs(runs, k, self._fusion)

    def identity(self) -> Any:
        """Returns JSON that tells its results from others."""
        from raydist.config.base import resolved

        settings = {"fusion": resolved(self._fusion), "depth": self._depth}
        return {"fused": [each.identity() for each in self._pipelines], **settings}

    def served(self) -> dict[str, Any]:
        """Returns the keys of `serve` that answer the same."""
        from raydist.config.base import resolved

        keys = [each.served() for each in self._pipelines]
        shared: list[dict[str, Any]] = [
            {name: each[name] for name in ("scoring", "fields") if name in each}
            for each in keys
            if "scoring" in each
        ]
        if any("reranker" in each or "fusion" in each for each in keys) or self._depth:
            raise ConfigError(f"{self!r}: a service fuses indexes alone, at the depth of a request")
        if any(each != shared[0] for each in shared):
            raise ConfigError(f"{self!r}: a service has one scoring for all its indexes")
        folders = [folder for each in keys for folder in each["index"]]
        own = shared[0] if shared else {}
        return {"index": folders, **own, "fusion": resolved(self._fusion)}

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self._pipelines))
        return f"fuse({names}, method={self._fusion.kind!r})"


def fuse(*pipelines: Any, method: str = "rrf", depth: int = 0, **options: Any) -> Pipeline:
    """Returns the pipeline that fuses the rankings of several.

    >>> import raydist as rd
    >>> index = rd.index([{"id": "1", "text": "heron fish"}, {"id": "2", "text": "boat"}], "idx")
    >>> hybrid = rd.fuse(index.bm25(), index.ql(), method="interpolate", weights=[0.7, 0.3])
    >>> [hit.id for hit in hybrid.search("heron")]
    ['1']

    Args:
        pipelines: indexes, vectors, pipelines, or objects with `search(queries, k)`.
        method: `rrf`, by ranks, or `interpolate`, by scores.
        depth: documents of each pipeline and query; 0 is as many as are asked for.
        options: the other keys of `search fusion.…`: `constant`, `weights`, `normalize`.

    Raises:
        ConfigError: as `raydist search` does.
    """
    from raydist.config.load import load
    from raydist.config.search import SearchConfig

    parts = [pipeline_of(each) for each in pipelines]
    keys: Mapping[str, Any] = {
        "index": [repr(each) for each in parts],
        "fusion": {"kind": method, **options},
        "depth": depth,
    }
    config = load(SearchConfig, [keys])
    return Pipeline(Fused(parts, config.fusion, config.depth))


class Cached:
    """A pipeline whose runs are kept in a folder."""

    def __init__(self, pipeline: Pipeline, folder: Path) -> None:
        pipeline.identity()  # raises where there is none
        self._pipeline = pipeline
        self._folder = folder
        self.texts = pipeline.texts
        self.analyzer = pipeline.source.analyzer

    def search(self, queries: Sequence[Query], k: int) -> AnyRun:
        """Returns the best `k` documents of each query, read where they were searched before."""
        from raydist.api.run import read_run
        from raydist.disk import disk_errors
        from raydist.fingerprints import value_fingerprint

        texts = [[query.query_id, query.text] for query in queries]
        path = self._folder / f"{value_fingerprint([self.identity(), texts, k])}.parquet"
        if path.is_file():
            return read_run(path)
        run = self._pipeline.run(queries, k)
        with disk_errors(self._folder):
            run.write(path)
        return run

    def identity(self) -> Any:
        """Returns JSON that tells its results from others."""
        return self._pipeline.identity()

    def served(self) -> dict[str, Any]:
        """Returns the keys of `serve` that answer the same."""
        return self._pipeline.served()

    def __repr__(self) -> str:
        return f"({self._pipeline!r}).cached({str(self._folder)!r})"


def searched(system: Any, queries: Queries, k: int) -> Run:
    """Returns the run of a system for queries that may not have been read yet."""
    return pipeline_of(system).run(queries_of(queries), k)
