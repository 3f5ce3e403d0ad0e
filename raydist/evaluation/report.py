"""The results of several runs side by side: means, intervals, tests against a baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from raydist.disk import atomic
from raydist.evaluation.measures import Evaluation, is_sum
from raydist.evaluation.significance import Interval, PairedTest, compare, holm, interval
from raydist.evaluation.spec import Statistics
from raydist.log import count

Format = Literal["table", "markdown", "tsv", "json"]
NONE = Interval(float("nan"), float("nan"), "none")
"""Of what has no interval."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run's result by one measure; the last two are None for the baseline or without one.

    A measure that is added up over the queries has its sum for `mean`, and no interval.
    """

    measure: str
    run: str
    mean: float
    interval: Interval
    paired: PairedTest | None = None
    p: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The rows, measure by measure; the notes say which intervals and tests these are."""

    rows: tuple[Row, ...]
    baseline: str | None
    queries: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        rows = []
        for row in self.rows:
            record: dict[str, Any] = {"measure": row.measure, "run": row.run, "mean": row.mean}
            record |= {"low": _number(row.interval.low), "high": _number(row.interval.high)}
            if row.paired is not None:
                paired = row.paired
                record |= {"difference": paired.difference, "p": _number(paired.p)}
                record |= {"p_corrected": _number(row.p), "test": paired.test}
                record |= {"wins": paired.wins, "ties": paired.ties, "losses": paired.losses}
            rows.append(record)
        notes = list(self.notes)
        return {"baseline": self.baseline, "queries": self.queries, "rows": rows, "notes": notes}


def report(
    evaluations: Mapping[str, Evaluation],
    statistics: Statistics = Statistics(),  # noqa: B008  frozen
    *,
    baseline: str | None = None,
) -> Report:
    """Compares evaluations by the same qrels and measures.

    Args:
        evaluations: by the runs' names.
        statistics: confidence intervals and tests.
        baseline: the run that the others are tested against; None for no tests.
    """
    first = next(iter(evaluations.values()))
    rows: list[Row] = []
    sums = [measure for measure in first.measures if is_sum(measure)]
    for measure in first.measures:
        for run, evaluation in evaluations.items():
            values = evaluation.of(measure)
            spread = NONE
            if measure not in sums:
                spread = interval(values, statistics)
            paired = None
            if baseline is not None and run != baseline:
                reference = evaluations[baseline].of(measure)
                paired = compare(values, reference, statistics)
            rows.append(Row(measure, run, evaluation.means[measure], spread, paired))
    families: dict[str, dict[int, float]] = {}  # row -> p
    for i, row in enumerate(rows):
        if row.paired is not None:
            name = row.measure if statistics.family == "measure" else ""
            families.setdefault(name, {})[i] = row.paired.p
    for p_values in families.values():
        for i, p in zip(p_values, holm(list(p_values.values()))):
            rows[i] = replace(rows[i], p=p)
    notes = []
    intervals = next((row.interval.method for row in rows if row.measure not in sums), None)
    if intervals is not None:
        notes.append(
            f"intervals of the mean over {count(len(first.query_ids), 'query')}: {intervals}"
        )
    if sums:
        notes.append(
            f"{', '.join(sums)}: the sum over the queries, without an interval"
            + (", and the mean difference" if baseline is not None else "")
        )
    tests = {row.paired.test for row in rows if row.paired is not None}
    if tests:
        over = "the runs of each measure" if statistics.family == "measure" else "all comparisons"
        notes.append(f"p: {', '.join(sorted(tests))}, two-sided, corrected by Holm over {over}")
    return Report(tuple(rows), baseline, len(first.query_ids), tuple(notes))


def per_query(evaluations: Mapping[str, Evaluation], baseline: str | None = None) -> Any:
    """Returns an Arrow table: run, query_id, a column per measure.

    With a baseline, a column `MEASURE - BASELINE` has each measure's difference to it.
    """
    import pyarrow as pa

    parts = []
    for run, evaluation in evaluations.items():
        table = evaluation.table()
        table = table.add_column(0, "run", pa.array([run] * table.num_rows, pa.string()))
        if baseline is not None:
            for measure in evaluation.measures:
                difference = evaluation.of(measure) - evaluations[baseline].of(measure)
                table = table.append_column(f"{measure} - {baseline}", pa.array(difference))
        parts.append(table)
    return pa.concat_tables(parts)


def write_table(table: Any, path: Path) -> None:
    """Writes an Arrow table as `.parquet`, `.csv` or tab-separated, by the file's name."""
    with atomic(path) as partial:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            pq.write_table(table, partial)
        else:
            from pyarrow import csv

            mark, quotes = (",", "needed") if path.suffix == ".csv" else ("\t", "none")
            options = csv.WriteOptions(delimiter=mark, quoting_style=quotes, quoting_header=quotes)
            csv.write_csv(table, partial, options)


def render(report: Report, format: Format = "table") -> str:
    """Returns the report as text, without a newline at its end."""
    if format == "json":
        return json.dumps(report.to_dict(), indent=1)
    tested = any(row.paired is not None for row in report.rows)
    names = ["measure", "run"] if len({row.run for row in report.rows}) > 1 else ["measure"]
    digits = 4 if format != "tsv" else 17
    lines = [cells(row, len(names), tested, digits) for row in report.rows]
    return lay_out([*names, *columns(tested)], lines, len(names), format)


def columns(tested: bool) -> list[str]:
    """Returns the names of the columns of numbers, with those of the tests if there are any."""
    tests = ["difference", "p", "p corrected", "better", "equal", "worse"]
    return ["mean", "low", "high", *(tests if tested else [])]


def lay_out(
    header: Sequence[str], lines: Sequence[Sequence[str]], names: int, format: Format = "table"
) -> str:
    """Returns lines of cells as text; the first `names` columns are words, the others numbers."""
    if format == "tsv":
        return "\n".join("\t".join(line) for line in [header, *lines])
    if format == "markdown":
        rule = ["---"] * names + ["---:"] * (len(header) - names)
        return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines])
    return "\n".join(_aligned([header, *lines], names))


def cells(row: Row, names: int, tested: bool, digits: int = 4) -> list[str]:
    """Returns the cells of a row: the measure, the run if `names` is 2, and the numbers."""

    def number(value: float | None, sign: str = "") -> str:
        if value is None or value != value:
            return "-"
        return f"{value:{sign}.{digits}f}" if digits < 10 else repr(float(value))

    def probability(p: float | None) -> str:
        small = p is not None and p < 5e-5 and digits < 10
        return f"{p:.0e}" if small else number(p)

    texts = [*[row.measure, row.run][:names], number(row.mean)]
    texts += [number(row.interval.low), number(row.interval.high)]
    if not tested:
        return texts
    if row.paired is None:
        return texts + ["-"] * 6
    paired = row.paired
    texts += [number(paired.difference, "+"), probability(paired.p), probability(row.p)]
    return [*texts, str(paired.wins), str(paired.ties), str(paired.losses)]


def _aligned(lines: Sequence[Sequence[str]], names: int) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < names else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    ]


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else value
