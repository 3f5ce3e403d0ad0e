"""Short hashes that identify what outputs were made from: values, models, tokenizers.

Those of files are in `raydist.data.contents`. Manifests hold them, so their values are part of the
format of what raydist writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Form = Literal["full", "fast"]
"""Of all bytes, or of names, sizes and times of change."""
FORMS: tuple[Form, ...] = get_args(Form)

_PIECE = 64 << 10
_PIECES = 64
_SMALL = 16 << 20
_NOTES = ("manifest.json", "settings.json")
"""What raydist writes about a model into its folder."""


def value_fingerprint(value: Any) -> str:
    """Returns 16 hex digits of a JSON-serialisable value, whatever the order of its keys."""
    data = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.blake2b(data.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def text_key(text: str) -> int:
    """Returns a 64-bit hash of a query's or a document's text, as a signed integer.

    Texts that differ in case or white space alone are the same: a copy of a positive is no
    negative. Nothing keeps these values but what is made anew with every version.
    """
    words = " ".join(text.casefold().split())
    digest = hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


@dataclass(frozen=True, slots=True)
class Contents:
    """What tells the content of an input from others, computed when it is needed.

    Attributes:
        compute: returns the fingerprint in a form.
        form: of the fingerprint that is recorded.
        was: whether an earlier version recorded a text of the same content.
        places: fields of the configuration that only say where the input lies.
        former: names under which earlier versions recorded it.
    """

    compute: Callable[[Form], str]
    form: Form = "full"
    was: Callable[[str], bool] = lambda recorded: False
    places: tuple[tuple[str, ...], ...] = ()
    former: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.compute(self.form)

    def matches(self, recorded: str) -> bool:
        """Returns whether a fingerprint, in its own form, is of this content."""
        for form in FORMS:
            if recorded.startswith(f"{form}:"):
                return recorded == self.compute(form)
        return self.was(recorded) or recorded == str(self)


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
