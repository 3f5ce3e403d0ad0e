"""A run's files: states to resume from, and models, which are read again before they count.

A checkpoint is a folder, complete or absent: the engine's files (weights, optimizer and random
state, each rank its part) and `loop.json` (the step, the place in the data, the listeners' states).
Dropout does not depend on the saved random state: each step seeds it by (seed, step, rank).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raydist.disk import disk_errors, write_json
from raydist.errors import ArtifactError
from raydist.training.engine import Engine
from raydist.training.scattered import Scattered

CHECKPOINTS = "checkpoints"
"""The folder of the states below a run's."""
STATE = "loop.json"
_NAME = re.compile(r"step-(\d+)")
FINAL = "checkpoint-final"

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Allowed difference, as a share of the largest value: both compute the same on one device."""

_HALF = 1e-2
"""The same for half precisions: two roundings of bfloat16."""


def is_checkpoint_name(name: str) -> bool:
    """Returns whether a folder's name is that of a checkpoint."""
    return _NAME.fullmatch(name) is not None


Save = Callable[[Any, Path, Mapping[str, Any]], None]
"""Writes (model, folder, settings) as a full model folder; every rank calls it."""


def save_model(model: Any, folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes the model by its own `save`; for one process, or rank 0 of several."""
    model.save(folder, settings=dict(settings))


def read_state(folder: Path) -> dict[str, Any]:
    """Returns a checkpoint's `loop.json`.

    Raises:
        ArtifactError: the folder is not a complete checkpoint.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: not a complete checkpoint ({error})") from None
    assert isinstance(state, dict)
    return state


class Checkpoints:
    """States in a folder that every rank sees: `FOLDER/step-00000100`.

    All ranks write into a folder of another name; rank 0 renames it when all are done. Every rank
    calls at the same steps.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 2,
        rank: int = 0,
        barrier: Callable[[], None] = lambda: None,
        broadcast: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        """Keeps the newest `keep` checkpoints.

        Args:
            folder: of the checkpoints.
            keep: how many are kept.
            rank: of this process.
            barrier: waits for all ranks.
            broadcast: returns rank 0's value.
        """
        self.folder = folder
        self._keep = keep
        self._first = rank == 0
        self._barrier = barrier
        self._broadcast = broadcast

    def save(self, step: int, write: Callable[[Path], None], state: Mapping[str, Any]) -> None:
        """Writes a checkpoint and removes the oldest ones beyond `keep`.

        Args:
            step: optimizer steps done.
            write: writes this rank's files to the given folder.
            state: JSON values, written by rank 0.
        """
        target = self.folder / f"step-{step:08}"
        partial = self.folder / f".{target.name}.part"
        with disk_errors(self.folder):
            if self._first:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            self._barrier()
            write(partial)
            self._barrier()
            if self._first:
                write_json(partial / STATE, state)
                shutil.rmtree(target, ignore_errors=True)
                os.replace(partial, target)  # not `atomic`: all ranks write to one known path
                for old in self._complete()[: -self._keep]:
                    shutil.rmtree(old)
            self._barrier()

    def finish(self) -> None:
        """Returns at once: what is saved is complete."""

    def latest(self) -> Path | None:
        """Returns the newest checkpoint's folder, None if there is none; rank 0's choice.

        A network file system may show another rank less, or more, than rank 0.

        Raises:
            ArtifactError: this rank does not see rank 0's checkpoint.
        """
        complete = self._complete()
        chosen: Path | None = self._broadcast(complete[-1] if complete else None)
        if chosen is not None and not (chosen / STATE).exists():
            raise ArtifactError(f"{chosen}: rank 0 resumes from it, and another rank has it not")
        return chosen

    def _complete(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        folders = [f for f in self.folder.iterdir() if is_checkpoint_name(f.name)]
        return sorted((f for f in folders if (f / STATE).exists()), key=lambda f: f.name)


@dataclass(frozen=True, slots=True)
class CheckedSave:
    """Writes a model, reads it again and compares one batch's output; a `Save` for listeners.

    The written model is compared with the trained one after LoRA matrices are merged: merging
    rounds in half precision, and that is no fault of the folder.

    Attributes:
        probe: a model's output for a few texts; called without gradients, in evaluation mode.
        load: opens a written folder as a model on a device.
        first: whether this is rank 0, the one that writes.
    """

    probe: Callable[[Any], torch.Tensor]
    load: Callable[[Path, torch.device], Any]
    first: bool = True

    def __call__(self, model: Any, folder: Path, settings: Mapping[str, Any]) -> None:
        """Writes the model into the folder; a scattered one is compared file by file.

        Raises:
            ArtifactError: the written model's output differs from the trained one's.
        """
        if isinstance(model, Scattered):
            model.save(folder, settings)
        if not self.first or isinstance(model, Scattered):
            return
        training = model.training
        model.eval()
        merged = model.merged()
        before = self._output(merged.to(model.device))
        merged.save(folder, settings=dict(settings))
        model.save_adapters(folder)
        del merged  # to make room for the model that is read
        _compare(
            before, self._output(self.load(folder, model.device).eval()), _allowed(model), folder
        )
        model.train(training)

    def _output(self, model: Any) -> torch.Tensor:
        with torch.no_grad():
            return self.probe(model).cpu()


def save_final(
    engine: Engine,
    folder: Path,
    *,
    save: Save,
    settings: Mapping[str, Any],
    barrier: Callable[[], None] = lambda: None,
) -> Path:
    """Writes `FOLDER/checkpoint-final`, put in place when it is complete.

    Args:
        engine: holds the model; every rank calls this.
        folder: the run's folder.
        save: writes the model.
        settings: travels with the model.
        barrier: waits for all ranks.

    Raises:
        ArtifactError: the written model's output differs from the trained one's.
    """
    target = folder / FINAL
    partial = folder / f".{FINAL}.part"
    if engine.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
    save(engine.exported(), partial, settings)
    if engine.rank == 0:
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)  # not `atomic`: every rank names the path, rank 0 writes to it
    barrier()
    return target


def _allowed(model: Any) -> float:
    if getattr(model, "autocast", None) is not None:
        return _HALF
    return _TOLERANCE.get(next(model.parameters()).dtype, _HALF)


def _compare(before: torch.Tensor, after: torch.Tensor, allowed: float, where: Path) -> None:
    scale = float(before.abs().max()) or 1.0
    worst = float((before - after).abs().max()) / scale
    if not worst <= allowed:
        raise ArtifactError(
            f"{where}: the written model differs from the trained one by {worst:.2e} of the "
            f"largest value (allowed {allowed:.0e}); it was not put in place"
        )
