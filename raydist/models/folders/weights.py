"""Weights from a folder: every tensor finds its place, or the folder is refused.

A tensor that is missing would stay random and one without a place would be lost, and neither fails
later: the model only gets worse. Allowed are the heads of other tasks (left out), a head and pooler
that the task draws anew, and a wrapper's prefix before all names, such as `module.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from raydist.errors import ArtifactError

_BUFFERS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|attn\.bias|attention\.bias)$"
)
"""Tensors that older versions saved and newer ones compute."""
_NAMED = 3
"""Names in a message; the others are counted."""


@dataclass(frozen=True, slots=True)
class Report:
    """What loading left over, by the names of tensors."""

    missing: frozenset[str]
    unexpected: frozenset[str]
    misshapen: tuple[tuple[str, Any, Any], ...]


def load_weights(
    auto: Any, folder: Path, *, fresh_head: bool, head: bool, **options: Any
) -> tuple[Any, list[str]]:
    """Returns a transformer, and the names of what was drawn at random.

    Args:
        auto: transformers' class to load it with.
        folder: with safetensors.
        fresh_head: a missing head and pooler may be drawn at random.
        head: the model has a head, which reads the pooler.
        options: of `from_pretrained`.

    Raises:
        ArtifactError: there are no safetensors, or tensors are missing, have no place, or have
            another shape.
    """
    if not any(folder.glob("*.safetensors")):
        raise ArtifactError(
            f"model {folder}: no *.safetensors; weights in other formats are not read, "
            "convert them with transformers' save_pretrained"
        )
    model, report = _load(auto, folder, options)
    wrapper = ""
    if report.missing or report.unexpected:
        wrapper = _wrapper(_names(folder), model)
    if wrapper:
        model, report = _load(auto, folder, options, wrapper)
    base = model.base_model
    below = base.base_model_prefix + "." if base is not model else ""
    parts = {name for name, _ in base.named_children()}

    def in_base(name: str) -> bool:
        if _is_pooler(name):
            return False
        first = name.partition(".")[0]
        return name.startswith(base.base_model_prefix + ".") or first in parts

    drawn = sorted(
        name
        for name in report.missing
        if _is_pooler(name) or (fresh_head and below and not name.startswith(below))
    )
    missing = report.missing - set(drawn)
    if head and not fresh_head:
        missing = report.missing
    lost = {n for n in report.unexpected if in_base(n) and not _BUFFERS.search(n)}
    problems = []
    if report.misshapen:
        problems.append(
            _listed(
                "of another shape",
                [
                    f"{name} {list(saved)}, expected {list(own)}"
                    for name, saved, own in sorted(report.misshapen)
                ],
            )
        )
    if missing:
        problems.append(_listed("missing", sorted(missing)))
    if lost:
        problems.append(_listed("without a place in the model", sorted(lost)))
    if problems:
        raise ArtifactError(
            f"model {folder}: its weights do not fit its config.json: {'; '.join(problems)}"
        )
    return model, drawn


def _load(
    auto: Any, folder: Path, options: dict[str, Any], wrapper: str = ""
) -> tuple[Any, Report]:
    pattern = f"^{re.escape(wrapper)}"
    if wrapper:
        options = options | {"key_mapping": {pattern: ""}}
    model, info = auto.from_pretrained(
        str(folder), output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    if wrapper:  # or saving would put it back
        renamings = getattr(model, "_weight_conversions", None) or []
        model._weight_conversions = [
            each for each in renamings if pattern not in [*each.source_patterns]
        ]
    return model, Report(
        frozenset(info["missing_keys"]),
        frozenset(info["unexpected_keys"]),
        tuple(info["mismatched_keys"]),
    )


def _names(folder: Path) -> list[str]:
    """Returns the names of all tensors in a folder's safetensors."""
    names: list[str] = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            names += tensors.keys()
    return names


def _wrapper(names: Sequence[str], model: nn.Module) -> str:
    """Returns the prefix, foreign to the model, that all names have: a wrapper's attribute."""
    base: Any = model.base_model
    own = {name for part in (model, base) for name, _ in part.named_children()}
    own |= {getattr(model, "base_model_prefix", "")}
    prefix = ""
    while True:
        firsts = {name.removeprefix(prefix).partition(".")[0] for name in names}
        if len(firsts) != 1 or firsts & own or any("." not in n[len(prefix) :] for n in names):
            return prefix
        prefix += f"{firsts.pop()}."


def _is_pooler(name: str) -> bool:
    return "pooler" in name.split(".")


def _listed(what: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{what}: {', '.join(names[:_NAMED])}{more}"
