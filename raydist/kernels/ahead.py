"""Machine code that a command will need, compiled by another process beside it.

numba compiles one kernel at a time. So a command that finds no machine code starts a process that
compiles what is needed last, and finds it in the cache when it comes to it.
"""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STARTED: dict[str, subprocess.Popen[bytes]] = {}
"""Which process compiles a kernel."""


def compile_ahead(kernels: Mapping[str, str]) -> bool:
    """Starts compiling the kernels that the cache does not have; returns whether there are any.

    Args:
        kernels: signatures as numba spells them, by `module:function`.
    """
    missing = {
        name: signature
        for name, signature in kernels.items()
        if name not in _STARTED and not _is_cached(_kernel(name))
    }
    if not missing:
        return False
    command = [sys.executable, "-m", "raydist.kernels.ahead", *itertools.chain(*missing.items())]
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent)
    _STARTED.update(dict.fromkeys(missing, process))
    return True


def await_compiled(name: str) -> None:
    """Waits for a kernel that another process compiles: it began earlier."""
    if name in _STARTED:
        _STARTED[name].wait()


def argument_types(signature: str) -> Any:
    """Returns the types of a signature, as dispatchers list them."""
    from numba.core.sigutils import normalize_signature

    return normalize_signature(signature)[0]


def _kernel(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _is_cached(kernel: Any) -> bool:
    folder = Path(kernel.stats.cache_path)
    return any(folder.glob(f"*.{kernel.py_func.__name__}-*.nbi"))


def _main(words: list[str]) -> None:
    import gc

    gc.disable()
    for name, signature in zip(words[::2], words[1::2]):
        _kernel(name).compile(argument_types(signature))


if __name__ == "__main__":
    _main(sys.argv[1:])
