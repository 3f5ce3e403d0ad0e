"""Low-rank adapters: added to a transformer, read from a folder, written, merged.

A folder of adapters (`adapter_config.json`) names its base, and is used like any other model: the
base is loaded and the adapters are merged into it.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from raydist.errors import ArtifactError, ConfigError
from raydist.models.architecture import UNREADABLE, reason_of
from raydist.models.folders.packaged import ADAPTER_CONFIG
from raydist.models.spec import Lora

WEIGHTS = "adapter_model.safetensors"
_EXCLUDED = r".*(pooler|classifier|score|dt_proj).*"
"""Layers without adapters: heads, and those whose weights Mamba's layers multiply themselves."""
FOLDER = "adapter"
"""Below a trained model's folder: the adapters that its weights have merged."""


def base_of(folder: Path) -> str | None:
    """Returns the base that a folder of adapters names, None where it is a whole model."""
    path = folder / ADAPTER_CONFIG
    if (folder / "config.json").is_file() or not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: not readable as JSON ({error})") from None
    base = record.get("base_model_name_or_path") if isinstance(record, dict) else None
    if not base:
        raise ArtifactError(f"{path}: names no base_model_name_or_path")
    beside = folder / str(base)
    return str(beside) if beside.is_dir() else str(base)


def with_adapters(model: Any, folder: Path, fresh: Sequence[str] = ()) -> Any:
    """Returns a base with the adapters of a folder merged into its weights.

    Args:
        model: the base.
        folder: of the adapters.
        fresh: tensors that the base lacks and the folder must have: of a head.

    Raises:
        ArtifactError: the adapters do not fit the base, or are none that can be merged.
    """
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    if not (folder / WEIGHTS).is_file():
        raise ArtifactError(f"model {folder}: no {WEIGHTS}; other formats are not read")
    try:
        weights = load_file(folder / WEIGHTS)
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        adapted: Any = get_peft_model(model, config)
        report = set_peft_model_state_dict(adapted, weights)
    except UNREADABLE as error:
        raise ArtifactError(
            f"model {folder}: its adapters do not fit their base ({reason_of(error)})"
        ) from None
    lost = [name for name in report.missing_keys if "lora_" in name] + report.unexpected_keys
    lost += [name for name in fresh if not any(key.endswith(name) for key in weights)]
    if lost:
        raise ArtifactError(
            f"model {folder}: its adapters do not fit their base: {lost[0]} and {len(lost) - 1} "
            "more have no counterpart"
        )
    if not hasattr(adapted, "merge_and_unload"):
        raise ArtifactError(f"model {folder}: {config.peft_type} cannot be merged into its base")
    whole = adapted.merge_and_unload()
    whole.requires_grad_(True)  # PEFT froze the base, which may be trained on
    return whole


def save_adapters(tower: Any, folder: Path) -> None:
    """Writes a transformer's adapters below the folder that has its merged weights.

    Raises:
        OSError: the files cannot be written.
    """
    place = folder / FOLDER
    tower.save_pretrained(str(place))
    (place / "README.md").unlink(missing_ok=True)  # an empty form


def copy_adapters(source: Path) -> Callable[[Any, Path], None]:
    """Returns what writes, in place of a transformer's weights, the adapters of a trained model.

    Raises:
        ConfigError: the model has none.
    """
    place = source if base_of(source) is not None else source / FOLDER
    if not (place / WEIGHTS).is_file():
        raise ConfigError(
            f"adapter=true: {source} has no adapters; train with model.lora.r=16, one tower"
        )

    def write(_: Any, target: Path) -> None:
        for name in (ADAPTER_CONFIG, WEIGHTS):
            shutil.copyfile(place / name, target / name)

    return write


def add_lora(model: Any, lora: Lora, *, fresh: list[str], head: bool) -> Any:
    """Returns a transformer of which new adapters, a head and what is fresh are trained.

    Args:
        model: the base.
        lora: the adapters.
        fresh: names of tensors that were drawn at random: their modules are trained whole.
        head: the model has a head, which is trained whole.

    Raises:
        ConfigError: the model has none of the modules.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    settings: dict[str, Any] = {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    if lora.targets:
        settings["target_modules"] = list(lora.targets)
    else:
        settings["target_modules"] = "all-linear"
        settings["exclude_modules"] = _EXCLUDED + "".join(f"|{re.escape(n)}" for n in _own(model))
    if head:
        settings["task_type"] = TaskType.SEQ_CLS
        heads = {name for name, _ in model.named_children()} - {model.base_model_prefix}
        poolers = {"pooler"} if any("pooler" in name.split(".") for name in fresh) else set()
        settings["modules_to_save"] = sorted(heads & _trainable(model) | poolers)
    # Without a task PEFT hands arguments on as they are: not all models take its `inputs_embeds`.
    try:
        with warnings.catch_warnings():  # of modules that a family does not have, or turns round
            for category in (UserWarning, RuntimeWarning):
                warnings.simplefilter("ignore", category)
            adapted = get_peft_model(model, LoraConfig(**settings))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.lora: {error}") from None
    if not head:
        adapted.peft_config["default"].task_type = TaskType.FEATURE_EXTRACTION
    return adapted


def _own(model: nn.Module) -> list[str]:
    """Returns the names of layers that are linear and more: a router that gives two tensors."""
    return [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and type(part).forward is not nn.Linear.forward
    ]


def _trainable(model: nn.Module) -> set[str]:
    """Returns the names of the children that have weights."""
    return {name for name, child in model.named_children() if any(True for _ in child.parameters())}


def merged(tower: nn.Module) -> nn.Module:
    """Returns a copy on the CPU with adapters in the weights; a tower without any as it is.

    The tower itself is left alone: an engine may hold views of its parameters.
    """
    if not hasattr(tower, "merge_and_unload"):
        return tower
    copies: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("cpu", copy=True), requires_grad=False)
        for p in tower.parameters()
    }
    copies |= {id(b): b.detach().to("cpu", copy=True) for b in tower.buffers()}
    model: Any = copy.deepcopy(tower, copies)
    merged_model: nn.Module = model.merge_and_unload()
    return merged_model


def unloaded(tower: nn.Module) -> Any:
    """Returns the form of a transformer without weights that it has once adapters are merged."""
    form: Any = copy.deepcopy(tower)
    return form.unload() if hasattr(form, "unload") else form


def merged_state(part: nn.Module) -> dict[str, Tensor]:
    """Returns the weights of a transformer's part with its adapters merged into it.

    The part, which may be one of PEFT's layers' parent, is of no use afterwards.
    """
    for name, child in list(part.named_children()):
        if hasattr(child, "unload_and_optionally_merge_module"):
            whole = child.unload_and_optionally_merge_module(True, False, None)  # type: ignore[operator]
            setattr(part, name, whole)
        elif hasattr(child, "base_layer"):
            child.merge()  # type: ignore[operator]
            setattr(part, name, child.get_base_layer())  # type: ignore[operator]
        else:
            merged_state(child)
    return part.state_dict()
