"""Short hashes that identify what outputs were made from: values, files, models, tokenizers.

All are of content, never of times or folders. Manifests hold them, so their values are part of the
format of what raydist writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raydist.data.files import Paths

_PIECE = 64 << 10
_PIECES = 64
_SMALL = 16 << 20
_NOTES = ("manifest.json", "settings.json")
"""What raydist writes about a model into its folder."""


def value_fingerprint(value: Any) -> str:
    """Returns 16 hex digits of a JSON-serialisable value, whatever the order of its keys."""
    data = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.blake2b(data.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def file_fingerprint(paths: Paths) -> str:
    """Returns 32 hex digits that tell inputs apart by content: same bytes, same fingerprint.

    Files up to 16 MiB are hashed whole, larger ones by size and 64 evenly spaced samples of 64 KiB,
    so that a terabyte takes milliseconds. Names of files count, folders and times do not.
    """
    from raydist.data.files import open_input
    from raydist.data.formats import irds
    from raydist.data.sources import expand, path_list
    from raydist.data.splits import resolve

    digest = hashlib.blake2b(digest_size=16)
    for path in path_list(paths):
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


def model_fingerprint(folder: str | Path) -> str:
    """Returns 16 hex digits of what decides a model's output.

    Configuration and tokenizer files are read whole (up to 16 MiB). Of each weight file, its size
    and 64 pieces of 64 KiB, evenly spread: training moves every weight, so a changed model does
    not go unnoticed, and a model of many gigabytes takes milliseconds. Hidden files and what
    raydist notes about a model are left out: they decide nothing, and come and go.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, path in _model_files(Path(folder)):
        size = path.stat().st_size
        digest.update(f"{name} {size}\n".encode())
        with open(path, "rb") as file:
            if size <= (_PIECES * _PIECE if path.suffix == ".safetensors" else _SMALL):
                digest.update(file.read())
                continue
            for piece in range(_PIECES):
                file.seek(piece * (size - _PIECE) // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    return digest.hexdigest()


def _model_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if path.suffix not in (".safetensors", ".json", ".txt", ".model") or name in _NOTES:
            continue
        if path.is_file() and not hidden:
            yield name, path


def tokenizer_fingerprint(folder: Path) -> str:
    """Returns 16 hex digits of a folder's tokenizer.json, whatever padding and truncation it has.

    Returns the empty string where the folder (of two towers) has its tokenizers further down.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        return ""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()[:16]
