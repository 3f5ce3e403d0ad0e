"""What a run in MLflow says of the command that made it: its name, parameters and inputs.

The parameters are those that were set and the few that every reader looks for; the whole
configuration is the artefact `config.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml

from raydist.config.base import Block, short
from raydist.config.inputs import Input, find_inputs
from raydist.evaluation.mirror import Mirror, flatten
from raydist.evaluation.secrets import without_secrets

_PLACES = ("storage", "out", "lock_wait", "fingerprint", "tracking", "figures", "per_query")
"""Keys that say where a result goes, not what it is."""
_ALWAYS = (
    "model.kind", "model.path", "loss.kind", "optim.lr", "optim.schedule", "batch_size", "steps",
    "epochs", "train_group_size", "workers", "seed", "measures", "ties",
)  # fmt: skip
"""Keys that are parameters even at their defaults, so that columns of runs have no gaps."""
_PLAIN = (("kind", "files"), ("kind", "listener"))
"""Kinds that go without saying."""
_LONGEST = 200


def run_name(verb: str, what: str, config: Block) -> str:
    """Returns a name that says what ran, such as `train MiniLM-L6 on samples.jsonl`.

    Args:
        verb: what was done.
        what: with what it was done; the model's name if it is empty.
        config: of the command.
    """
    what = what or _model(getattr(config, "model", None))
    data = _data(config)
    words = [verb, what] if what else [verb]
    return " ".join([*words, *(["on", data] if data else [])])[:_LONGEST]


def record_configuration(
    mirror: Mirror, verb: str, config: Block, fingerprints: Mapping[str, str]
) -> None:
    """Records parameters, inputs and the whole configuration.

    Args:
        mirror: the run's record.
        verb: what was done.
        config: of the command.
        fingerprints: of the inputs, by their names; others have no data sets.
    """
    whole = {name: value for name, value in config.resolved().items() if name != "tracking"}
    mirror.params(parameters(config))
    mirror.tags({"raydist.verb": verb})
    mirror.text(without_secrets(yaml.safe_dump(whole, sort_keys=False)), "config.yaml")
    for each in find_inputs(config):
        if digest := fingerprints.get(each.name):
            _record_input(mirror, each, str(digest))


def parameters(config: Block) -> dict[str, Any]:
    """Returns what was set of a configuration, and what readers look for, by dotted names."""
    every = flatten(config.resolved())
    chosen = flatten(short(config)) | {key: every[key] for key in _ALWAYS if key in every}
    if chosen.get("steps") is not None:
        chosen.pop("epochs", None)
    return {
        key: _text(value)
        for key, value in chosen.items()
        if key.split(".")[0] not in _PLACES
        and value not in (None, {}, [], "")
        and (key.rpartition(".")[2], value) not in _PLAIN
    }


def _record_input(mirror: Mirror, each: Input, digest: str) -> None:
    place = without_secrets(", ".join(each.paths))
    if each.kind == "model":
        mirror.tags({f"input.{each.name}": f"{place} ({digest.removeprefix('full:')})"})
        return
    within = each.name.split(".")[0]
    contexts = {"validation": "validation", "data": "training", "datasets": "training"}
    role = each.name.split(".")[-1]
    context = contexts.get(within, "evaluation" if role in ("run", "qrels") else role)
    name = "+".join(map(short_name, each.paths))
    if context != role:
        context = f"{context} {role}"
    mirror.dataset(name[:_LONGEST], digest.rpartition(":")[2], place, context, input=each.name)


def _model(spec: Any) -> str:
    if spec is None:
        return ""
    path, scratch = getattr(spec, "path", None), getattr(spec, "scratch", None)
    if scratch is not None:
        return f"new-{scratch.layers}x{scratch.hidden}"
    return PurePath(str(path).rstrip("/")).name if path else ""


def _data(config: Block) -> str:
    """Returns the short name of the data: samples, else judgements, queries or a corpus."""
    inputs = list(find_inputs(config))
    samples = [each for each in inputs if each.name.split(".")[0] in ("data", "datasets")]
    own = [each for each in samples if each.kind == "samples" or "." not in each.name]
    for name in ("qrels", "queries", "corpus"):
        own = own or [each for each in inputs if each.name == name]
    names = [short_name(path) for each in own for path in each.paths]
    return names[0] if len(names) == 1 else f"{len(names)} data sets" if names else ""


def short_name(path: str) -> str:
    """Returns the last part of a path or URI; what is no place, such as `docstrings:`, whole."""
    if re.match(r"\w+:(?!//)", path):
        return path
    return PurePath(path.rstrip("/")).name or path


def _text(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return without_secrets(", ".join(map(str, value)))
    return without_secrets(value) if isinstance(value, str) else value
