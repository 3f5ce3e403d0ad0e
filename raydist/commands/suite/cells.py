"""Running a cell: its builds, its ranking, the values of its queries, its record."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from raydist import log
from raydist.cli import execute
from raydist.commands.suite.plan import RECORD, VALUES, Cell, Judged, Step, is_built
from raydist.config.base import Flags
from raydist.config.benchmark import BenchmarkConfig
from raydist.config.record import parameters
from raydist.disk import atomic, remove, write_json
from raydist.errors import ArtifactError, DataError, JobError
from raydist.evaluation.measures import Evaluation

if TYPE_CHECKING:
    from raydist.evaluation.tracking import Tracker


def write_queries(data: Judged) -> None:
    """Writes the judged queries, from which cells search."""
    lines = [json.dumps({"id": q.query_id, "text": q.text}) for q in data.queries]
    text = "".join(f"{line}\n" for line in lines)
    data.file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(data.file) as partial:
        partial.write_text(text, encoding="utf-8")


def run_cell(
    cell: Cell, data: Judged, config: BenchmarkConfig, parent: Tracker | None
) -> Evaluation:
    """Does what there is to do for a cell; returns the values of its queries.

    Args:
        cell: one that is not done.
        data: its collection.
        config: of the benchmark.
        parent: the run in MLflow that the cell's is below.
    """
    state = cell.state
    if state == "run" and cell.record.get("ranked") != cell.ranked and cell.folder.exists():
        remove(cell.folder)  # of a system or a collection that was another
    cell.folder.mkdir(parents=True, exist_ok=True)
    record = cell.record if state == "measure" else {"ranked": cell.ranked, "finished": False}
    write_json(cell.folder / RECORD, record)
    tracker = _start_tracking(cell, config, parent)
    status = "FAILED"
    try:
        started = time.monotonic()
        if state == "run":
            for step in cell.builds:
                if not is_built(step):
                    _execute(step)
            started = time.monotonic()
            for step in cell.steps:
                _execute(step)
        seconds = record.get("seconds", time.monotonic() - started)
        evaluation = _measure(cell, data, config)
        done = {"finished": True, "measured": cell.measured, "seconds": seconds}
        write_json(cell.folder / RECORD, {**record, **done, "means": evaluation.means})
        if tracker is not None:
            _track(tracker, cell, config, evaluation)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if tracker is not None:
            tracker.close(status)
    means = ", ".join(f"{name} {mean:.4f}" for name, mean in evaluation.means.items())
    log.say(f"{cell.name}: {means}")
    return evaluation


def _execute(step: Step) -> None:
    verb, config = step
    code = execute(importlib.import_module(f"raydist.commands.{verb}"), config, Flags(resume=True))
    if code:
        raise JobError(f"raydist {verb}: failed; the messages above say why")


def _measure(cell: Cell, data: Judged, config: BenchmarkConfig) -> Evaluation:
    """Measures a cell's ranking and writes the values of its queries."""
    import pyarrow.parquet as pq

    from raydist.commands.evaluate import check_queries
    from raydist.data.readers import read_run
    from raydist.evaluation.measures import evaluate, parse

    own = config.systems[cell.system].run is None
    try:
        run = read_run(str(cell.run))
    except DataError as error:
        if not own:
            raise
        raise ArtifactError(f"{error}; delete {cell.run} and run the same command again") from error
    if not own:
        check_queries({cell.name: run}, data.qrels, {cell.name: str(cell.run)})
    if data.exclude_own:
        run = run.without_own()
    evaluation = evaluate(run, data.qrels, parse(config.measures), ties=config.ties)
    with atomic(cell.folder / VALUES) as partial:
        pq.write_table(evaluation.table(), partial)
    return evaluation


def read_evaluation(cell: Cell) -> Evaluation:
    """Returns the values of the queries of a cell that is done.

    Raises:
        ArtifactError: their file is damaged.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(cell.folder / VALUES)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            f"{cell.folder / VALUES}: damaged: {error}; delete it and run the same command again"
        ) from error
    measures = tuple(table.column_names[1:])
    values = np.array([table[name].to_numpy() for name in measures])
    ids = tuple(table["query_id"].to_pylist())
    return Evaluation(measures, ids, values, cell.record["means"])


def _start_tracking(cell: Cell, config: BenchmarkConfig, parent: Tracker | None) -> Tracker | None:
    """Starts the cell's run in MLflow, or continues it."""
    if parent is None:
        return None
    try:
        return parent.child(cell.folder, cell.name, resume=True)
    except JobError as error:  # the benchmark goes on
        log.warn(f"{cell.name}: {error}")
        return None


def _track(tracker: Tracker, cell: Cell, config: BenchmarkConfig, evaluation: Evaluation) -> None:
    """Records what a cell is, and its measures."""
    from raydist.evaluation.dashboard import record_evaluation
    from raydist.evaluation.mirror import Mirror
    from raydist.evaluation.report import report

    mirror = Mirror(cell.folder, repair=False)
    names = {"system": cell.system, "collection": cell.collection}
    mirror.params({**names, **parameters(config.systems[cell.system])})
    mirror.tags({"raydist.verb": "benchmark", **names})
    table = report({cell.system: evaluation}, config.statistics)
    record_evaluation(mirror, cell.system, evaluation, str(Path(cell.run)), table)
