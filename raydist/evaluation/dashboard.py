"""What an evaluation shows: figures in a folder, and all of it in a run's record."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydist.evaluation import figures
from raydist.evaluation.measures import Evaluation
from raydist.evaluation.mirror import Mirror
from raydist.evaluation.report import Report, per_query, render, report
from raydist.records import Qrels, Run

_LONGEST_TAG = 5000
_REPORT = "report.md"
_ROWS = 50  # of a table of the hardest queries, and of one of those that changed


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs and their evaluations by name, the judgements, and how the evaluations compare."""

    runs: Mapping[str, Run]
    qrels: Qrels
    evaluations: Mapping[str, Evaluation]
    report: Report

    def per_query(self) -> Any:
        """Returns an Arrow table of the values per query and their differences to the baseline."""
        return per_query(self.evaluations, self.report.baseline)


def draw(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes the figures of an evaluation into a folder and returns their paths.

    Args:
        comparison: without a baseline only the figures of single runs are drawn.
        folder: created if missing.
    """
    evaluations, table = comparison.evaluations, comparison.report
    runs, qrels = comparison.runs, comparison.qrels
    measures = next(iter(evaluations.values())).measures
    pictures = {
        "box": figures.box_plot(
            {m: {r: e.of(m) for r, e in evaluations.items()} for m in measures}
        ),
        "recall_precision": figures.recall_precision(
            {name: figures.recall_precision_values(run, qrels) for name, run in runs.items()}
        ),
        "scores": figures.score_histogram(
            {name: figures.split_scores(run, qrels) for name, run in runs.items()}
        ),
    }
    compared = [row for row in table.rows if row.paired is not None]
    if table.baseline is not None and compared:
        pairs = {m: {r.run: r.paired for r in compared if r.measure == m} for m in measures}
        p = {m: {r.run: r.p for r in compared if r.measure == m} for m in measures}
        pictures["wins"] = figures.wins_and_losses(pairs, p, table.baseline)  # type: ignore[arg-type]
        reference = evaluations[table.baseline]
        for name, evaluation in evaluations.items():
            if name != table.baseline:
                by_measure = {m: evaluation.of(m) - reference.of(m) for m in measures}
                picture = figures.differences(by_measure, name, table.baseline)
                pictures[f"differences_{_file(name)}"] = picture
    return [figures.save(figure, folder / f"{name}.png") for name, figure in pictures.items()]


def record_report(mirror: Mirror, comparison: Comparison) -> None:
    """Records a whole report: figures, the table and the values per query."""
    notes = "; ".join(comparison.report.notes)
    mirror.tags({"raydist.notes": notes})
    _describe(mirror, f"{render(comparison.report, 'markdown')}\n\n{notes}")
    _record(mirror, comparison, mirror.folder)


def record_evaluation(
    mirror: Mirror, name: str, evaluation: Evaluation, path: str, table: Report
) -> None:
    """Records one run: its measures with their intervals, its differences, its file."""
    values: dict[str, float] = {}
    for row in table.rows:
        if row.run != name:
            continue
        values[row.measure] = row.mean
        ends = {"low": row.interval.low, "high": row.interval.high}
        values |= {f"{row.measure}/{k}": end for k, end in ends.items() if math.isfinite(end)}
        if row.paired is not None and row.p is not None:
            values[f"{row.measure}/difference"] = row.paired.difference
            values[f"{row.measure}/p_corrected"] = row.p
    mirror.metrics(0, values)
    mirror.tags({"run_file": path, "baseline": table.baseline or ""})
    if Path(path).is_file():
        mirror.artifact(path, "run")
    queries = per_query({name: evaluation})
    hardest = queries.sort_by([(evaluation.measures[0], "ascending")]).drop_columns("run")
    mirror.table(_columns(hardest), f"per_query_{_file(name)}.json")


def record_queries(
    mirror: Mirror, id: str, values: Any, before: Any, measure: str, texts: Mapping[str, str]
) -> None:
    """Records the hardest queries of a validation, and those that changed since the one before.

    Args:
        mirror: the training run's record.
        id: the listener.
        values: table of its values per query, from `Evaluation.table`.
        before: the same of the validation before; None for the first.
        measure: orders the queries.
        texts: of the queries, by their ids.
    """
    import pyarrow.compute as pc

    queries = [texts.get(query, "") for query in values["query_id"].to_pylist()]
    values = values.add_column(1, "query", [queries])
    hardest = values.take(pc.sort_indices(values, [(measure, "ascending")])[:_ROWS])
    mirror.table(_columns(hardest), f"validation/{id}/hardest.json")
    if before is None:
        return
    earlier = before.select(["query_id", measure]).rename_columns(["query_id", "before"])
    joined = values.select(["query_id", "query", measure]).join(
        earlier, "query_id", join_type="inner"
    )
    change = pc.subtract(joined[measure], joined["before"])
    joined = joined.append_column("change", change).append_column("_size", pc.abs(change))
    joined = joined.filter(pc.greater(joined["_size"], 0))
    order = [("_size", "descending"), ("change", "ascending"), ("query_id", "ascending")]
    changed = joined.take(pc.sort_indices(joined, order)[:_ROWS])
    columns = ["query_id", "query", "before", measure, "change"]
    mirror.table(_columns(changed.select(columns)), f"validation/{id}/changed.json")


def record_validation(
    mirror: Mirror,
    id: str,
    evaluations: Mapping[str, Evaluation],
    runs: Mapping[str, Run],
    qrels: Qrels,
    folder: Path,
) -> None:
    """Records how a listener's evaluations compare: figures, values per query, run files.

    Args:
        mirror: the training run's record.
        id: the listener.
        evaluations: by name, such as `start`, `best` and `end`; the first is the baseline.
        runs: their runs.
        qrels: the listener's judgements.
        folder: where the figures are written.
    """
    baseline = next(iter(evaluations))
    table = report(evaluations, baseline=baseline if len(evaluations) > 1 else None)
    within = f"validation/{id}"
    for name, run in runs.items():
        path = folder / "runs" / f"{_file(name)}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        run.write(path)
        mirror.artifact(path, f"{within}/runs")
    _record(mirror, Comparison(runs, qrels, evaluations, table), folder, within)
    reports = sorted(folder.parent.glob(f"*/{_REPORT}"))  # of all listeners, as far as they are
    _describe(
        mirror,
        "\n".join(
            f"### {each.parent.name}\n\n{each.read_text(encoding='utf-8')}" for each in reports
        ),
    )


def _describe(mirror: Mirror, text: str) -> None:
    """Makes a text the description on the run's page, unless MLflow would cut it."""
    if len(text) <= _LONGEST_TAG:
        mirror.tags({"mlflow.note.content": text})


def _record(mirror: Mirror, comparison: Comparison, folder: Path, within: str = "") -> None:
    """Writes figures and table to `folder`, and records them and the values per query."""
    draw(comparison, folder / "figures")
    mirror.artifact(folder / "figures", f"{within}/figures".lstrip("/"))
    text = folder / _REPORT
    text.write_text(render(comparison.report, "markdown") + "\n", encoding="utf-8")
    mirror.artifact(text, within)
    baseline = comparison.report.baseline
    values = per_query(_baseline_last(comparison.evaluations, baseline), baseline)
    mirror.table(_columns(values), f"{within}/per_query.json".lstrip("/"))


def _columns(table: Any) -> dict[str, Sequence[Any]]:
    """Returns columns for a page, numbers rounded to 5 digits."""
    return {
        name: [round(v, 5) if isinstance(v, float) else v for v in table[name].to_pylist()]
        for name in table.column_names
    }


def _baseline_last(
    evaluations: Mapping[str, Evaluation], baseline: str | None
) -> dict[str, Evaluation]:
    """Puts the baseline last: its differences to itself are no way to begin a table."""
    return dict(sorted(evaluations.items(), key=lambda item: item[0] == baseline))


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or "run"
