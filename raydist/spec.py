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
from typing import Any


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
