"""The one decorator of all kernels: machine code that is cached by the content of its sources."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import event
from numba.core.registry import CPUDispatcher

from raydist.kernels.cache import copied, folder_of
from raydist.kernels.dispatcher import Kernel

_KNOWN = (0, 68)
"""The version of numba whose compiler `Kernel` changes; others compile as they do, more slowly."""
F = TypeVar("F", bound=Callable[..., Any])


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
    folder = folder_of(function.__module__)
    numba.config.CACHE_DIR = str(folder)
    try:
        copy = copied(folder, Path(function.__code__.co_filename))
        function.__code__ = function.__code__.replace(co_filename=str(copy))
        compiled = _compiled(function, nogil=True)
        if isinstance(compiled, CPUDispatcher):
            compiled.enable_caching()
    finally:
        numba.config.CACHE_DIR = shared
    return cast(F, compiled)


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
