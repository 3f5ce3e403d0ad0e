"""A benchmark from Python: systems on collections, as `raydist benchmark` runs them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.api import command, frames
from raydist.api.collection import Collection
from raydist.api.command import Files
from raydist.api.display import html_table
from raydist.errors import NotFoundError

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

    from raydist.evaluation.suite import Suite

_SHOWN = ("collection", "measure", "system", "mean", "low", "high", "difference", "p_corrected")


class Benchmark:
    """The results of systems on collections; it shows itself as the table of the verb.

    >>> import raydist as rd
    >>> mine = {"corpus": {"1": "A heron.", "2": "A boat."}, "queries": {"q": "boats"},
    ...         "qrels": {"q": {"2": 1}}}
    >>> result = rd.benchmark({"mine": mine}, {"bm25": {}}, "bench", measures=["RR"],
    ...                       tracking="none")
    >>> list(result.to_pandas()["system"])
    ['bm25']

    Attributes:
        path: the folder of rankings and reports.
        suite: the results, as the library has them.
    """

    def __init__(self, path: str, suite: Suite) -> None:
        self.path = path
        self.suite = suite

    def __getitem__(self, key: tuple[str, str, str]) -> float:
        """Returns a mean: `result["nfcorpus", "bm25", "nDCG@10"]`.

        Raises:
            NotFoundError: there is no such collection, system or measure; it is a KeyError, too.
        """
        means = {
            (name, row.run, row.measure): row.mean
            for name, rows in self.suite.sections.items()
            for row in rows
        }
        if key not in means:
            raise NotFoundError(
                f"{key!r}: expected a collection, a system and a measure: "
                f"{', '.join(self.suite.sections)}; {', '.join(self.suite.systems)}; "
                f"{', '.join(self.suite.measures)}"
            )
        return means[key]

    def __fspath__(self) -> str:
        return self.path

    @property
    def notes(self) -> list[str]:
        """Sentences that say which intervals and tests these are."""
        return self.suite.notes

    def to_arrow(self) -> pa.Table:
        """Returns a row for each collection, measure and system."""
        return self.suite.to_arrow()

    def to_pandas(self) -> pandas.DataFrame:
        """Returns the table as a DataFrame of pandas."""
        return frames.to_pandas(self.to_arrow())

    def to_polars(self) -> Any:
        """Returns the table as a DataFrame of Polars."""
        return frames.to_polars(self.to_arrow())

    def report(self) -> str:
        """Returns the page with bars and intervals, as HTML."""
        return Path(self.path, "report.html").read_text(encoding="utf-8")

    def __repr__(self) -> str:
        from raydist.evaluation.suite import render_suite

        return "\n".join([render_suite(self.suite), *self.notes])

    def _repr_html_(self) -> str:
        from html import escape

        table = self.to_arrow().select(_SHOWN)
        rows = [list(row.values()) for row in table.to_pylist()]
        notes = "".join(f"<div><small>{escape(note)}</small></div>" for note in self.notes)
        return html_table(table.column_names, rows) + notes


def benchmark(
    collections: Mapping[str, Any] | None = None,
    systems: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    config: Files = (),
    **keys: Any,
) -> Benchmark:
    """Runs systems on collections and compares them; finished cells are not run again.

    >>> import raydist as rd
    >>> mine = {"corpus": {"1": "A heron.", "2": "A boat."}, "queries": {"q": "boats"},
    ...         "qrels": {"q": {"2": 1}}}
    >>> systems = {"bm25": {}, "ql": {"search": {"scoring": "ql"}}}
    >>> result = rd.benchmark({"mine": mine}, systems, "bench", measures=["RR"], tracking="none")
    >>> result["mine", "ql", "RR"]
    1.0

    Args:
        collections: by name, a folder as BEIR's, what `rd.collection` opened, or a mapping with
            `corpus`, `queries` and `qrels`, each a path or an object.
        systems: by name, what to index, embed, search and rerank, by the keys of those verbs.
        out: the folder to write.
        config: YAML files.
        keys: the other keys of `raydist benchmark`, such as `measures=` or `baseline=`.

    Raises:
        RaydistError: as the verb does.
    """
    suites: list[Suite] = []
    if isinstance(collections, Mapping):
        collections = {name: _parts(each) for name, each in collections.items()}
    given = {"collections": collections, "systems": systems, "out": out, **keys}
    checked = command.run("benchmark", given, config, show=suites.append)
    return Benchmark(command.place_of(checked), suites[0])


def _parts(collection: Any) -> Any:
    """Returns the parts of an opened collection as the verb's keys, anything else as it is."""
    if not isinstance(collection, Collection):
        return collection
    return dict(zip(("corpus", "queries", "qrels"), collection))
