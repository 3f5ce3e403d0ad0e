"""The trained model as a folder, written atomically and read again before it counts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from raydist.errors import ArtifactError
from raydist.training.engine import Engine

__all__ = ["FINAL", "save_final"]

FINAL = "checkpoint-final"

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Allowed difference, as a share of the largest value."""

_HALF = 2e-2
"""The same for half precisions."""


def save_final(
    engine: Engine,
    folder: Path,
    *,
    probe: Callable[[Any], torch.Tensor],
    load: Callable[[Path], Any],
    settings: Mapping[str, Any],
    barrier: Callable[[], None] = lambda: None,
) -> Path:
    """Writes `FOLDER/checkpoint-final`, reads it again and compares one batch's output.

    Args:
        engine: holds the model; every rank calls this.
        folder: the run's folder.
        probe: a model's output for a few texts; called without gradients, in evaluation mode.
        load: opens a written folder as a model on the engine's device.
        settings: travels with the model.
        barrier: waits for all ranks.

    Raises:
        ArtifactError: the written model does not give what the trained one gives.
    """
    target = folder / FINAL
    partial = folder / f".{FINAL}.part"
    model: Any = engine.module
    model.eval()
    with torch.no_grad():
        before = probe(model).cpu()  # by every rank: ZeRO 3 fetches parameters together
    with engine.whole_parameters():
        if engine.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            model.save(partial, settings=dict(settings))
    if engine.rank == 0:
        written = load(partial)
        written.eval()
        with torch.no_grad():
            after = probe(written).cpu()
        _compare(before, after, _allowed(model), partial)
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
