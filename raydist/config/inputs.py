"""What a configuration reads, by content: a file replaced under its name is another input."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raydist.config.base import Block, fields_of, identity


def contents(config: Block, own: Sequence[str] = ()) -> dict[str, str]:
    """Returns fingerprints of what a configuration names and what is there.

    Any text that names something counts, which may be too much and is never too little.

    Args:
        config: a verb's configuration.
        own: places that do not count, nor what lies below or around them.
    """
    from raydist.errors import DataError
    from raydist.fingerprints import file_fingerprint

    excluded = [_place(each) for each in own]
    fingerprints = {}
    for text in sorted(set(_texts(config)) - {""}):
        with contextlib.suppress(DataError):  # it is missing, which the verb will report
            where = _place(text)
            if any(_inside(where, each) or _inside(each, where) for each in excluded):
                continue
            if ":" in where or os.path.exists(where) or glob.glob(where, recursive=True):
                fingerprints[text] = file_fingerprint(where)
    return fingerprints


def _texts(value: Any) -> Iterator[str]:
    """Yields every text of what decides the result."""
    if isinstance(value, str):
        yield value
    elif fields_of(value):
        yield from getattr(value, "paths", ())  # the docstring collection has no `path`
        for name in identity(value):
            yield from _texts(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _place(text: str) -> str:
    """Returns the absolute path that a text stands for; URIs and collections stay."""
    from raydist.data.files import is_uri
    from raydist.models.packaged import packaged

    if is_uri(text) or text.startswith(("docstrings:", "irds:")):
        return text
    return os.path.abspath(os.path.expanduser(packaged(text)))


def _inside(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
