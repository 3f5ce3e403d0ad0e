"""Systems measured side by side: means, intervals, tests against the first one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raydist.api import command, frames
from raydist.api.command import Files
from raydist.api.display import html_table
from raydist.api.inputs import queries_of
from raydist.api.stages import pipeline_of
from raydist.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa
    from matplotlib.figure import Figure

    from raydist.api.inputs import Queries
    from raydist.evaluation.dashboard import Comparison as Measured

_RELATIVE = ("difference", "p", "p_corrected", "wins", "ties", "losses")


class Comparison:
    """How runs compare by some measures; it shows itself as the table of `raydist evaluate`.

    >>> import raydist as rd
    >>> runs = {"a": {"q1": {"d1": 2.0, "d2": 1.0}}, "b": {"q1": {"d1": 1.0, "d2": 2.0}}}
    >>> result = rd.compare(runs, qrels={"q1": {"d1": 1}}, measures=["RR"], tracking="none")
    >>> result["b", "RR"]
    0.5
    >>> list(result.to_pandas()["run"])
    ['a', 'b']

    Attributes:
        measured: the runs, their values per query, and the report, as the library has them.
    """

    def __init__(self, measured: Measured) -> None:
        self.measured = measured

    def __getitem__(self, key: tuple[str, str]) -> float:
        """Returns the mean of a run by a measure: `result["bm25", "nDCG@10"]`.

        Raises:
            NotFoundError: there is no such run or measure; it is a KeyError, too.
        """
        if not isinstance(key, tuple) or len(key) != 2:
            raise NotFoundError(f"{key!r}: expected a run and a measure: result[RUN, MEASURE]")
        values: Any = {name: e.means for name, e in self.measured.evaluations.items()}
        for name, what in zip(key, ("run", "measure")):
            if name not in values:
                raise NotFoundError(f"{what} {name!r}: expected one of {', '.join(values)}")
            values = values[name]
        return float(values)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that say which intervals and tests these are."""
        return self.measured.report.notes

    def to_arrow(self) -> pa.Table:
        """Returns a row for each measure and run: mean, low, high, and the tests' results."""
        import pyarrow as pa

        rows = self.measured.report.to_dict()["rows"]
        names = ["measure", "run", "mean", "low", "high"]
        names += [name for name in _RELATIVE if any(name in row for row in rows)]
        kinds = {"measure": pa.string(), "run": pa.string()}
        kinds |= dict.fromkeys(("wins", "ties", "losses"), pa.int64())
        fields = pa.schema([(name, kinds.get(name, pa.float64())) for name in names])
        return pa.table([[row.get(name) for row in rows] for name in names], schema=fields)

    def to_pandas(self) -> pandas.DataFrame:
        """Returns the table as a DataFrame of pandas."""
        return frames.to_pandas(self.to_arrow())

    def to_polars(self) -> Any:
        """Returns the table as a DataFrame of Polars."""
        return frames.to_polars(self.to_arrow())

    def per_query(self) -> pandas.DataFrame:
        """Returns a DataFrame of pandas: run, query_id, a column for each measure.

        With a baseline, a column `MEASURE - BASELINE` has each difference to it.
        """
        return frames.to_pandas(self.measured.per_query())

    @command.spoken_errors("figure()")
    def figure(self, measure: str | None = None) -> Figure:
        """Returns a figure of matplotlib: the values per query of each run, as boxes.

        Args:
            measure: one of the measures; all of them if None.

        Raises:
            ConfigError: there is no such measure.
        """
        from raydist.evaluation.figures import box_plot

        evaluations = self.measured.evaluations
        measures = next(iter(evaluations.values())).measures
        if measure is not None and measure not in measures:
            raise ConfigError(f"measure = {measure!r}: expected one of {', '.join(measures)}")
        chosen = measures if measure is None else [measure]
        return box_plot(
            {each: {run: e.of(each) for run, e in evaluations.items()} for each in chosen}
        )

    def __repr__(self) -> str:
        from raydist.evaluation.report import render

        return "\n".join([render(self.measured.report), *self.notes])

    def _repr_html_(self) -> str:
        from html import escape

        table = self.to_arrow()
        rows = [list(row.values()) for row in table.to_pylist()]
        notes = "".join(f"<div><small>{escape(note)}</small></div>" for note in self.notes)
        return html_table(table.column_names, rows) + notes


def compare(
    systems: Mapping[str, Any],
    queries: Queries | None = None,
    qrels: Any = None,
    measures: Sequence[str] = ("nDCG@10", "AP", "R@1000"),
    *,
    k: int = 1000,
    baseline: str | None = None,
    **keys: Any,
) -> Comparison:
    """Measures systems on the same queries, and tests them against the first one.

    >>> import raydist as rd
    >>> index = rd.index({"1": "A heron eats fish.", "2": "A boat for fish and fish."}, "idx")
    >>> systems = {"bm25": index.bm25(), "ql": index.ql()}
    >>> result = rd.compare(systems, {"q1": "fish"}, {"q1": {"2": 1}}, ["RR"], tracking="none")
    >>> result["ql", "RR"]
    1.0

    Args:
        systems: pipelines, indexes, vectors, runs, or the files of runs, by name.
        queries: what pipelines search, of which those that are judged; not needed for runs.
        qrels: judgements: a path, `{query: {document: grade}}`, rows, a DataFrame.
        measures: by their names in ir-measures or trec_eval.
        k: documents of each query that pipelines return.
        baseline: the system that the others are tested against; the first one if None.
        keys: the other keys of `raydist evaluate`, such as `tracking="none"` or `test=`.

    Raises:
        ConfigError: a system is no run and there are no queries, or as `raydist evaluate` does.
        DataError: runs, queries or judgements cannot be read.
    """
    if not isinstance(systems, Mapping) or not systems:
        raise ConfigError("systems: expected a mapping from names to runs or pipelines")
    if qrels is None:
        raise ConfigError("qrels: required")
    names = [str(name) for name in systems]
    if baseline is not None and baseline not in names:
        raise ConfigError(f"baseline = {baseline!r}: expected one of {', '.join(names)}")
    runs = _runs(systems, queries, qrels, k)
    return _measured(runs, names, qrels, measures, baseline or names[0], keys)


def _runs(systems: Mapping[str, Any], queries: Any, qrels: Any, k: int) -> list[Any]:
    """Returns a run, or the file of one, for each system."""
    from raydist.api.run import Run
    from raydist.records import Run as AnyRun

    pipelines = {
        name: pipeline_of(system)
        for name, system in systems.items()
        if not isinstance(system, AnyRun | str | os.PathLike | Mapping)
        or hasattr(system, "pipeline")
    }
    if pipelines and queries is None:
        raise ConfigError(f"queries: required, since {next(iter(pipelines))!r} is no run")
    runs: dict[str, Run] = {}
    if pipelines:
        texts = queries_of(queries)
        judged = {str(query) for query in qrels} if _by_query(qrels) else _judged(qrels)
        texts = [query for query in texts if query.query_id in judged] or texts
        runs = {name: pipeline.run(texts, k) for name, pipeline in pipelines.items()}
    return [runs.get(name, system) for name, system in systems.items()]


def _by_query(qrels: Any) -> bool:
    return isinstance(qrels, Mapping) and not {"path", "kind"} & qrels.keys()


def _judged(qrels: Any) -> set[str]:
    """Returns the queries that are judged."""
    from raydist.api.spool import Spool
    from raydist.config.evaluate import EvaluateConfig
    from raydist.config.load import load
    from raydist.data.readers import read_qrels

    with command.spoken_errors(), Spool() as spool:
        config = load(EvaluateConfig, [{"run": ["-"], **spool.plain({"qrels": qrels})}])
        return set(read_qrels(config.qrels))


def evaluate(run: Any = None, qrels: Any = None, *, config: Files = (), **keys: Any) -> Comparison:
    """Measures runs against judgements, as `raydist evaluate` does, without printing the table.

    >>> import raydist as rd
    >>> result = rd.evaluate({"q1": {"d1": 2.0}}, {"q1": {"d1": 1}}, measures=["RR"],
    ...                      tracking="none")
    >>> result["run", "RR"]
    1.0

    Args:
        run: a run, `{query: {document: score}}`, a DataFrame, a path, or a list of runs or paths.
        qrels: judgements: a path, `{query: {document: grade}}`, rows, a DataFrame.
        config: YAML files.
        keys: the other keys of `raydist evaluate`, such as `measures=` or `out=`.

    Raises:
        RaydistError: as the verb does.
    """
    results: list[Comparison] = []

    def keep(measured: Measured) -> None:
        results.append(Comparison(measured))

    if "measures" in keys:
        keys["measures"] = _names(keys["measures"])
    command.run("evaluate", {"run": run, "qrels": qrels, **keys}, config, show=keep)
    return results[0]


def _measured(
    runs: Sequence[Any],
    names: Sequence[str],
    qrels: Any,
    measures: Sequence[str],
    baseline: str,
    keys: Mapping[str, Any],
) -> Comparison:
    from raydist.api.spool import Spool

    results: list[Comparison] = []

    def keep(measured: Measured) -> None:
        results.append(Comparison(measured))

    with command.spoken_errors(), Spool() as spool:
        files = [
            os.fspath(each)
            if isinstance(each, str | os.PathLike)
            else spool.file(each, "run", f"{number}.{name}")
            for number, (name, each) in enumerate(zip(names, runs))
        ]
        reference = files[names.index(baseline)] if len(files) > 1 else None
        values = {"run": files, "qrels": qrels, "measures": _names(measures), "baseline": reference}
        command.run("evaluate", {**values, **keys}, show=keep, labels=names)
    return results[0]


def _names(measures: Sequence[str]) -> list[str]:
    return [measures] if isinstance(measures, str) else list(measures)
