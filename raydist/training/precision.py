"""How precisely a run computes: what was left open, and what does not go together."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch

from raydist.errors import ConfigError
from raydist.models.packed_attention import VARLEN
from raydist.models.spec import ModelSettings
from raydist.training.spec import Resources

Settings = TypeVar("Settings", bound=ModelSettings)


def decided(model: Settings, device: torch.device) -> Settings:
    """Returns the settings with the precision that they left open."""
    free = model.autocast is None and model.dtype == "float32" and device.type == "cuda"
    if free and torch.cuda.is_bf16_supported():
        return replace(model, autocast="bfloat16")
    return model


def allow_tf32(model: ModelSettings, device: torch.device) -> None:
    """Lets a GPU compute float32 matrix products in TF32 where that is asked for."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if model.tf32 else "highest")


def check_attention(model: ModelSettings, on: Resources) -> None:
    """Raises ConfigError where an attention does not compute in the run's precision or place."""
    flash = model.attention.startswith("flash")
    gpu = _on_gpu(on)
    if flash and not gpu:
        raise ConfigError(
            f"model.attention = {model.attention}: needs a GPU (gpus_per_worker=1, or one in this "
            "machine); leave it out to use what the model has"
        )
    exact = model.dtype == "float32" and model.autocast == "float32"
    if (flash or model.attention == VARLEN) and gpu and exact:
        raise ConfigError(
            f"model.attention = {model.attention}: computes in half precision, and model.autocast "
            "= float32 with model.dtype = float32 does not; leave model.autocast out"
        )


def words(model: ModelSettings, on: Resources) -> list[str]:
    """Returns what a plan says of a run's precision: nothing of float32."""
    if not _on_gpu(on):
        return ["bf16 autocast"] if model.half_autocast else []
    found = []
    here = not on.workers
    if decided(model, torch.device("cuda")).half_autocast if here else model.half_autocast:
        found.append("bf16 autocast")
    elif not here and model.autocast is None and model.dtype == "float32":
        found.append("bf16 autocast on GPUs that have it")
    if model.tf32:
        found.append("TF32")
    return found


def _on_gpu(on: Resources) -> bool:
    return on.gpus_per_worker > 0 if on.workers else torch.cuda.is_available()
