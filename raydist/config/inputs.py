"""What a configuration reads: the fields that name inputs, and what tells their contents apart.

Specs and configurations say which of their fields name inputs (`raydist.spec.Reads`); a source
(`corpus`, `queries`, `qrels`, `run`) is one as a whole. Where an input lies is not its identity.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from raydist.config.base import Block, decides, fields_of
from raydist.fingerprints import Contents, Form, model_fingerprint, value_fingerprint
from raydist.spec import Reads

_RECORDS = ("created", "seconds", "cpu_seconds", "versions", "config_file")
"""Keys of a manifest that say how and when an output was written, not what it holds."""


class Input(NamedTuple):
    """An input of a configuration.

    Attributes:
        name: its key as users write it, without a block's primary field.
        place: the field that says where it lies, as in the identity.
        kind: `source`, or what `Reads` says.
        value: the source, or the paths.
    """

    name: str
    place: tuple[str, ...]
    kind: str
    value: Any

    @property
    def paths(self) -> tuple[str, ...]:
        """Where it lies."""
        return tuple(self.value.paths) if self.kind == "source" else self.value


def inputs(config: Block) -> dict[str, Contents]:
    """Returns what tells the inputs of a configuration from others by content, by their names."""
    form: Form = getattr(config, "fingerprint", "full")
    return {
        each.name: replace(
            _contents(each, form), places=(each.place,), former=_former_names(each.name)
        )
        for each in find_inputs(config)
    }


def external(config: Block, own: Sequence[str]) -> dict[str, Contents]:
    """Returns those inputs that exist, apart from what lies in `own` places, around or below."""
    from raydist.errors import DataError

    excluded = [_place(each) for each in own]
    names = set()
    for each in find_inputs(config):
        with contextlib.suppress(DataError):  # nothing is there, which the verb will say
            places = [_place(path) for path in each.paths]
            if all(_exists(place) for place in places) and not any(
                _inside(place, mine) or _inside(mine, place)
                for place in places
                for mine in excluded
            ):
                names.add(each.name)
    return {name: each for name, each in inputs(config).items() if name in names}


def find_inputs(value: Any, key: tuple[str, ...] = ()) -> Iterator[Input]:
    """Yields the inputs of what decides the result, in the order of the fields."""
    from raydist.data.spec import AnySource

    if isinstance(value, AnySource):
        yield Input(".".join(key), (*key, "path"), "source", value)
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from find_inputs(item, (*key, str(name)))
    for name, field in fields_of(value).items():
        item = getattr(value, name)
        if not decides(name, field):
            continue
        mark = next((each for each in field.metadata if isinstance(each, Reads)), None)
        if mark is None:
            yield from find_inputs(item, (*key, name))
        elif item and (mark.kind != "text" or is_text_file(item)):
            own = (*key, field.alias or name)
            primary = bool(key) and name == getattr(type(value), "primary", None)
            paths = (item,) if isinstance(item, str) else tuple(item)
            yield Input(".".join(key if primary else own), (*key, name), mark.kind, paths)


def is_text_file(text: str) -> bool:
    """Returns whether a value that is a text or names a file of it names a file."""
    return "\n" not in text and len(text) <= 255 and Path(text).is_file()


def _contents(each: Input, form: Form) -> Contents:
    from raydist.data.contents import contents

    if each.kind == "model":
        return Contents(lambda form: _model(each.value[0]))
    if each.kind == "output":
        return Contents(lambda form: _output(each.value), was=lambda text: _was(text, each.value))
    return contents(each.value, form, "samples" if each.kind == "samples" else "files")


def _model(name: str) -> str:
    from raydist.models.backbone import resolve_folder

    return model_fingerprint(resolve_folder(name))


def _output(folders: Sequence[str]) -> str:
    """Returns a fingerprint of what verbs wrote, by their manifests."""
    from raydist import storage
    from raydist.manifest import read_manifest

    manifests = [read_manifest(storage.local(folder)) for folder in folders]
    return value_fingerprint(
        [{key: each[key] for key in each.keys() - {*_RECORDS}} for each in manifests]
    )


def _was(recorded: str, folders: Sequence[str]) -> bool:
    """Returns whether version 0.1.0 recorded this of what verbs wrote: of manifests or a store."""
    from raydist import storage
    from raydist.data.sampled import sampled_fingerprint
    from raydist.errors import DataError
    from raydist.manifest import MANIFEST, read_manifest

    places = [storage.local(folder) for folder in folders]
    stores = [each / (read_manifest(each).get("store") or "store") for each in places]
    with contextlib.suppress(DataError):  # an index without texts
        if recorded == sampled_fingerprint([str(each / "store.json") for each in stores[:1]]):
            return True
    return recorded == sampled_fingerprint([str(each / MANIFEST) for each in places])


def _former_names(name: str) -> tuple[str, ...]:
    """Returns the names under which version 0.1.0 recorded an input."""
    short = name.removeprefix("datasets.")
    names = [f"data.{name}", short, f"{short}.path", f"{name}.model"]
    if name in ("reranker", "teacher"):
        names.append("model")
    if name == "index":
        names.append("texts")
    if name == "teacher.index":
        names += ["reranker.index", "teacher.reranker.index"]
    return tuple(names)


def _place(text: str) -> str:
    """Returns the absolute path that a text stands for; URIs and collections stay."""
    from raydist.data.files import is_uri
    from raydist.models.folders.packaged import packaged

    if is_uri(text) or text.startswith(("docstrings:", "irds:")):
        return text
    return os.path.abspath(os.path.expanduser(packaged(text)))


def _exists(place: str) -> bool:
    return ":" in place or os.path.exists(place) or bool(glob.glob(place, recursive=True))


def _inside(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
