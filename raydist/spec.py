"""Specs, and the annotations of their fields beside types and bounds.

A spec is a frozen dataclass of all settings of one thing. It is defined in the `spec.py` of the
room that uses it; the docstring under a field is its help. The edge reads specs from files and
command lines, checks types and bounds (`annotated_types`), and chooses among a union of specs by
the field `kind`. A field `async_` is written `async`; `primary` names the field that a scalar sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge


@dataclass(frozen=True, slots=True)
class Execution:
    """Annotation of a field that does not change the result, and is not part of the identity."""


EXECUTION = Execution()


@dataclass(frozen=True, slots=True)
class Added:
    """Annotation of a field that is part of the identity only where it is not the default.

    For fields that came later: the default means what was done before them.
    """


ADDED = Added()


@dataclass(frozen=True, slots=True)
class Lenient(Added):
    """Annotation of an added field whose default is the strictest.

    What was finished with the default is what any other value gives, so a job that was interrupted
    with it can be continued with another.
    """


LENIENT = Lenient()


@dataclass(frozen=True, slots=True)
class Formerly:
    """Annotation of a field that had another name, which is still read.

    Identities keep that name, so that outputs of earlier versions are recognised.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """Annotation of a field that is None until what is read decides it.

    Identities have another value for None: the default of earlier versions.

    Attributes:
        value: that value.
    """

    value: Any


@dataclass(frozen=True, slots=True)
class Reads:
    """Annotation of a field that says where an input lies: its content counts, not its place.

    Attributes:
        kind: paths of files; of training samples; a model's folder or name; what a verb wrote; a
            text, or a file of it.
    """

    kind: Literal["files", "samples", "model", "output", "text"] = "files"


@dataclass(frozen=True, slots=True)
class FromText:
    """Annotation of a field: reads its value, or a block's keys and values, from text."""

    read: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """Annotation of a union of specs: the kind of a block without `kind`."""

    default: str


_UNITS = {"": 1, "b": 1}
for _power, _unit in enumerate("kmgt", 1):
    _UNITS |= {_unit: 1024**_power, f"{_unit}ib": 1024**_power, f"{_unit}b": 1000**_power}


def bytes_text(size: int) -> str:
    """Returns bytes with the largest unit that divides them, e.g. `32 MiB`."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power} {unit}"
    return f"{size} B" if size else "0"


def parse_bytes(text: str) -> int:
    """Returns the number of bytes of a size such as `512MiB`."""
    digits = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text.strip()[len(digits) :].strip().lower()
    try:
        return int(float(digits) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise ValueError("expected a size such as 512MiB, 2GB or a number of bytes") from None


Bytes = Annotated[int, Ge(0), FromText(parse_bytes)]
"""A number of bytes; text with a unit is accepted (`512MiB`, `2 GB`)."""
