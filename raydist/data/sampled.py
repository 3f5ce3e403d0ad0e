"""Fingerprints of inputs as version 0.1.0 made them, to recognise what it built.

A file of more than 16 MiB was sampled, so that an edit could go unnoticed. Outputs with such
fingerprints are still "already built" while nothing of their inputs seems to have changed; new ones
have fingerprints of `raydist.data.contents`. This module goes with version 0.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raydist.data import docstrings
from raydist.data.files import open_input
from raydist.data.formats import irds
from raydist.data.parts import resolve
from raydist.data.sources import expand
from raydist.fingerprints import value_fingerprint

_PIECE = 64 << 10
_PIECES = 64
_SMALL = 16 << 20
_OPTIONS = {
    *("ids", "exclude_ids", "missing", "format", "fields", "order", "on_bad", "rejects"),
    *("encoding_errors", "sort"),
}
"""The options of sources that it had."""


def was_fingerprint(recorded: str, paths: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Returns whether version 0.1.0 recorded this of an input, with or without its options."""
    if len(recorded) == 32:
        return recorded == sampled_fingerprint(paths)
    collections = (irds.PREFIX, docstrings.PREFIX)
    content = [
        path if path.startswith(collections) else sampled_fingerprint([path]) for path in paths
    ]
    return recorded == value_fingerprint(
        [content, {k: options[k] for k in _OPTIONS & options.keys()}]
    )


def sampled_fingerprint(paths: Sequence[str]) -> str:
    """Returns 32 hex digits of names, sizes, and bytes: all of small files, samples of others."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        if path.startswith(irds.PREFIX):
            digest.update(path.encode())
            continue
        for file in expand(resolve(path, "corpus")):
            digest.update(f"{Path(file.path).name}\0{file.size}\0".encode())
            with open_input(file.path) as source:
                if file.size <= _SMALL:
                    digest.update(source.read())
                    continue
                step = (file.size - _PIECE) / (_PIECES - 1)
                for piece in range(_PIECES):
                    source.seek(round(piece * step))
                    digest.update(source.read(_PIECE))
    return digest.hexdigest()
