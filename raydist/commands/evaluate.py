"""Measures runs against relevance judgements and compares them with a baseline.

    raydist evaluate run=run.txt qrels=qrels.txt measures=nDCG@10,AP,R@1000
    raydist evaluate run=bm25.txt,dense.txt qrels=qrels.txt baseline=bm25.txt figures=FIGS

The table goes to standard output: mean, confidence interval and, with a baseline, mean difference,
p-value before and after Holm's correction, and the queries that are better, equal and worse.
A judged query that a run does not answer counts 0; queries without judgements do not count.
A glob or folder stands for all its runs. Equal scores are ordered by document id, descending, as
trec_eval does it with the same file; `ties=rank` keeps the order of the file.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist import log
from raydist.artefact import Artefact, planned
from raydist.config.base import Flags
from raydist.config.evaluate import EvaluateConfig
from raydist.config.inputs import inputs
from raydist.data.formats.runs import RUN_SUFFIXES
from raydist.data.sources import expand
from raydist.data.spec import RunSource
from raydist.disk import disk_errors, write_json
from raydist.errors import ConfigError
from raydist.records import DiversityQrels

if TYPE_CHECKING:
    from raydist.evaluation.dashboard import Comparison
    from raydist.evaluation.measures import Evaluation
    from raydist.records import Qrels, Run

Config = EvaluateConfig
_MANY_TIES = 0.01  # share of the results
ARTEFACT = Artefact("evaluation", replaces=True)


def run(
    config: EvaluateConfig,
    flags: Flags,
    show: Callable[[Comparison], None] | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Prints the table and writes what was asked for.

    Args:
        config: the runs, the judgements, the measures.
        flags: of the command line.
        show: is given the comparison, which is not printed then.
        labels: the runs' names; those of their files if empty.
    """
    from raydist.data.readers import read_qrels, read_run
    from raydist.evaluation.dashboard import Comparison
    from raydist.evaluation.measures import evaluate, parse
    from raydist.evaluation.report import render, report

    paths = run_paths(config.run)
    named = dict(zip(labels or names(paths), paths))
    if config.baseline is not None and config.baseline not in paths:
        raise ConfigError(
            f"baseline = {config.baseline}: expected one of the runs {', '.join(paths)}"
        )
    qrels = read_qrels(config.qrels)
    runs = {name: read_run(RunSource(path=path, sort=config.sort)) for name, path in named.items()}
    if config.queries.exclude_own:
        runs = {name: each.without_own() for name, each in runs.items()}
    check_queries(runs, qrels, named)
    if config.out is not None:
        ARTEFACT.check(config.out)
    judged = log.count(len(qrels), "judged query")
    goal = f" and write {config.out}" if config.out is not None else ""
    if planned(flags.dry_run, f"evaluate {log.count(len(runs), 'run')} on {judged}{goal}"):
        return
    measures = parse(config.measures)
    evaluations = {
        name: evaluate(each, qrels, measures, ties=config.ties) for name, each in runs.items()
    }
    for name, each in evaluations.items():
        _report_ties(each, named[name], config)
    _report_subtopics(qrels, measures)
    baseline = next((name for name, path in named.items() if path == config.baseline), None)
    table = report(evaluations, config.statistics, baseline=baseline)
    comparison = Comparison(runs, qrels, evaluations, table)
    if show is not None:
        show(comparison)
    else:
        print(render(table, config.format))
        for note in table.notes:
            log.say(note)
    _write_parts(config, comparison)
    _track(config, comparison, named)


def run_paths(paths: Sequence[str]) -> list[str]:
    """Returns the files of runs: a path is one, a glob or folder stands for all its runs.

    Raises:
        DataError: there is no such file.
        ConfigError: a file occurs twice.
    """
    files: list[str] = []
    for path in paths:
        if os.path.isfile(path):
            files.append(path)
            continue
        matches = [file.path for file in expand(path, RUN_SUFFIXES)]
        relative = "://" not in path and not os.path.isabs(path)
        files += map(os.path.relpath, matches) if relative else matches
    twice = [path for path, count in Counter(map(os.path.abspath, files)).items() if count > 1]
    if twice:
        raise ConfigError(f"run = {','.join(paths)}: {twice[0]} occurs twice")
    return files


def names(paths: Sequence[str]) -> list[str]:
    """Returns a short name for each run: the file's stem, the whole path where stems are equal."""
    stems = [Path(path).name.removesuffix(".gz").removesuffix(".zst") for path in paths]
    stems = [Path(stem).stem if Path(stem).suffix else stem for stem in stems]
    return [stem if stems.count(stem) == 1 else path for stem, path in zip(stems, paths)]


def check_queries(runs: Mapping[str, Run], qrels: Qrels, named: Mapping[str, str]) -> None:
    """Warns of judged queries without results.

    Args:
        runs: by name.
        qrels: the judgements.
        named: what messages call each run.

    Raises:
        ConfigError: no query of a run is judged.
    """
    for name, each in runs.items():
        common = sum(query_id in qrels for query_id in each.query_ids)
        if each.query_ids and not common:
            queries = log.count(len(each.query_ids), "query")
            raise ConfigError(
                f"run = {named[name]}: none of its {queries} is judged "
                f"(for example {each.query_ids[0]!r}; the qrels have {next(iter(qrels))!r})"
            )
        if common < len(qrels):
            judged = log.count(len(qrels), "judged query")
            log.warn(
                f"{named[name]}: {len(qrels) - common:,} of {judged} without results, which count 0"
            )


def _report_ties(evaluation: Evaluation, path: str, config: EvaluateConfig) -> None:
    """Says where many scores are equal, and what decides their order."""
    if evaluation.tied <= _MANY_TIES:
        return
    rule, other = "document id, descending, as in trec_eval", "ties=rank keeps the run's order"
    if config.ties == "rank":
        rule, other = "their order in the run", "ties=score orders them as trec_eval does"
    log.say(
        f"{path}: {evaluation.tied:.0%} of the results have the score of another one of their "
        f"query; ties={config.ties} orders them by {rule}; {other}"
    )


def _report_subtopics(qrels: Qrels, measures: Mapping[str, Any]) -> None:
    if not isinstance(qrels, DiversityQrels):
        return
    from raydist.evaluation.measures import by_subtopic

    plain = [name for name, measure in measures.items() if not by_subtopic(measure)]
    if plain:
        log.say(
            f"qrels: these are by subtopic; for {', '.join(plain)} the highest of a document's "
            "grades counts"
        )


def _write_parts(config: EvaluateConfig, comparison: Comparison) -> None:
    """Writes the file per query, the figures and the folder of everything, as far as asked for."""
    from raydist.evaluation.dashboard import draw
    from raydist.evaluation.report import write_table

    if config.per_query:
        place = Path(config.per_query)
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_table(comparison.per_query(), place)
        log.say(f"values per query: {place}")
    if config.figures:
        folder = Path(config.figures)
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"figures = {folder}: is a file, expected a folder")
        with disk_errors(folder):
            drawn = draw(comparison, folder)
        log.say(f"figures in {folder}: {', '.join(path.name for path in drawn)}")
    if config.out:
        _write_all(config, config.out, comparison)


def _write_all(config: EvaluateConfig, out: str, comparison: Comparison) -> None:
    """Writes results.json, report.md, per_query.tsv and figures, or replaces them."""
    from raydist.evaluation.dashboard import draw
    from raydist.evaluation.report import render, write_table

    table = comparison.report
    with ARTEFACT.open(
        out, config, inputs=lambda: inputs(config), plan=f"report in {out}"
    ) as output:
        write_json(output.folder / "results.json", table.to_dict())
        notes = "".join(f"\n- {note}" for note in table.notes)
        text = f"{render(table, 'markdown')}\n{notes}\n"
        (output.folder / "report.md").write_text(text, encoding="utf-8")
        write_table(comparison.per_query(), output.folder / "per_query.tsv")
        draw(comparison, output.folder / "figures")
        output.finish(queries=table.queries)
    log.say(f"report, values per query and figures: {out}")


def _track(config: EvaluateConfig, comparison: Comparison, named: Mapping[str, str]) -> None:
    """Logs an MLflow run per comparison run, below one for all if there are several."""
    from raydist.evaluation.tracking import Tracker, resolve_uri

    uri = resolve_uri(config.tracking.uri, config.storage or ".")
    if uri is None:
        return
    from raydist.config.record import record_configuration, run_name
    from raydist.evaluation.dashboard import record_evaluation, record_report
    from raydist.evaluation.mirror import Mirror

    evaluations, table = comparison.evaluations, comparison.report
    title = config.tracking.name or run_name("evaluate", ", ".join(evaluations), config)
    folder = Path(tempfile.mkdtemp(prefix="raydist-evaluate-"))
    children = []
    tracking = replace(config.tracking, uri=uri, name=title)
    with Tracker.start(folder / "all", tracking, follow=False) as tracker:
        mirror = Mirror(tracker.folder)
        fingerprints = {name: str(contents) for name, contents in inputs(config).items()}
        record_configuration(mirror, "evaluate", config, fingerprints)
        record_report(mirror, comparison)
        for i, (name, evaluation) in enumerate(evaluations.items()):
            if len(evaluations) == 1:
                record_evaluation(mirror, name, evaluation, named[name], table)
                continue
            with tracker.child(folder / f"{i}", name, follow=False) as child:
                record_evaluation(Mirror(child.folder), name, evaluation, named[name], table)
            children.append(child)
    if all(each.complete for each in (tracker, *children)):
        shutil.rmtree(folder)
    log.say(f"MLflow run {tracker.run_id}: {tracker.look}")
