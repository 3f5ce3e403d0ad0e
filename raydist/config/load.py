"""From files and `a.b=value` arguments to a validated configuration.

Files are laid over the defaults from left to right, arguments over them. Mappings merge deeply,
lists replace, and a changed `kind` replaces its block. All mistakes are reported together, one line
each, with the nearest legal key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from raydist.config.base import Block, Verb
from raydist.config.schema import Shape, child, current, keys, kinds, shape_of
from raydist.data.spec import split_paths
from raydist.errors import ConfigError

B = TypeVar("B", bound=Block)


def load(
    model: type[B],
    files: Sequence[str | Mapping[str, Any]] = (),
    arguments: Sequence[str] = (),
) -> B:
    """Returns the configuration of `model` from YAML files and `key=value` arguments.

    Args:
        model: the verb's configuration.
        files: paths of YAML files, or their contents.
        arguments: laid over the files.

    Raises:
        ConfigError: with one line per mistake.
    """
    layers = [read_yaml(file) if isinstance(file, str) else dict(file) for file in files]
    model = _variant(model, layers, arguments)
    root = Shape(model)
    merged: dict[str, Any] = {}
    problems: list[str] = []
    for layer in layers:
        merged = merge(merged, _lift(layer, root), root)
    layer = parse_arguments(model, arguments, problems)
    merged = merge(merged, layer, root)
    merged = _fill_kinds(merged, root)
    try:
        config = model.model_validate(merged)
    except ValidationError as error:
        problems += _explain(error, root)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return config


def _variant(
    model: type[B], layers: Sequence[Mapping[str, Any]], arguments: Sequence[str]
) -> type[B]:
    """Returns the configuration that the value of a field chooses, the same for most."""
    key, variants = model.variants
    words = [word.partition("=") for word in arguments]
    values = [layer[key] for layer in layers if key in layer]
    values += [value for name, _, value in words if name == key]
    chosen = variants.get(str(values[-1])) if values else None
    return model if chosen is None else chosen  # type: ignore[return-value]


def split_words(
    model: type[Block], words: Sequence[str]
) -> tuple[list[str | Mapping[str, Any]], list[str]]:
    """Returns the files and arguments, as `load` takes them, of a verb's command line.

    A word of a verb that takes one (`raydist verify IDX`) becomes the contents of a file.

    Raises:
        ConfigError: a word too many, or its key beside it.
    """
    arguments = [word for word in words if "=" in word]
    files: list[str | Mapping[str, Any]] = [word for word in words if "=" not in word]
    if model.word is None:
        _check_files(model, [str(file) for file in files])
        return files, arguments
    values = [file for file in files if not str(file).endswith((".yaml", ".yml"))]
    shape = shape_of(model, model.word)
    assert shape is not None
    if shape.item is None and len(values) > 1:
        raise ConfigError(f"{values[1]}: expected a single {model.word}, and {values[0]} is one")
    files = [file for file in files if file not in values]
    if values:
        again = next((each for each in arguments if each.startswith(f"{model.word}=")), None)
        if again is not None:
            raise ConfigError(f"{again}: {values[0]} sets {model.word} already; remove one of them")
        files.append({model.word: values if shape.item is not None else values[0]})
    return files, arguments


def _check_files(model: type[Block], words: Sequence[str]) -> None:
    """Raises ConfigError for words that are no YAML files, with the keys that may be meant."""
    others = [word for word in words if not _may_be_yaml(word)]
    own = [name for name in keys(Shape(model)) if name not in Verb.model_fields]
    lines = [
        f"{word}: expected key=value or a YAML file; did you mean {key}={word}?"
        for word, key in zip(others, own)
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def _may_be_yaml(word: str) -> bool:
    path = Path(word)
    if path.suffix in (".yaml", ".yml", ".json"):
        return True
    return "://" not in word and path.suffix == "" and path.exists() and not path.is_dir()


def parse_arguments(
    model: type[Block], arguments: Iterable[str], problems: list[str]
) -> dict[str, Any]:
    """Returns the mapping that `a.b=value` arguments spell, with values of the fields' types.

    Only the first `=` separates. A scalar for a block becomes its primary field; dotted keys may
    come before or after it. Below a mapping of plain values the rest of a key is one name, dots and
    all. The last value of a repeated key counts; that of a list is a mistake, because both may be
    meant. Mistakes are appended to `problems`.
    """
    root = Shape(model)
    lists: dict[str, str] = {}
    tree: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            problems.append(f"{argument}: expected key=value or a YAML file")
            continue
        path = _path(root, key)
        shapes = [root]
        for i, name in enumerate(path):
            below = child(shapes[-1], name)
            if below is None:
                problems.append(_unknown(path[: i + 1], keys(shapes[-1])))
                break
            shapes.append(below)
        else:
            try:
                value = _read(shapes[-1], text)
            except (ValueError, yaml.YAMLError) as error:
                problems.append(f"{key} = {text!r}: {error}")
                continue
            if shapes[-1].item is not None:
                if key in lists:
                    problems.append(
                        f"{key} = {text}: it is {lists[key]} already; expected one list, "
                        f"{key}=[A,B]"
                    )
                lists[key] = text
            tree = merge(tree, _nest(path, value), root, replace_kinds=False)
    return tree


def merge(
    base: Mapping[str, Any], over: Mapping[str, Any], shape: Shape, replace_kinds: bool = True
) -> dict[str, Any]:
    """Returns `base` overlaid with `over`: deep for mappings, replacing for everything else."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        below = child(shape, str(name))
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            changed = "kind" in value and "kind" in old and value["kind"] != old["kind"]
            if not (changed and replace_kinds):
                value = merge(old, value, below or Shape(object), replace_kinds)
        merged[name] = value
    return merged


def _path(root: Shape, key: str) -> list[str]:
    """Returns the names of a dotted key, of which the last may have dots."""
    names, shape = key.split("."), root
    for i, name in enumerate(names):
        values = shape.mapping
        if values is not None and not values.is_block and values.mapping is None:
            return [*names[:i], ".".join(names[i:])]
        below = child(shape, name)
        if below is None:
            break
        names[i] = current(shape, name)
        shape = below
    return names


def _nest(path: Sequence[str], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return value  # type: ignore[no-any-return]


def read_yaml(file: str) -> dict[str, Any]:
    """Returns the keys and values of a YAML file.

    Raises:
        ConfigError: it cannot be read, is not YAML, or holds something else.
    """
    try:
        data = _parse(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; expected key=value or a YAML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{file}: a folder; expected key=value or a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {str(error).replace(chr(10), ' ')}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: expected keys and values, got {type(data).__name__}")
    return data


def _parse(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """YAML in which `2e-5` is a number, only true/false are booleans, and keys are unique."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in scalars:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in pairs if not tag.endswith((":bool", ":float", ":int"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?)$"
    ),
    list("-+0123456789."),
)


def _lift(value: Any, shape: Shape) -> Any:
    """Returns a file's value in which the scalars of blocks are their primary fields."""
    if isinstance(value, dict):
        return {
            current(shape, name): _lift(item, below) if (below := child(shape, str(name))) else item
            for name, item in value.items()
        }
    if isinstance(value, list) or value is None or not shape.is_block:
        return value
    try:
        return shape.from_scalar(value)
    except ValueError:
        return value  # the field says what is wrong


def _read(shape: Shape, text: str) -> Any:
    """Returns an argument's value by the type of its field."""
    stripped = text.strip()
    if shape.is_block:
        if stripped.startswith("{"):
            return _lift(_flow(stripped), shape)
        if shape.optional and stripped in {"null", "none"}:
            return None
        return shape.from_scalar(text)
    if shape.takes_text:
        return text
    if shape.optional and stripped in {"null", "none", ""}:
        return None
    if shape.item is not None:
        if stripped.startswith("[") and stripped.endswith("]"):
            stripped = stripped[1:-1]
        elif shape.is_paths:
            return split_paths(stripped)
        return [_read(shape.item, part.strip()) for part in _split(stripped)]
    if shape.mapping is not None:
        return _lift(_flow(stripped), shape)
    return shape.literals.get(stripped, stripped)


def _flow(text: str) -> Any:
    value = _parse(text)
    if not isinstance(value, dict):
        raise ValueError("expected a mapping such as {a: 1, b: 2}")
    return value


def _split(text: str) -> list[str]:
    """Splits text at commas outside brackets."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part for part in (*parts, text[start:]) if part.strip()]


def _fill_kinds(value: Any, shape: Shape) -> Any:
    """Adds the default's `kind` to blocks of a union that do not say theirs."""
    if not isinstance(value, dict):
        return value
    filled = {}
    for name, item in value.items():
        below = child(shape, str(name), value.get("kind"))
        if below is not None:
            union = len(below.blocks) > 1 and below.default is not None
            if union and isinstance(item, dict) and "kind" not in item:
                item = {"kind": below.default.kind, **item}
            item = _fill_kinds(item, below)
        filled[name] = item
    return filled


def _unknown(path: Sequence[str], legal: Sequence[str], owners: Sequence[str] = ()) -> str:
    """Returns the line of an unknown key; `owners` are other kinds of the block that have it."""
    where = ".".join(path)
    if owners:
        return f"{where}: unknown key; it belongs to kind={'|'.join(owners)}"
    near = difflib.get_close_matches(path[-1], legal, 1, 0.5)
    if near:
        return f"{where}: unknown key; did you mean {'.'.join([*path[:-1], near[0]])}?"
    return f"{where}: unknown key; allowed here: {', '.join(legal)}"


_WORDS = {
    "too_short": "expected at least {min_length}, got {actual_length}",
    "string_too_short": "must not be empty",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
}
"""What is said instead of pydantic's words of its own types."""


def _explain(error: ValidationError, root: Shape) -> list[str]:
    """Returns a line per pydantic error: the key as users write it, the value, what is allowed."""
    lines = []
    for item in error.errors(include_url=False):
        shape: Shape | None = root
        union: Shape | None = None  # what `shape` was chosen from by its kind
        path: list[str] = []
        for part in item["loc"]:
            if isinstance(part, int):
                path.append(str(part + 1))
                shape = shape.item if shape else None
                continue
            if shape is not None and len(shape.blocks) > 1 and part in shape.tags:
                union = shape  # pydantic says which member it checked; users do not write that
                shape = Shape(next(block for block in shape.blocks if part in kinds(block)))
                continue
            if part == "[key]":
                continue
            path.append(part)
            below = child(shape, part) if shape else None
            if below is not None:
                shape, union = below, None
        where = ".".join(path)
        if item["type"] == "extra_forbidden":
            assert shape is not None
            others = union.blocks if union else []
            owners = [
                kind for block in others if shape_of(block, path[-1]) for kind in kinds(block)
            ]
            lines.append(_unknown(path, keys(shape), owners))
        elif item["type"] == "missing":
            lines.append(f"{where}: required{_help(shape)}")
        elif item["type"].startswith("union_tag"):
            tags = ", ".join(shape.tags) if shape else ""
            kind = item.get("ctx", {}).get("tag")
            lines.append(
                f"{where}.kind = {kind!r}: expected one of {tags}"
                if kind
                else f"{where}.kind: required, one of {tags}"
            )
        else:
            message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            message = message[:1].lower() + message[1:]
            if own := _WORDS.get(item["type"]):
                message = own.format(**item.get("ctx", {}))
            value = item["input"]
            equals = f" = {value!r}" if isinstance(value, str | int | float | bool) else ""
            lines.append(f"{where}{equals}: {message}" if where else message)
    return lines


def _help(shape: Shape | None) -> str:
    return f": {shape.help}" if shape and shape.help else ""
