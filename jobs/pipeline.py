"""The whole picture as one job: every stage is a verb, run in order, skipped when it is complete.

    python jobs/pipeline.py jobs/quickstart/pipeline.yaml [stages.train.steps=50 ...]

A pipeline file has `out:`, the folder of all stages (below `storage:` if that is given), and
`stages:`, each a verb's configuration with `verb:` beside it. `{out}` in a value stands for that
folder. A stage is complete when its output exists and was made by the same configuration after the
same earlier stages; all else is what the verb itself does, so every stage can also be run by hand
from the configuration in `OUT/stages/NAME.json`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from raydist import log
from raydist.cli import execute
from raydist.config.base import Block, Flags
from raydist.config.load import load
from raydist.config.tracking import Tracking
from raydist.errors import ConfigError, RaydistError
from raydist.evaluation.mirror import Mirror
from raydist.evaluation.tracking import Tracker, resolve_uri
from raydist.manifest import fingerprint, write_json

Row = tuple[str, str, str, float]
"""Stage, verb, state, seconds."""


def main(words: Sequence[str]) -> int:
    """Runs the pipeline and returns the exit code."""
    files = [word for word in words if "=" not in word]
    if len(files) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return run(Path(files[0]), [word for word in words if "=" in word])
    except RaydistError as error:
        log.say(f"error: {error}")
        return error.exit_code


def run(file: Path, overrides: Sequence[str]) -> int:
    """Runs the stages of a pipeline file in order."""
    plan = read_plan(file, overrides)
    out = Path(plan["out"])
    configs = {name: prepare(name, stage, out) for name, stage in plan["stages"].items()}
    parent = start_parent(plan, out)
    rows: list[Row] = []
    made = ""  # what all stages so far are made of: a changed stage makes the later ones anew
    for name, (verb, config) in configs.items():
        record = out / "stages" / f"{name}.json"
        config = tracked(config, parent)
        made = fingerprint([made, verb, config.identity()])
        started = time.monotonic()
        if complete(record, made, config):
            log.say(f"stage {name}: complete, skipped")
            rows.append((name, verb, "skipped", 0.0))
            continue
        log.say(f"stage {name}: raydist {verb}")
        write_config(record, verb, config)
        module = importlib.import_module(f"raydist.commands.{verb}")
        code = execute(module, config, Flags(resume=True))
        if code:
            return code
        seconds = time.monotonic() - started
        write_json(record, {**json.loads(record.read_text()), "made_of": made, "seconds": seconds})
        rows.append((name, verb, "done", seconds))
    finish_parent(parent, out, rows)
    log.table(f"pipeline {file} in {out}", ["stage", "verb", "state", "seconds"], rows)
    return 0


def read_plan(file: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the pipeline file with `a.b=value` arguments laid over it."""
    try:
        plan = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: {error}") from None
    if not isinstance(plan, dict) or not {"out", "stages"} <= plan.keys():
        raise ConfigError(f"{file}: expected the keys out and stages")
    for word in overrides:
        key, _, text = word.partition("=")
        *path, last = key.split(".")
        place = plan
        for part in path:
            place = place.setdefault(part, {})
        place[last] = yaml.safe_load(text)
    if "storage" in plan and not os.path.isabs(str(plan["out"])):
        plan["out"] = os.path.join(str(plan["storage"]), str(plan["out"]))
    elif os.environ.get("RAY_JOB_ID") and not os.path.isabs(str(plan["out"])):
        raise ConfigError(f"out = {plan['out']}: under a submitted job say storage= as well")
    return plan


def prepare(name: str, stage: Mapping[str, Any], out: Path) -> tuple[str, Block]:
    """Returns a stage's verb and its checked configuration: all mistakes show before any work."""
    stage = dict(stage)
    verb = stage.pop("verb", name)
    try:
        module = importlib.import_module(f"raydist.commands.{verb}")
    except ModuleNotFoundError:
        raise ConfigError(f"stages.{name}.verb = {verb!r}: no such verb") from None
    values = fill(stage, str(out))
    file = out / "stages" / f".{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    try:
        return verb, load(module.Config, [str(file)])
    except ConfigError as error:
        lines = "\n".join(f"stages.{name}.{line}" for line in str(error).splitlines())
        raise ConfigError(lines) from None
    finally:
        file.unlink()


def fill(value: Any, out: str) -> Any:
    """Puts the folder of the pipeline where `{out}` stands."""
    if isinstance(value, dict):
        return {key: fill(item, out) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, out) for item in value]
    return value.replace("{out}", out) if isinstance(value, str) else value


def complete(record: Path, made: str, config: Block) -> bool:
    """Whether a stage was finished by this configuration and its output is still there."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    target = getattr(config, "out", None)
    return known.get("made_of") == made and (target is None or Path(str(target)).exists())


def write_config(record: Path, verb: str, config: Block) -> None:
    """Keeps what the stage is about to run with."""
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, {"verb": verb, "config": config.resolved()})


def start_parent(plan: Mapping[str, Any], out: Path) -> Tracker | None:
    """Begins the MLflow run that the stages' runs become children of, if the plan tracks."""
    uri = resolve_uri(str(plan.get("tracking", "auto")), out)
    if uri is None:
        return None
    mirror = Mirror(out / "stages")
    mirror.params({"pipeline": plan})
    name = str(plan.get("name", out.name))
    return Tracker.start(out / "stages", uri=uri, name=name, resume=True)


def tracked(config: Block, parent: Tracker | None) -> Block:
    """Makes a stage's run a child of the pipeline's, where the verb tracks at all."""
    tracking = getattr(config, "tracking", None)
    if not isinstance(tracking, Tracking):
        return config
    place = {"uri": "none"} if parent is None else {"uri": parent.uri, "parent": parent.run_id}
    return config.model_copy(update={"tracking": tracking.model_copy(update=place)})


def finish_parent(parent: Tracker | None, out: Path, rows: Sequence[Row]) -> None:
    """Ends the parent run with the stages' times."""
    if parent is None:
        return
    Mirror(out / "stages").metrics(0, {f"seconds/{name}": s for name, _, _, s in rows})
    parent.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
