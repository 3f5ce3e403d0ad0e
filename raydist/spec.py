"""What the field of a spec can say beside its type, default and bounds.

A spec is a frozen dataclass that holds all that can be set of one thing. It lies in the room that
does the thing, in `spec.py`; the docstring under a field is its help. The edge reads specs from
files and command lines, checks types and bounds (`annotated_types`), and chooses the member of a
union of specs by the field `kind`. A field that is called `async_` is written `async`. A spec's
`primary`, if it has one, names the field that a scalar sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge


@dataclass(frozen=True, slots=True)
class Execution:
    """Annotation of a field that says how to run, not what to make: no part of the identity."""


EXECUTION = Execution()


@dataclass(frozen=True, slots=True)
class FromText:
    """Annotation of a field: how text becomes its value, or a block's keys and values."""

    read: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """Annotation of a union of specs: the `kind` of a block that does not say."""

    default: str


_UNITS = {"": 1, "b": 1}
for _i, _u in enumerate("kmgt", 1):
    _UNITS |= {_u: 1024**_i, f"{_u}ib": 1024**_i, f"{_u}b": 1000**_i}


def _parse_bytes(text: str) -> int:
    digits = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text.strip()[len(digits) :].strip().lower()
    try:
        return int(float(digits) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise ValueError("expected a size such as 512MiB, 2GB or a number of bytes") from None


Bytes = Annotated[int, Ge(0), FromText(_parse_bytes)]
"""A number of bytes; text with a unit is accepted (`512MiB`, `2 GB`)."""
