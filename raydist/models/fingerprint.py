"""A cheap digest of a model folder, to know embeddings and scores by the model that made them."""

from __future__ import annotations

import hashlib
from pathlib import Path

_PIECE = 64 << 10
_PIECES = 64
_SMALL = 16 << 20
_NOTES = ("manifest.json", "settings.json")
"""What raydist writes about a model into its folder."""


def model_fingerprint(folder: str | Path) -> str:
    """Returns 16 hex digits over what decides a model's output.

    Configuration and tokenizer files are read whole (up to 16 MiB). Of each weight file, its size
    and 64 pieces of 64 KiB, evenly spread: training moves every weight, so a changed model does
    not go unnoticed, and a model of many gigabytes takes milliseconds. Hidden files and what
    raydist notes about a model are left out: they decide nothing, and come and go.
    """
    digest = hashlib.blake2b(digest_size=8)
    folder = Path(folder)
    for path in sorted(folder.rglob("*")):
        weights = path.suffix == ".safetensors"
        if not path.is_file() or not (weights or path.suffix in (".json", ".txt", ".model")):
            continue
        name = path.relative_to(folder).as_posix()
        if name in _NOTES or any(part.startswith(".") for part in name.split("/")):
            continue
        size = path.stat().st_size
        digest.update(f"{name} {size}\n".encode())
        with open(path, "rb") as file:
            if size <= (_PIECES * _PIECE if weights else _SMALL):
                digest.update(file.read())
                continue
            for i in range(_PIECES):
                file.seek(i * (size - _PIECE) // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    return digest.hexdigest()
