"""The building blocks of configurations.

A configuration is a frozen pydantic model of a verb. Its blocks are the rooms' specs, plain
dataclasses (`raydist.spec`); a model with the same fields (`model_of`) checks the user's values and
builds the spec. The fields of a spec are below its block's key, or the verb's own (`Flat`).
`raydist fields VERB` and the error messages come from the models alone; the docstring under a field
is its help.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    Tag,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

from raydist.fingerprints import Form
from raydist.spec import EXECUTION, LENIENT, Added, Formerly, FromText, Kind, Undecided


def execution(default: Any, **bounds: Any) -> Any:
    """Returns a field that does not change the result, and is not part of the identity."""
    return Field(default, json_schema_extra={"execution": True}, **bounds)


@dataclasses.dataclass(frozen=True, slots=True)
class FromScalar:
    """Annotation of a field: reads a block's keys and values from a scalar.

    Without it, a scalar sets a block's primary field, or the `kind` of a union of blocks that do
    not share one.
    """

    read: Callable[[str], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class _Flat:
    pass


T = TypeVar("T")
Flat = Annotated[T, _Flat()]
"""A spec whose fields are the verb's own: `indexing: Flat[IndexSpec]` takes `workers=2`, and
`config.indexing` is the spec. A field that the verb declares itself replaces the spec's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Flags:
    """The flags of the command line."""

    dry_run: bool = False
    resume: bool = False
    append: bool = False


class Block(BaseModel):
    """A part of a configuration: frozen, and strict about its keys."""

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
    word: ClassVar[str | None] = None
    """The field that a word of the command line sets that is neither a YAML file nor `a=b`."""
    variants: ClassVar[tuple[str, dict[str, type[Block]]]] = ("", {})
    """A field and, by its value, the configurations that take the place of this one."""
    _flat: ClassVar[tuple[str, ...]] = ()  # the attributes that are flat specs

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        cls._flatten()
        for field in cls.__pydantic_fields__.values():
            field.annotation = _checked(field.annotation, field.metadata)
            field.metadata = _understood(field.metadata)
        return handler(source)

    @classmethod
    def _flatten(cls) -> None:
        """Puts the fields of flat specs in their place."""
        own, fields = cls.__pydantic_fields__, dict[str, FieldInfo]()
        for name, field in own.items():
            if not any(isinstance(mark, _Flat) for mark in field.metadata):
                fields.setdefault(name, field)
                continue
            spec: Any = field.annotation
            for key, each in model_of(spec).model_fields.items():
                fields[key] = own.get(key, copy.copy(each))
            setattr(cls, name, property(functools.partial(_gathered, spec)))
            cls._flat = (*(each for each in cls._flat if each != name), name)
        cls.__pydantic_fields__ = fields

    @model_validator(mode="before")
    @classmethod
    def _from_scalar(cls, data: Any) -> Any:
        if cls.primary is not None and not isinstance(data, dict | BaseModel) and data is not None:
            return {cls.primary: data}
        if isinstance(data, dict):
            names = {former(n, f): n for n, f in cls.model_fields.items() if former(n, f) != n}
            return {names.get(name, name): value for name, value in data.items()}
        return data

    @model_validator(mode="after")
    def _check_specs(self) -> Self:
        for name in self._flat:
            getattr(self, name)
        return self

    def identity(self) -> dict[str, Any]:
        """Returns the fields that decide the result."""
        values: dict[str, Any] = identity(self)
        return values

    def lenient(self) -> tuple[tuple[str, ...], ...]:
        """Returns the places of the fields with which a stricter job can be continued."""
        return tuple(lenient(self))

    def resolved(self) -> dict[str, Any]:
        """Returns the whole configuration as JSON values, with keys as users write them."""
        values: dict[str, Any] = resolved(self)
        return values


def fields_of(value: Any) -> dict[str, FieldInfo]:
    """Returns the fields of a block or spec by name, and none for other values."""
    kind: Any = type(value)
    model = model_of(kind) if _is_spec(kind) else kind
    return model.model_fields if issubclass(model, Block) else {}


def identity(value: Any) -> Any:
    """Returns the fields that decide the result: all but `out` and those of the execution."""
    if fields := fields_of(value):
        return {
            former(name, field): identity(_decided(field, getattr(value, name)))
            for name, field in fields.items()
            if decides(name, field)
            if not _is_default(field, getattr(value, name))
        }
    if isinstance(value, dict):
        return {key: identity(item) for key, item in value.items()}
    return [identity(item) for item in value] if isinstance(value, list | tuple) else value


def former(name: str, field: FieldInfo) -> str:
    """Returns the name by which identities know a field."""
    return next((mark.name for mark in field.metadata if isinstance(mark, Formerly)), name)


def _decided(field: FieldInfo, value: Any) -> Any:
    """Returns a value, or what identities have for one that is not decided yet."""
    marks = (mark.value for mark in field.metadata if isinstance(mark, Undecided))
    return next(marks, None) if value is None else value


def _is_default(field: FieldInfo, value: Any) -> bool:
    """Returns whether an added field has its default."""
    return any(isinstance(mark, Added) for mark in field.metadata) and value == field.default


def lenient(value: Any, *within: str) -> Iterator[tuple[str, ...]]:
    """Yields the places of the lenient fields of a block or spec in its identity."""
    for name, field in fields_of(value).items():
        if LENIENT in field.metadata:
            yield (*within, name)
        else:
            yield from lenient(getattr(value, name), *within, name)


def decides(name: str, field: FieldInfo) -> bool:
    """Returns whether a field decides the result."""
    extra = field.json_schema_extra
    execution = EXECUTION in field.metadata or (isinstance(extra, dict) and "execution" in extra)
    return name != "out" and not execution


def resolved(value: Any) -> Any:
    """Returns a block or spec as JSON values, with keys as users write them."""
    if fields := fields_of(value):
        return {f.alias or name: resolved(getattr(value, name)) for name, f in fields.items()}
    if isinstance(value, dict):
        return {key: resolved(item) for key, item in value.items()}
    return [resolved(item) for item in value] if isinstance(value, list | tuple) else value


def short(value: Any) -> Any:
    """Returns the same without what has its default, but for the `kind` of a block."""
    if fields := fields_of(value):
        return {
            f.alias or name: short(getattr(value, name))
            for name, f in fields.items()
            if name == "kind" or getattr(value, name) != f.get_default(call_default_factory=True)
        }
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    return [short(item) for item in value] if isinstance(value, list | tuple) else value


def _is_spec(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


@functools.cache
def model_of(spec: type) -> type[Block]:
    """Returns the model that checks the fields of a spec."""
    hints = typing.get_type_hints(spec, include_extras=True)
    docs = {n: doc for cls in reversed(spec.__mro__) for n, doc in _docstrings(cls).items()}
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(spec):
        arguments: dict[str, Any] = {"description": docs.get(field.name)}
        if field.default is not dataclasses.MISSING:
            arguments["default"] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            arguments["default_factory"] = field.default_factory
        if field.name.endswith("_"):
            arguments["alias"] = field.name[:-1]
        fields[field.name] = (hints[field.name], Field(**arguments))
    model = create_model(spec.__name__, __base__=Block, __doc__=spec.__doc__, **fields)
    model.primary = getattr(spec, "primary", None)
    return model


def _gathered(spec: Any, block: Block) -> Any:
    return spec(**{name: getattr(block, name) for name in model_of(spec).model_fields})


def _checked(annotation: Any, marks: Sequence[Any] = ()) -> Any:
    """Returns a type with models in place of specs; `kind` chooses among a union of them."""
    if _is_spec(annotation):
        return Annotated[model_of(annotation), WrapValidator(_builder(annotation))]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal or not args:
        return annotation
    if origin is Annotated:
        return Annotated[(_checked(args[0], args[1:]), *_understood(args[1:]))]
    if origin not in (Union, types.UnionType):
        return origin[tuple(map(_checked, args))]
    specs = [each for each in args if _is_spec(each)]
    if len(specs) < 2:
        return Union[tuple(map(_checked, args))]  # noqa: UP007
    tags = {kind: _kinds(each)[0] for each in specs for kind in _kinds(each)}
    default = next((mark.default for mark in marks if isinstance(mark, Kind)), None)
    choices = tuple(Annotated[_checked(each), Tag(_kinds(each)[0])] for each in specs)
    others = [_checked(each) for each in args if each not in specs]
    return Union[(Annotated[Union[choices], Discriminator(_chooser(tags, default))], *others)]  # noqa: UP007


def _understood(marks: Sequence[Any]) -> list[Any]:
    """Returns annotations as pydantic and the command line understand them."""
    understood: list[Any] = []
    for mark in marks:
        if isinstance(mark, FromText):
            understood += [
                BeforeValidator(functools.partial(_read_text, mark)),
                FromScalar(mark.read),
            ]
        else:
            understood.append(mark)
    return understood


def _read_text(mark: FromText, value: Any) -> Any:
    return mark.read(value) if isinstance(value, str) else value


def _kinds(spec: type) -> tuple[str, ...]:
    return get_args(typing.get_type_hints(spec)["kind"])


def _chooser(tags: dict[str, str], default: str | None) -> Callable[[Any], Any]:
    def choose(value: Any) -> Any:
        if isinstance(value, dict):
            kind = value.get("kind", default)
        else:
            kind = getattr(value, "kind", None)
        return tags.get(kind, kind)  # type: ignore[arg-type]

    return choose


def _builder(spec: type) -> Callable[..., Any]:
    def build(value: Any, check: Callable[[Any], Block]) -> Any:
        if isinstance(value, spec):
            return value
        return _gathered(spec, check(value))

    return build


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _docstrings(cls: type) -> dict[str, str]:
    """Returns the docstrings under the fields that a spec's class declares."""
    if not _is_spec(cls):
        return {}
    return {
        field.target.id: inspect.cleandoc(doc.value.value)
        for field, doc in pairwise(_classes(cls.__module__)[cls.__name__].body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }


class Verb(Block):
    """The configuration of a verb that writes an output."""

    storage: str | None = execution(None)
    """Root of a relative `out`: a path or URI (`s3://...`); `RAYDIST_STORAGE` if not given."""
    lock_wait: float = execution(60.0, ge=0)
    """Seconds to wait for another command that writes to `out`; 0 does not wait."""
    fingerprint: Form = execution("full")
    """How inputs are told from others: by all bytes of their files (object stores: by tags), or,
    `fast`, by names, sizes and times of change. A complete output keeps the way it was built with.
    """
