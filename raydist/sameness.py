"""Whether an output comes from the configuration and the inputs of the present command."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydist.errors import ArtifactError
from raydist.fingerprints import Contents

Inputs = Mapping[str, str | Contents]
"""Fingerprints of inputs by name; those of files are computed in the form that was recorded."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns one line per field that differs, `a.b: OLD -> NEW`."""
    lines = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(
                f"{prefix}{key}: {json.dumps(a, default=str)} -> {json.dumps(b, default=str)}"
            )
    return lines


def changes(old: Mapping[str, Any], config: Mapping[str, Any], inputs: Inputs) -> list[str]:
    """Returns one line per difference of an earlier job, `what: OLD -> NEW`.

    Another place of an input is no difference where its content is the same.

    Args:
        old: the job, as a manifest holds it.
        config: what decides the result now, as JSON values.
        inputs: what is read now.
    """
    recorded = dict(old.get("inputs", {}))
    lines = []
    before, now = old.get("config", {}), config
    for name, each in inputs.items():
        contents = each if isinstance(each, Contents) else _fixed(each)
        known = next((key for key in (name, *contents.former) if key in recorded), None)
        if known is None and contents.places:
            continue  # an earlier version did not record it: its place must be the same
        value = None if known is None else recorded.pop(known)
        if value is None or not contents.matches(value):
            lines.append(f"content of {name}: {json.dumps(value)} -> {json.dumps(str(contents))}")
            continue
        before, now = without(before, contents.places), without(now, contents.places)
    lines += [f"content of {name}: {json.dumps(each)} -> null" for name, each in recorded.items()]
    return differences(before, now) + lines


@dataclass(frozen=True, slots=True)
class Extension:
    """A restart with more of the same: fields of the configuration that may differ.

    Attributes:
        fields: names at its top.
        refusal: why it cannot be, and what can be done instead; empty if it can.
        lenient: places of fields that what is unfinished need not have: its strictness changed
            nothing in what it finished.
    """

    fields: tuple[str, ...] = ()
    refusal: str = ""
    lenient: tuple[tuple[str, ...], ...] = ()

    def of(
        self, old: Mapping[str, Any], config: Mapping[str, Any], inputs: Inputs, out: Path
    ) -> dict[str, Any] | None:
        """Returns an earlier configuration with the new fields; None if nothing or more differs.

        Raises:
            ArtifactError: only these differ, but they cannot.
        """
        changed = changes(old, config, inputs) if self.fields else []
        extended = {**old.get("config", {}), **{name: config[name] for name in self.fields}}
        if not changed or changes({**old, "config": extended}, config, inputs):
            return None
        if self.refusal:
            raise ArtifactError(f"out = {out}: {', '.join(changed)}: {self.refusal}")
        return extended

    def relaxes(self, old: Mapping[str, Any], config: Mapping[str, Any], inputs: Inputs) -> bool:
        """Returns whether an unfinished job differs in nothing but being stricter."""
        new = [place for place in self.lenient if not _has(old.get("config", {}), place)]
        strict = without(config, new)
        return strict != config and not changes(old, strict, inputs)


def _has(config: Any, place: Iterable[str]) -> bool:
    for name in place:
        if not isinstance(config, Mapping) or name not in config:
            return False
        config = config[name]
    return True


def _fixed(text: str) -> Contents:
    return Contents(lambda form: text)


def without(config: Mapping[str, Any], places: Iterable[tuple[str, ...]]) -> Mapping[str, Any]:
    """Returns a configuration without the fields at some places."""
    for name, *below in places:
        rest = {key: value for key, value in config.items() if key != name}
        if below and isinstance(config.get(name), Mapping):
            rest[name] = without(config[name], [tuple(below)])
        config = rest
    return config
