"""The one decorator of all kernels: machine code that is cached by the content of its sources."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import event
from numba.core.registry import CPUDispatcher

from raydist.kernels.dispatcher import Kernel

_KNOWN = (0, 68)
"""The version of numba whose compiler `Kernel` changes; others compile as they do, more slowly."""
F = TypeVar("F", bound=Callable[..., Any])
_IMPORT = re.compile(r"^(?:from|import) (raydist[\w.]*)(?: import (\([^)]*\)|.*))?", re.MULTILINE)


class _Undisturbed(event.Listener):  # type: ignore[misc]
    """Stops the garbage collector while a kernel is compiled: it takes a tenth of the time."""

    def __init__(self) -> None:
        self._depth = 0
        self._enabled = False

    def on_start(self, event: Any) -> None:
        if self._depth == 0:
            self._enabled = gc.isenabled()
            gc.disable()
        self._depth += 1

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if self._depth == 0 and self._enabled:
            gc.enable()


event.register("numba:compile", _Undisturbed())


def kernel(function: F) -> F:
    """Compiles `function` on first use and caches the machine code on disk.

    Kernels release the interpreter's lock, check no bounds and divide as C does. The key of the
    cache is the content of a kernel's file and of the files that it imports, not their path: every
    submitted job has its package in a folder of its own, and need not compile again.
    """
    shared = numba.config.CACHE_DIR
    sources = _sources_hash(function.__module__)
    base = _cache_base(shared)
    numba.config.CACHE_DIR = str(base / sources)
    try:
        copy = _source_in(base / sources, Path(function.__code__.co_filename))
        function.__code__ = function.__code__.replace(co_filename=str(copy))
        compiled = _compiled(function, nogil=True)
        if isinstance(compiled, CPUDispatcher):
            compiled.enable_caching()
    finally:
        numba.config.CACHE_DIR = shared
    return cast(F, compiled)


@lru_cache
def _cache_base(shared: str) -> Path:
    """Returns the folder of all caches: NUMBA_CACHE_DIR, the user's own, or beside the package.

    It holds machine code, so a folder that others can write to is used only on request.
    """
    if shared:
        return Path(shared)
    beside = Path(__file__).with_name("__pycache__")
    own = Path(os.environ.get("RAYDIST_CACHE") or Path.home() / ".cache" / "raydist") / "kernels"
    for place in (own, beside):
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = place.stat()
            private = status.st_uid == os.getuid() and not status.st_mode & 0o022
            if (private or place == beside) and os.access(place, os.W_OK):
                return place
    return beside


@lru_cache
def _source_in(folder: Path, source: Path) -> Path:
    """Returns a copy of a source file in the cache: numba keys machine code by the file's path."""
    copy = folder / source.name
    try:
        if not copy.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{source.name}.{os.getpid()}"
            partial.write_bytes(source.read_bytes())
            # Not `atomic`: what kernels import decides which machine code is theirs.
            os.replace(partial, copy)
    except OSError:  # nothing can be written: numba chooses a folder itself
        return source
    return copy


@lru_cache
def _sources_hash(module: str) -> str:
    """Returns 16 digits of the sources of a module and of what it imports of this package."""
    digest = hashlib.blake2b(digest_size=8)
    seen, waiting = {module}, [module]
    while waiting:
        spec = importlib.util.find_spec(waiting.pop())
        if spec is None or spec.origin is None:
            continue
        source = Path(spec.origin).read_bytes()
        digest.update(source)
        fresh = sorted(set(_imports(source.decode())) - seen)
        seen.update(fresh)
        waiting += fresh
    return f"kernels-{digest.hexdigest()}"


def _imports(source: str) -> Iterator[str]:
    """Yields the modules of this package that a source file imports, `from` a package or not."""
    for name, names in _IMPORT.findall(source):
        yield name
        spec = importlib.util.find_spec(name)
        for place in (spec and spec.submodule_search_locations) or ():
            for each in re.findall(r"\w+", names):
                if Path(place, f"{each}.py").is_file() or Path(place, each).is_dir():
                    yield f"{name}.{each}"


def inlined(function: F) -> F:
    """Compiles `function` into the kernels that call it: for small steps and large tuples."""
    return cast(F, _compiled(function, forceinline=True))


def _compiled(function: Any, **options: bool) -> Any:
    if numba.config.DISABLE_JIT:
        return function
    options |= {"boundscheck": False}
    if numba.version_info.short == _KNOWN:
        return Kernel(function, error_model="numpy", **options)
    return numba.njit(error_model="numpy", **options)(function)
