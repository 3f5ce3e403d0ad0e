"""Models as folders that are read again before they count: the final one and every kept best."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raydist.errors import ArtifactError
from raydist.training.engine import Engine
from raydist.training.listener_files import Save

FINAL = "checkpoint-final"

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Allowed difference, as a share of the largest value: both compute the same on one device."""

_HALF = 1e-2
"""The same for half precisions: two roundings of bfloat16."""


@dataclass(frozen=True, slots=True)
class CheckedSave:
    """Writes a model, reads it again and compares one batch's output; a `Save` for listeners.

    What was written is compared with what was to be written, LoRA matrices merged: merging rounds
    in half precision, and that is no fault of the folder.

    Attributes:
        probe: a model's output for a few texts; called without gradients, in evaluation mode.
        load: opens a written folder as a model on the trained model's device.
        first: whether this is rank 0, the one that writes.
    """

    probe: Callable[[Any], torch.Tensor]
    load: Callable[[Path], Any]
    first: bool = True

    def __call__(self, model: Any, folder: Path, settings: Mapping[str, Any]) -> None:
        """Writes the model, all of whose parameters are here, into the folder.

        Raises:
            ArtifactError: the written model does not give what the trained one gives.
        """
        if not self.first:
            return
        training = model.training
        model.eval()
        whole = model.merged()
        before = self._output(whole.to(model.device))
        whole.save(folder, settings=dict(settings))
        del whole  # a copy makes room for what is read
        _compare(before, self._output(self.load(folder).eval()), _allowed(model), folder)
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
        ArtifactError: the written model does not give what the trained one gives.
    """
    target = folder / FINAL
    partial = folder / f".{FINAL}.part"
    if engine.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
    with engine.whole_parameters():
        save(engine.module, partial, settings)
    if engine.rank == 0:
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
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
