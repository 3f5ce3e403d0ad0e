"""The one decorator of all kernels: machine code that is cached by the content of its sources."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compiles `function` on first use and caches the machine code on disk.

    Kernels release the interpreter's lock, check no bounds and divide as C does. The cache is found
    by what is in a kernel's file and in the files that it imports, not by where the package lies:
    every submitted job has its package in a folder of its own, and need not compile anew.
    """
    shared = numba.config.CACHE_DIR
    sources = _sources_hash(function.__module__)
    base = _cache_base(shared)
    numba.config.CACHE_DIR = str(base / sources)
    try:
        kept = _source_in(base / sources, Path(function.__code__.co_filename))
        function.__code__ = function.__code__.replace(co_filename=str(kept))
        compiled = numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")(
            function
        )
    finally:
        numba.config.CACHE_DIR = shared
    return cast(F, compiled)


@lru_cache
def _cache_base(shared: str) -> Path:
    """Returns the folder of all caches: NUMBA_CACHE_DIR, the user's own, or beside the package.

    Machine code is loaded from there, so a folder that others may write is not taken unasked.
    """
    if shared:
        return Path(shared)
    beside = Path(__file__).with_name("__pycache__")
    own = Path(os.environ.get("RAYDIST_CACHE") or Path.home() / ".cache" / "raydist") / "kernels"
    for place in (own, beside):
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = place.stat()
            private = found.st_uid == os.getuid() and not found.st_mode & 0o022
            if (private or place == beside) and os.access(place, os.W_OK):
                return place
    return beside


@lru_cache
def _source_in(folder: Path, source: Path) -> Path:
    """Returns a copy of a source file in the cache: numba finds machine code by the file's path."""
    kept = folder / source.name
    try:
        if not kept.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{source.name}.{os.getpid()}"
            partial.write_bytes(source.read_bytes())
            os.replace(partial, kept)
    except OSError:  # nothing can be kept: numba looks for a place by itself
        return source
    return kept


@lru_cache
def _sources_hash(module: str) -> str:
    """Returns 16 digits of the sources of a module and of what it imports of this package."""
    digest = hashlib.blake2b(digest_size=8)
    seen, waiting = {module}, [module]
    while waiting:
        found = importlib.util.find_spec(waiting.pop())
        if found is None or found.origin is None:
            continue
        source = Path(found.origin).read_bytes()
        digest.update(source)
        names = re.findall(rb"^from (raydist\.[\w.]+) import", source, re.MULTILINE)
        fresh = sorted({name.decode() for name in names} - seen)
        seen.update(fresh)
        waiting += fresh
    return f"kernels-{digest.hexdigest()}"


def inlined(function: F) -> F:
    """Compiles `function` into the kernels that call it: for small steps and large tuples."""
    return cast(F, numba.njit(forceinline=True, boundscheck=False, error_model="numpy")(function))
