"""Runs systems on collections and compares them in one table.

    raydist benchmark jobs/benchmark/local.yaml out=bench
    raydist benchmark jobs/benchmark/local.yaml systems.dense.embed.model=MODEL out=bench

A collection has documents, queries and judgements. A system says what to index, embed, search and
rerank, by the keys of those verbs; or it is the file of a run. Only judged queries are searched.
The table goes to standard output and to report.md, report.csv and report.html in the folder: means,
confidence intervals, and tests against the baseline, corrected by Holm.

A system on a collection is a cell. The same command continues where an interrupted one stopped, and
runs no finished cell again. Of a changed configuration only the cells that it concerns are run; new
measures need no new rankings. Systems that search the same index share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist import log, storage
from raydist.artefact import Artefact, Output
from raydist.commands import check_packages
from raydist.commands.suite.cells import read_evaluation, run_cell, write_queries
from raydist.commands.suite.plan import Cell, Judged, plan_cells
from raydist.config.base import Flags
from raydist.config.benchmark import BenchmarkConfig
from raydist.config.record import record_configuration
from raydist.disk import atomic, write_json
from raydist.errors import ConfigError
from raydist.sameness import Extension

if TYPE_CHECKING:
    from raydist.evaluation.suite import Suite
    from raydist.evaluation.tracking import Tracker

Config = BenchmarkConfig
ARTEFACT = Artefact("benchmark", progress="cells/*/*/cell.json", unit="cell", evidence="builds/*/*")
RESULTS = "results.json"
REPORTS = ("report.md", "report.csv", "report.html", RESULTS)
_LONGEST_NOTE = 5000


def run(config: BenchmarkConfig, flags: Flags, show: Callable[[Suite], None] | None = None) -> None:
    """Runs the cells that are not done, and prints the table.

    Args:
        config: collections, systems, measures.
        flags: of the command line.
        show: is given the results, which are not printed then.

    Raises:
        ConfigError, DataError: a mistake in any collection or system, before the first cell.
        ArtifactError: the folder holds something else.
    """
    suite = run_suite(config, flags)
    if suite is None:
        return
    if show is not None:
        show(suite)
        return
    from raydist.evaluation.suite import render_suite

    print(render_suite(suite))
    for note in suite.notes:
        log.say(note)
    log.say(f"report: {config.out}/report.html, report.md, report.csv")


def run_suite(config: BenchmarkConfig, flags: Flags) -> Suite | None:
    """Runs the cells that are not done; returns the results, None in a dry run."""
    if storage.leaves(config.out):
        raise ConfigError(f"out = {log.spoken(config.out)}: give a path that every node sees")
    judged, cells = plan_cells(config)
    for cell in cells:
        for verb, step in (*cell.builds, *cell.steps):
            check_packages(verb, step)
    identity = config.identity() | {"cells": {cell.name: cell.measured for cell in cells}}
    with ARTEFACT.open(
        config.out,
        config,
        inputs=dict,
        plan=f"run the cells of {len(config.systems)} x {len(config.collections)} in {config.out}",
        dry_run=flags.dry_run,
        identity=identity,
        extension=Extension(tuple(identity)),
    ) as output:
        if output.state == "planned":
            rows = [(cell.collection, cell.system, cell.state) for cell in cells]
            log.table("cells", ["collection", "system", "state"], rows)
            return None
        if output.done and all(cell.state == "done" for cell in cells):
            suite = _results(config, cells)
            if not all((output.folder / name).is_file() for name in REPORTS):
                _write_reports(config, output.folder, suite)
            return suite
        suite = _run_cells(config, output, judged, cells)
        output.finish(cells=len(cells), baseline=suite.baseline)
    return suite


def _run_cells(
    config: BenchmarkConfig, output: Output, judged: Mapping[str, Judged], cells: Sequence[Cell]
) -> Suite:
    """Runs what is to be run, and writes the reports."""
    for data in judged.values():
        write_queries(data)
    parent = _start_tracking(config, output)
    status = "FAILED"
    try:
        for number, cell in enumerate(cells, 1):
            where = f"cell {number} of {len(cells)}: {cell.name}"
            if cell.state == "done":
                log.say(f"{where}: done before")
                continue
            log.say(where)
            run_cell(cell, judged[cell.collection], config, parent)
        suite = _results(config, cells)
        _write_reports(config, output.folder, suite)
        if parent is not None:
            _track(parent, output.folder)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if parent is not None:
            parent.close(status)
    return suite


def _results(config: BenchmarkConfig, cells: Sequence[Cell]) -> Suite:
    """Returns the results of cells that are done."""
    from raydist.evaluation.suite import compare_systems

    evaluations: dict[str, dict[str, Any]] = {}
    for cell in cells:
        evaluations.setdefault(cell.collection, {})[cell.system] = read_evaluation(cell)
    baseline = config.baseline or next(iter(config.systems))
    return compare_systems(evaluations, config.statistics, baseline)


def _write_reports(config: BenchmarkConfig, folder: Path, suite: Suite) -> None:
    from raydist.evaluation.report import write_table
    from raydist.evaluation.suite import render_suite
    from raydist.evaluation.suite_page import render_page

    notes = "".join(f"\n- {note}" for note in suite.notes)
    title = config.tracking.name or f"Benchmark {Path(config.out).name}"
    page = render_page(suite, title, 1 - config.statistics.level)
    texts = {"report.md": f"{render_suite(suite, 'markdown')}\n{notes}\n", "report.html": page}
    for name, text in texts.items():
        with atomic(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    write_table(suite.to_arrow(), folder / "report.csv")
    write_json(folder / RESULTS, suite.to_dict())


def _start_tracking(config: BenchmarkConfig, output: Output) -> Tracker | None:
    """Starts the run that the cells' runs are below, if the benchmark is tracked."""
    from raydist.evaluation.mirror import Mirror
    from raydist.evaluation.tracking import Tracker, resolve_uri

    folder = output.folder.absolute()
    uri = resolve_uri(config.tracking.uri, folder.parent)
    if uri is None:
        return None
    record_configuration(Mirror(folder), "benchmark", config, {})
    name = config.tracking.name or f"benchmark {folder.name}"
    return Tracker.start(folder, replace(config.tracking, uri=uri, name=name), resume=True)


def _track(parent: Tracker, folder: Path) -> None:
    """Records the reports."""
    from raydist.evaluation.mirror import Mirror

    mirror = Mirror(folder, repair=False)
    for name in REPORTS[:-1]:
        mirror.artifact(folder / name)
    table = (folder / "report.md").read_text(encoding="utf-8")
    if len(table) <= _LONGEST_NOTE:
        mirror.tags({"mlflow.note.content": table})  # the run's page shows it as its description
