"""What the models declare: a block's keys, a field's type, its help.

It is how arguments are read, mistakes explained, and the reference of a verb printed.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from raydist.config.base import Block, FromScalar, fields_of, former
from raydist.data.spec import split_paths
from raydist.spec import bytes_text, parse_bytes

_SIGNS = {"Ge": "≥", "Gt": ">", "Le": "≤", "Lt": "<"}


@dataclass(frozen=True, slots=True)
class Shape:
    """The type of a field, seen through optional, annotated and union types."""

    annotation: Any
    field: FieldInfo | None = None

    @property
    def _members(self) -> list[tuple[Any, tuple[Any, ...]]]:
        return list(_flatten(self.annotation, ()))

    @property
    def _annotations(self) -> list[Any]:
        """The annotations of the field and of its types."""
        return [*(self.field.metadata if self.field else []), *self._marks]

    @property
    def optional(self) -> bool:
        """Whether None is allowed."""
        return any(member is type(None) for member, _ in self._members)

    @property
    def blocks(self) -> list[type[Block]]:
        """The types of blocks that the field takes."""
        return [m for m, _ in self._members if isinstance(m, type) and issubclass(m, Block)]

    @property
    def is_block(self) -> bool:
        """Whether the field takes a block."""
        return bool(self.blocks)

    @property
    def tags(self) -> list[str]:
        """The kinds of a union of blocks."""
        return [kind for block in self.blocks for kind in kinds(block)]

    @property
    def item(self) -> Shape | None:
        """The type of a list's items."""
        for member, _ in self._members:
            if get_origin(member) in (list, tuple, set, frozenset):
                return Shape(get_args(member)[0])
        return None

    @property
    def mapping(self) -> Shape | None:
        """The type of a mapping's values."""
        for member, _ in self._members:
            if get_origin(member) is dict:
                return Shape(get_args(member)[1])
        return None

    @property
    def takes_text(self) -> bool:
        """Whether an argument is taken verbatim."""
        for member, _ in self._members:
            if get_origin(member) is Literal and all(isinstance(v, str) for v in get_args(member)):
                return not self.optional
            if isinstance(member, type) and (
                issubclass(member, str) or member.__name__ in {"Path", "PurePath"}
            ):
                return self.item is None or not self.optional
        return False

    @property
    def literals(self) -> dict[str, Any]:
        """The values of a closed choice that are not text, by their spelling."""
        choices = [get_args(m) for m, _ in self._members if get_origin(m) is Literal]
        return {str(v): v for values in choices for v in values if not isinstance(v, str)}

    @property
    def default(self) -> Any:
        """The field's default; None if it is required."""
        if self.field is None:
            return None
        value = self.field.get_default(call_default_factory=True, validated_data={})
        return None if value is PydanticUndefined else value

    @property
    def is_size(self) -> bool:
        """Whether the field is a number of bytes."""
        marks = [
            *(self.field.metadata if self.field else ()),
            *(m for _, e in self._members for m in e),
        ]
        return any(isinstance(mark, FromScalar) and mark.read is parse_bytes for mark in marks)

    @property
    def is_paths(self) -> bool:
        """Whether the field is a list of paths."""
        return any(isinstance(m, FromScalar) and m.read is split_paths for m in self._annotations)

    @property
    def default_text(self) -> str:
        """The field's default as users write it."""
        return bytes_text(self.default) if self.is_size and self.default else _text(self.default)

    @property
    def help(self) -> str:
        """The docstring under the field."""
        return " ".join((self.field.description or "").split()) if self.field else ""

    @property
    def bounds(self) -> str:
        """The limits of a number, or of each item of a list: `≥ 0, < 1`."""
        marks = [*(self.field.metadata if self.field else []), *(self.item or self)._marks]
        limits = [(mark, mark.__class__.__name__) for mark in marks]
        return ", ".join(
            f"{_SIGNS[kind]} {getattr(mark, kind.lower())}"
            for mark, kind in limits
            if kind in _SIGNS
        )

    @property
    def _marks(self) -> list[Any]:
        return [mark for _, marks in self._members for mark in marks]

    def from_scalar(self, value: Any) -> Any:
        """Returns the mapping that a scalar given to this block stands for."""
        for entry in self._annotations:
            if isinstance(entry, FromScalar):
                return entry.read(str(value))
        primaries = {block.primary for block in self.blocks}
        primary = primaries.pop() if len(primaries) == 1 else None
        if primary is None and len(self.blocks) > 1:
            primary = "kind"
        return value if primary is None else {primary: value}


def kinds(block: type[Block]) -> list[str]:
    """Returns the kinds that choose a block, none if it is no member of a union."""
    kind = block.model_fields.get("kind")
    return [] if kind is None else [str(value) for value in get_args(kind.annotation)]


def shape_of(block: type[Block], name: str) -> Shape | None:
    """Returns the shape of a block's field by its name or alias."""
    for key, field in block.model_fields.items():
        if name in (field.alias, key, former(key, field)):
            return Shape(field.annotation, field)
    return None


def current(shape: Shape, name: str) -> str:
    """Returns the present name of a key, which may be spelled as it was formerly."""
    for block in shape.blocks:
        for key, field in block.model_fields.items():
            if name == former(key, field):
                return field.alias or key
    return name


def child(shape: Shape, name: str, kind: Any = None) -> Shape | None:
    """Returns the shape below `shape` under the key `name`, or None if there is no such key."""
    candidates = [(block, shape_of(block, name)) for block in shape.blocks]
    fields = [(block, below) for block, below in candidates if below is not None]
    for block, below in fields:
        if kind is None or not kinds(block) or kind in kinds(block):
            return below
    return fields[0][1] if fields else shape.mapping


def keys(shape: Shape) -> list[str]:
    """Returns the keys that are legal below `shape`."""
    names = [f.alias or n for block in shape.blocks for n, f in block.model_fields.items()]
    return list(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a verb's reference."""

    key: str
    type: str
    default: str
    help: str
    bounds: str = ""


def reference(model: type[Block], prefix: str = "") -> Iterator[Row]:
    """Yields one row per key of `model`, in the order of the fields."""
    for name, field in model.model_fields.items():
        shape = Shape(field.annotation, field)
        key = f"{prefix}{field.alias or name}"
        if shape.mapping is not None and shape.mapping.is_block:
            yield Row(key, "mapping of blocks", _text(shape.default), shape.help)
            yield from _blocks(shape.mapping, f"{key}.ID.")
        elif shape.is_block:
            default = "required" if field.is_required() else _text(shape.default)
            yield Row(key, "block", default, shape.help)
            yield from _blocks(shape, f"{key}.")
        else:
            default = "required" if field.is_required() else shape.default_text
            note = " A word without a key sets it." if key == model.word else ""
            kind = "size" if shape.is_size else _type_name(field.annotation)
            yield Row(key, kind, default, shape.help + note, shape.bounds)


def _blocks(shape: Shape, prefix: str) -> Iterator[Row]:
    """Yields the rows of a block; those of a union say which kinds have them."""
    kind_key = f"{prefix}kind"
    owners: dict[Row, list[str]] = {}
    for block in shape.blocks:
        for row in reference(block, prefix):
            if row.key == kind_key and not row.help:
                row = replace(row, help=(block.__doc__ or "").partition("\n")[0])
            owners.setdefault(row, []).extend(kinds(block))
    for row, having in owners.items():
        some = len(having) < len(shape.tags) and row.key != kind_key  # its type is the kind
        yield replace(row, help=f"[{'|'.join(having)}] {row.help}") if some else row


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if fields_of(value):
        kind = getattr(value, "kind", None)
        return str(kind) if kind is not None else ""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).replace("\n", "\\n")


def _type_name(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(args[0])
    if origin is Literal:
        return " | ".join(str(arg) or "''" for arg in args)
    if origin in (Union, types.UnionType):
        return " | ".join(_type_name(a) for a in args if a is not type(None))
    if origin in (list, tuple, set, frozenset):
        return f"list of {_type_name(args[0])}"
    if origin is dict:
        return f"mapping to {_type_name(args[1])}"
    names = {"str": "text", "int": "integer", "float": "number", "bool": "true | false"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name)


def _flatten(annotation: Any, extra: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        base, *more = get_args(annotation)
        yield from _flatten(base, (*extra, *more))
    elif origin in (Union, types.UnionType):
        for arg in get_args(annotation):
            yield from _flatten(arg, extra)
    else:
        yield annotation, extra
