"""Where a checkpoint comes from: its training run's configuration, data and validation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raydist.errors import ArtifactError
from raydist.models.architecture import has_head
from raydist.models.backbone import model_config, resolve_folder
from raydist.models.folders.contract import ModelKind, read_contract
from raydist.models.folders.sentence_transformers import encoder_kind, modules_of

_UP = 5  # OUT/listeners/ID/best/MEASURE is the deepest that a checkpoint lies below its run


@dataclass(frozen=True)
class Table:
    """What a listener measured.

    Attributes:
        listener: its id.
        chose: the measure that chose the checkpoint, empty if none did.
        step: the step of the values.
        values: by measure.
        baseline: the values at step 0, before training; empty if not measured.
    """

    listener: str
    chose: str
    step: int
    values: Mapping[str, float]
    baseline: Mapping[str, float]


@dataclass(frozen=True)
class Provenance:
    """What is known of a checkpoint.

    Attributes:
        folder: the model.
        kind: the kind of model.
        run: the training run's folder, None for a model from elsewhere.
        config: the run's resolved configuration.
        inputs: fingerprints of the run's inputs by name.
        versions: of raydist and the main packages.
        settings: `settings.json` or the saved settings: which listener and measure chose it.
        tables: the listeners' measures of this checkpoint.
    """

    folder: Path
    kind: ModelKind
    run: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Table] = ()


def kind_of(folder: Path, *, trust_remote_code: bool = False) -> ModelKind:
    """Returns the kind of a folder's model, by its contract or its head."""
    contract = read_contract(folder)
    if contract is not None:
        return contract.kind
    modules = modules_of(folder)
    if modules and len(modules) + (modules[0][0] in ("Router", "Asym")) > 1:
        return encoder_kind(folder)  # a transformer and its pooling, or what loading refuses
    if has_head(model_config(folder, trust_remote_code=trust_remote_code)):
        return "crossencoder"
    return "biencoder"


def find_provenance(checkpoint: str | Path, *, trust_remote_code: bool = False) -> Provenance:
    """Returns a checkpoint's provenance from the folders around it.

    Args:
        checkpoint: a training run, its final or a kept checkpoint, or any model folder or name.
        trust_remote_code: whether code that the folder brings may run.
    """
    folder = resolve_folder(checkpoint)
    kind = kind_of(folder, trust_remote_code=trust_remote_code)
    settings = _json(folder / "settings.json") or _json(folder / "raydist.json").get("settings", {})
    run = _run_of(folder)
    if run is None:
        return Provenance(folder, kind, settings=settings)
    manifest = _json(run / "manifest.json") or _json(run / ".job.json")
    return Provenance(
        folder,
        kind,
        run,
        _json(run / "config.json"),
        manifest.get("inputs", {}),
        manifest.get("versions", {}),
        settings,
        tuple(_tables(run, settings)),
    )


def _run_of(folder: Path) -> Path | None:
    for parent in list(folder.absolute().parents)[:_UP]:
        if (parent / "metrics.jsonl").is_file() and (parent / "config.json").is_file():
            return parent
    return None


def _tables(run: Path, settings: Mapping[str, Any]) -> list[Table]:
    """Returns each listener's values at the checkpoint's step, where it measured then."""
    step = settings.get("step")
    tables = []
    for history in sorted(run.glob("listeners/*/history.jsonl")):
        lines = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
        at = [line for line in lines if line["step"] == step] or (
            lines[-1:] if step is None else []
        )
        start = next((line for line in lines if line["step"] == 0), None)
        listener = history.parent.name
        if at:
            chose = settings.get("key", "") if settings.get("listener") == listener else ""
            baseline = _values(start) if start is not None and start is not at[-1] else {}
            tables.append(Table(listener, chose, at[-1]["step"], _values(at[-1]), baseline))
    return tables


def _values(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in line.items()
        if name not in ("step", "stop") and isinstance(value, int | float)
    }


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: not readable as JSON ({error})") from None
    return values
