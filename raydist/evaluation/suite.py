"""The results of systems on several collections: one table, as text, CSV and JSON.

Each collection is measured and tested by itself, on its own queries. With several there is an
average over them, each counting alike, whose differences are not tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raydist.evaluation.measures import Evaluation, is_sum
from raydist.evaluation.report import NONE, Format, Report, Row, cells, columns, lay_out, report
from raydist.evaluation.significance import holm
from raydist.evaluation.spec import Statistics

AVERAGE = "average"
"""What the rows over all collections have in place of a collection's name."""


@dataclass(frozen=True, slots=True)
class Suite:
    """The reports of the collections by name, and the system that the others are tested against."""

    reports: Mapping[str, Report]
    baseline: str

    @property
    def measures(self) -> list[str]:
        """The measures, in order."""
        return list(
            dict.fromkeys(row.measure for each in self.reports.values() for row in each.rows)
        )

    @property
    def systems(self) -> list[str]:
        """The systems, in order."""
        return list(dict.fromkeys(row.run for each in self.reports.values() for row in each.rows))

    @property
    def averages(self) -> list[Row]:
        """The means over the collections, measure by measure; none of a single collection."""
        if len(self.reports) < 2:
            return []
        means: dict[tuple[str, str], list[float]] = {}
        for each in self.reports.values():
            for row in each.rows:
                means.setdefault((row.measure, row.run), []).append(row.mean)
        return [
            Row(measure, system, math.fsum(values) / len(values), NONE)
            for (measure, system), values in means.items()
            if not is_sum(measure)
        ]

    @property
    def sections(self) -> dict[str, Sequence[Row]]:
        """The rows by collection, those of the average last."""
        rows: dict[str, Sequence[Row]] = {name: each.rows for name, each in self.reports.items()}
        return {**rows, AVERAGE: averages} if (averages := self.averages) else rows

    @property
    def notes(self) -> list[str]:
        """Sentences that say which intervals and tests these are."""
        several = len(self.reports) > 1
        lines = [
            f"{name}: {note}" if several else note
            for name, each in self.reports.items()
            for note in each.notes
        ]
        if several:
            lines.append(f"{AVERAGE}: over the collections, each of which counts alike; not tested")
        return [*lines, f"baseline: {self.baseline}"] if len(self.systems) > 1 else lines

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        reports = {name: each.to_dict() for name, each in self.reports.items()}
        averages = [{"measure": r.measure, "run": r.run, "mean": r.mean} for r in self.averages]
        return {"baseline": self.baseline, "collections": reports, "average": averages}

    def to_arrow(self) -> Any:
        """Returns an Arrow table with a row for each collection, measure and system."""
        import pyarrow as pa

        rows = []
        for collection, each in self.reports.items():
            for row in each.to_dict()["rows"]:
                row["system"] = row.pop("run")
                rows.append({"collection": collection, "queries": each.queries, **row})
        for average in self.averages:
            rows.append(
                {
                    "collection": AVERAGE,
                    "measure": average.measure,
                    "system": average.run,
                    "mean": average.mean,
                }
            )
        return pa.Table.from_pylist(rows, schema=_schema())


def _schema() -> Any:
    import pyarrow as pa

    words = ["collection", "measure", "system"]
    numbers = ["mean", "low", "high", "difference", "p", "p_corrected"]
    counts = ["wins", "ties", "losses"]
    return pa.schema(
        [
            *((name, pa.string()) for name in words),
            ("queries", pa.int64()),
            *((name, pa.float64()) for name in numbers),
            *((name, pa.int64()) for name in counts),
            ("test", pa.string()),
        ]
    )


def compare_systems(
    evaluations: Mapping[str, Mapping[str, Evaluation]], statistics: Statistics, baseline: str
) -> Suite:
    """Compares systems with a baseline, collection by collection.

    Args:
        evaluations: collection -> system -> its evaluation, by the same measures.
        statistics: intervals and tests; a `family` of all spans all collections.
        baseline: a system.
    """
    reports = {
        name: report(each, statistics, baseline=baseline if len(each) > 1 else None)
        for name, each in evaluations.items()
    }
    if statistics.family == "all":
        reports = _corrected(reports)
    return Suite(reports, baseline)


def _corrected(reports: Mapping[str, Report]) -> dict[str, Report]:
    """Corrects all comparisons of all collections together."""
    tested = [row.paired.p for each in reports.values() for row in each.rows if row.paired]
    p_values = iter(holm(tested))
    return {
        name: replace(
            each,
            rows=tuple(replace(row, p=next(p_values)) if row.paired else row for row in each.rows),
        )
        for name, each in reports.items()
    }


def render_suite(suite: Suite, format: Format = "table") -> str:
    """Returns the table as text, without a newline at its end."""
    tested = any(row.paired for rows in suite.sections.values() for row in rows)
    lines = [
        [name, *cells(row, 2, tested)] for name, rows in suite.sections.items() for row in rows
    ]
    return lay_out(["collection", "measure", "system", *columns(tested)], lines, 3, format)
