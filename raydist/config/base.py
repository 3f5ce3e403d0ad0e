"""The building blocks of configurations.

A configuration is a tree of frozen pydantic models. The docstring under a field is its help text;
`raydist fields VERB` and the error messages are made from the models alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_UNITS = {"": 1, "b": 1}
for _i, _u in enumerate("kmgt", 1):
    _UNITS |= {_u: 1024**_i, f"{_u}ib": 1024**_i, f"{_u}b": 1000**_i}


def parse_bytes(value: Any) -> Any:
    """Reads sizes such as `512MiB`, `2 GB` or `1000`; other types are left to the validator."""
    if not isinstance(value, str):
        return value
    digits = value.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = value.strip()[len(digits) :].strip().lower()
    try:
        return int(float(digits) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise ValueError("expected a size such as 512MiB, 2GB or a number of bytes") from None


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]
"""A number of bytes; text with a unit is accepted (`1GiB`)."""


def execution(default: Any, **bounds: Any) -> Any:
    """Returns a field that says how to run, not what to make: it never changes the result."""
    return Field(default, json_schema_extra={"execution": True}, **bounds)


@dataclass(frozen=True, slots=True)
class FromScalar:
    """Annotation of a field: how one word on the command line becomes the block.

    Without it, a scalar sets a block's primary field, or the `kind` of a union of blocks.
    """

    read: Callable[[str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Flags:
    """The command line's flags, as far as a command acts on them."""

    dry_run: bool = False
    resume: bool = False
    append: bool = False


class Block(BaseModel):
    """A part of a configuration: unknown keys are errors, values cannot be changed afterwards."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        populate_by_name=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    primary: ClassVar[str | None] = None
    """The field that a scalar given to this block sets."""

    @model_validator(mode="before")
    @classmethod
    def _from_scalar(cls, data: Any) -> Any:
        if cls.primary is not None and not isinstance(data, dict | BaseModel) and data is not None:
            return {cls.primary: data}
        return data

    def identity(self) -> dict[str, Any]:
        """Returns what decides the result: every field but `out` and those marked `execution`."""
        return {
            name: _identity(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if name != "out"
            and not (
                isinstance(field.json_schema_extra, dict)
                and field.json_schema_extra.get("execution")
            )
        }

    def resolved(self) -> dict[str, Any]:
        """Returns the whole configuration as JSON values, under the names that a user writes."""
        return self.model_dump(mode="json", by_alias=True)


class Verb(Block):
    """The configuration of a verb that writes something."""

    storage: str | None = execution(None)
    """Root of a relative `out`: a path or URI (`s3://...`); `RAYDIST_STORAGE` if not given."""
    lock_wait: float = execution(60.0, ge=0)
    """Seconds to wait for another command that writes the same `out`; 0 is not at all."""


def _identity(value: Any) -> Any:
    if isinstance(value, Block):
        return value.identity()
    if isinstance(value, dict):
        return {key: _identity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_identity(item) for item in value]
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
