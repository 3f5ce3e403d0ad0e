"""Runs a chain of verbs as one job: every stage is a verb, run in order, skipped when complete.

    raydist pipeline jobs/quickstart/pipeline.yaml [stages.train.steps=50 ...] [--dry-run]

A pipeline file has `out:`, the folder of all stages (below `storage:`, if set), and `stages:`, each
a verb's configuration; `verb:` names the verb if the stage's name does not. `{out}` in a value
stands for the folder. A stage is complete if its output is, and if the same configuration made it
from inputs with the same content, after the same earlier stages. Stages after a changed one run
again; a verb that would overwrite another result refuses and says what to delete. A `serve` stage
is never complete: it serves until it is stopped. To run a stage by hand, use its configuration in
`OUT/stages/NAME.json`.
"""

from __future__ import annotations

import difflib
import importlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pyarrow.fs import FileType

from raydist import log, storage
from raydist.cli import execute
from raydist.commands import VERBS
from raydist.config.base import Block, Flags
from raydist.config.inputs import external, inputs
from raydist.config.load import load, read_yaml
from raydist.config.record import record_configuration, run_name
from raydist.data.files import filesystem, is_uri
from raydist.disk import disk_errors, write_json
from raydist.errors import ConfigError, JobError
from raydist.evaluation.mirror import EVENTS, Mirror, read_lines
from raydist.evaluation.secrets import without_secrets
from raydist.evaluation.spec import Tracking
from raydist.evaluation.tracking import Tracker, resolve_uri
from raydist.fingerprints import value_fingerprint
from raydist.manifest import MANIFEST, read_manifest
from raydist.sameness import without

TRACKED = ("train", "distill", "tune", "evaluate", "load")
"""Verbs that write their own runs to MLflow."""
COLUMNS = ("stage", "verb", "state", "seconds")

Row = tuple[str, str, str, float]
"""The columns of a stage."""


def run_words(words: Sequence[str], flags: Sequence[str]) -> int:
    """Runs the pipeline of a file with `key=value` arguments."""
    file, plan = parse(words)
    with disk_errors(plan.out):
        return run(plan, f"pipeline {file} in {plan.out}", dry_run="--dry-run" in flags)


def parse(words: Sequence[str]) -> tuple[str, Plan]:
    """Returns the file of a command line, and its plan.

    Raises:
        ConfigError: no file or several are named, or anything is wrong in any stage.
    """
    overrides = [word for word in words if "=" in word]
    files = [word for word in words if word not in overrides]
    if len(files) != 1:
        raise ConfigError(
            f"pipeline: expected one YAML file, got {len(files)}: raydist pipeline FILE.yaml "
            "[stages.NAME.KEY=value ...]"
        )
    return files[0], read_plan(files[0], overrides)


@dataclass(frozen=True, slots=True)
class Plan:
    """A pipeline file with its arguments; the stages are checked configurations by name."""

    out: Path
    stages: Mapping[str, tuple[str, Block]]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """A verb with its configuration, the file that records it, and whether it is complete."""

    name: str
    verb: str
    config: Block
    record: Path
    made_of: str
    complete: bool


def run(plan: Plan, title: str, dry_run: bool = False) -> int:
    """Runs the stages of a plan in order, or shows which ones would run."""
    stages = stages_of(plan)
    if dry_run:
        rows = [(s.name, s.verb, "skip" if s.complete else "run", 0.0) for s in stages]
        log.table(title, COLUMNS, rows)
        return 0
    if all(stage.complete for stage in stages) and parent_is_closed(plan.out):
        log.table(title, COLUMNS, [(s.name, s.verb, "skipped", 0.0) for s in stages])
        return 0
    parent = start_parent(plan)
    rows = []
    status = "FAILED"
    try:
        for stage in stages:
            code, row = run_stage(stage, parent)
            if code:
                return code
            rows.append(row)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if parent is not None:
            finish_parent(parent, plan.out, rows, status)
    log.table(title, COLUMNS, rows)
    return 0


def stages_of(plan: Plan) -> list[Stage]:
    """Returns the stages in order; those after an incomplete one are incomplete, too."""
    stages: list[Stage] = []
    own = [
        str(plan.out),
        *(target for _, config in plan.stages.values() if (target := output(config))),
    ]
    made_of, complete = "", True
    for name, (verb, config) in plan.stages.items():
        record = plan.out / "stages" / f"{name}.json"
        read = external(config, own)
        identity = without(
            config.identity(), [place for each in read.values() for place in each.places]
        )
        contents = {key: str(each) for key, each in read.items()}
        made_of = value_fingerprint([made_of, verb, identity, contents])
        complete = complete and verb != "serve" and is_complete(record, made_of, config)
        stages.append(Stage(name, verb, config, record, made_of, complete))
    return stages


def output(config: Block) -> str | None:
    """Returns the path that a stage writes, as the verb resolves it."""
    out = getattr(config, "out", None)
    return None if out is None else storage.resolve(out, getattr(config, "storage", None))


def run_stage(stage: Stage, parent: Tracker | None) -> tuple[int, Row]:
    """Runs a stage unless it is complete; returns its exit code and its row of the table."""
    if stage.complete:
        log.say(f"stage {stage.name}: complete, skipped")
        return 0, (stage.name, stage.verb, "skipped", 0.0)
    log.say(f"stage {stage.name}: raydist {stage.verb}")
    started = time.monotonic()
    config = tracked(stage.config, parent)
    stage.record.parent.mkdir(parents=True, exist_ok=True)
    record = {"verb": stage.verb, "config": config.resolved()}
    write_json(stage.record, record)
    with followed(stage, parent) as ended:
        module = importlib.import_module(f"raydist.commands.{stage.verb}")
        code = execute(module, config, Flags(resume=True))
        seconds = time.monotonic() - started
        ended(code, seconds)
    if not code:
        write_json(stage.record, {**record, "made_of": stage.made_of, "seconds": seconds})
    return code, (stage.name, stage.verb, "done", seconds)


def read_plan(file: str, overrides: Sequence[str]) -> Plan:
    """Returns the plan of a file and `a=value` arguments.

    Arguments for stages, `stages.NAME.a.b=value`, are read by the verb's configuration.

    Raises:
        ConfigError: anything wrong in any stage.
    """
    plan = read_yaml(file)
    stages = plan.get("stages")
    if "out" not in plan or not isinstance(stages, dict) or not stages:
        raise ConfigError(f"{file}: expected the keys out and stages, a verb's configuration each")
    for name, stage in stages.items():
        if not isinstance(name, str) or not isinstance(stage, dict):
            raise ConfigError(f"stages.{name}: expected a verb's configuration, found {stage!r}")
    arguments: dict[str, list[str]] = {name: [] for name in stages}
    for word in overrides:
        key, _, text = word.partition("=")
        first, _, rest = key.partition(".")
        name, _, field = rest.partition(".")
        if first != "stages":
            plan[key] = text
        elif name not in stages or not field:
            raise ConfigError(f"{key}: expected stages.NAME.KEY, NAME one of {', '.join(stages)}")
        elif field == "verb":
            stages[name]["verb"] = text
        else:
            arguments[name].append(f"{field}={text}")
    for key, value in plan.items():
        if key not in ("name", "out", "stages", "storage", "tracking"):
            raise ConfigError(f"{key}: unknown key of {file}")
        if key != "stages" and not isinstance(value, str):
            raise ConfigError(f"{key} = {value!r}: expected text in {file}")
    plan["out"] = storage.resolve(plan["out"], plan.get("storage"))
    if is_uri(plan["out"]):
        raise ConfigError(
            f"out = {plan['out']}: stages read each other's output: give a path that every node "
            "sees; single stages may write to a URI"
        )
    configs = {
        name: prepare(name, stage, arguments[name], plan["out"]) for name, stage in stages.items()
    }
    return Plan(Path(plan["out"]), configs, plan | {"arguments": arguments})


def prepare(
    name: str, stage: Mapping[str, Any], arguments: Sequence[str], out: str
) -> tuple[str, Block]:
    """Returns a stage's verb and its checked configuration."""
    verb = stage.get("verb", name)
    module: Any = None
    if verb in tuple(VERBS):
        module = importlib.import_module(f"raydist.commands.{verb}")
    if not hasattr(module, "Config"):
        near = difflib.get_close_matches(str(verb), VERBS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"stages.{name}.verb = {verb!r}: no such verb for a stage{hint}")
    values = {key: fill(value, out) for key, value in stage.items() if key != "verb"}
    try:
        return verb, load(module.Config, [values], [fill(word, out) for word in arguments])
    except ConfigError as error:
        lines = "\n".join(f"stages.{name}.{line}" for line in str(error).splitlines())
        raise ConfigError(lines) from None


def fill(value: Any, out: str) -> Any:
    """Replaces `{out}` in a value by the folder of the pipeline."""
    if isinstance(value, dict):
        return {key: fill(item, out) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, out) for item in value]
    return value.replace("{out}", out) if isinstance(value, str) else value


def is_complete(record: Path, made_of: str, config: Block) -> bool:
    """Returns whether this configuration finished the stage and its output still exists."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(known, dict) or known.get("made_of") != made_of:
        return False
    target = output(config)
    if target is None:
        return True
    where, name = filesystem(target)
    found = where.get_file_info([name, f"{name}/{MANIFEST}"])
    return FileType.File in [each.type for each in found]  # a file, or a folder with its manifest


def start_parent(plan: Plan) -> Tracker | None:
    """Starts the MLflow run that is the parent of the stages' runs, if the plan tracks."""
    uri = resolve_uri(str(plan.settings.get("tracking", "auto")), plan.out)
    if uri is None:
        return None
    mirror = Mirror(plan.out / "stages")
    mirror.tags({"raydist.verb": "pipeline"})
    settings = yaml.safe_dump(dict(plan.settings), sort_keys=False, allow_unicode=True)
    mirror.text(without_secrets(settings), "pipeline.yaml")
    name = f"pipeline {plan.settings.get('name', plan.out.name)}"
    return Tracker.start(plan.out / "stages", Tracking(uri=uri, name=name), resume=True)


def parent_is_closed(out: Path) -> bool:
    """Returns whether the parent run, if there is one, ended with everything sent."""
    events = [record for record, _ in read_lines(out / "stages" / EVENTS)]
    return not events or events[-1].get("status") == "FINISHED"


def tracked(config: Block, parent: Tracker | None) -> Block:
    """Returns a configuration whose run is a child of the pipeline's, if the verb tracks at all."""
    tracking = getattr(config, "tracking", None)
    if not isinstance(tracking, Tracking):
        return config
    own: dict[str, Any] = (
        {"uri": "none"} if parent is None else {"uri": parent.uri, "parent": parent.run_id}
    )
    return config.model_copy(update={"tracking": replace(tracking, **own)})


@contextmanager
def followed(stage: Stage, parent: Tracker | None) -> Iterator[Callable[[int, float], None]]:
    """Records a stage whose verb has no run of its own as a child of the pipeline's run.

    Yields what takes the stage's exit code and its seconds.
    """
    child = None if stage.verb in TRACKED else start_child(stage, parent)
    if child is None:
        yield lambda code, seconds: None
        return
    mirror, status = Mirror(child.folder), "FAILED"

    def ended(code: int, seconds: float) -> None:
        nonlocal status
        contents = {} if code else inputs(stage.config)
        fingerprints = {name: str(each) for name, each in contents.items()}
        record_configuration(mirror, stage.verb, stage.config, fingerprints)
        if not code:
            status = "FINISHED"
            mirror.metrics(0, {"seconds": seconds, **counts(stage.config)})

    try:
        yield ended
    finally:
        child.close(status)


def start_child(stage: Stage, parent: Tracker | None) -> Tracker | None:
    """Starts the run of a stage, if the pipeline has one and MLflow answers."""
    if parent is None:
        return None
    folder = stage.record.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt, whose run it is
    name = run_name(stage.verb, "", stage.config)
    name = name if stage.name == stage.verb else f"{stage.name}: {name}"
    try:
        return parent.child(folder, name, follow=False)
    except JobError as error:  # the pipeline goes on
        log.warn(f"stage {stage.name}: {error}")
        return None


def counts(config: Block) -> dict[str, float]:
    """Returns the numbers that the manifest of a stage's output has, such as its documents."""
    target = output(config)
    places = [] if target is None else [Path(f"{target}.raydist"), Path(target)]
    folder = next((each for each in places if (each / MANIFEST).is_file()), None)
    if folder is None:
        return {}
    manifest = {key: value for key, value in read_manifest(folder).items() if key != "format"}
    return {
        key: value
        for key, value in manifest.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def finish_parent(parent: Tracker, out: Path, rows: Sequence[Row], status: str) -> None:
    """Ends the parent run: its description is the table of the stages."""
    mirror = Mirror(out / "stages", repair=False)
    mirror.tags({"mlflow.note.content": log.markdown(COLUMNS, rows)})
    seconds = {f"seconds/{name}": each for name, _, state, each in rows if state == "done"}
    if seconds:
        mirror.metrics(0, seconds)
    parent.close(status)
