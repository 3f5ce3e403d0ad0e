"""Machine code that a command will need, compiled by other processes beside it.

numba compiles one kernel at a time. So a command that finds no machine code starts processes that
take kernels off a list, before it imports numba itself. It takes those that it comes to, too: who
creates a kernel's file in a folder of claims compiles it, and its lock is held meanwhile, so nobody
compiles what another process has begun, and nobody waits for what has not begun.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from raydist.kernels.cache import is_cached

_STARTED: set[str] = set()
"""The kernels of all lists."""
_PROCESSES: list[subprocess.Popen[bytes]] = []


def compile_ahead(kernels: Mapping[str, str], processes: int = 1) -> bool:
    """Starts compiling the kernels that the cache does not have; returns whether there are any.

    Args:
        kernels: signatures as numba spells them, by `module:function`, in the order of the list.
        processes: how many share the list, at most.
    """
    missing = {
        name: signature
        for name, signature in kernels.items()
        if name not in _STARTED and not is_cached(*name.split(":"))
    }
    _STARTED.update(missing)
    if not missing:
        return False
    words = [str(_claims()), str(min(processes, len(missing))), *itertools.chain(*missing.items())]
    command = [sys.executable, "-m", "raydist.kernels.ahead", *words]
    silent = subprocess.DEVNULL
    _PROCESSES.append(subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent))
    return True


def begin(name: str) -> None:
    """Claims a kernel for this process, or waits for the one that compiles it."""
    if name not in _STARTED:
        return
    try:
        lock = _claim(_claims(), name)
    except FileExistsError:
        lock = os.open(_claims() / name, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_SH)
    os.close(lock)


def argument_types(signature: str) -> Any:
    """Returns the types of a signature, as dispatchers list them."""
    from numba.core.sigutils import normalize_signature

    return normalize_signature(signature)[0]


@lru_cache
def _claims() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="raydist-kernels-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _claim(folder: Path, name: str) -> int:
    """Returns the locked file of a kernel that nobody else has claimed."""
    number = os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    fcntl.flock(number, fcntl.LOCK_EX)
    return number


def _main(folder: Path, processes: int, kernels: dict[str, str]) -> None:
    """Compiles what nobody has claimed; the processes part when numba is ready: that takes 1 s."""
    import gc

    gc.disable()
    dispatchers = {name: _kernel(name) for name in kernels}
    for kernel in dispatchers.values():
        kernel.typingctx.refresh()
        kernel.targetctx.refresh()
    others: list[int] = []
    for _ in range(processes - 1):
        if not (other := os.fork()):
            others.clear()  # its sisters are not its own
            break
        others.append(other)
    for name, kernel in dispatchers.items():
        try:
            lock = _claim(folder, name)
        except FileExistsError:
            continue
        except FileNotFoundError:  # the command has ended
            break
        kernel.compile(argument_types(kernels[name]))
        os.close(lock)
    for other in others:
        os.waitpid(other, 0)
    os._exit(0)  # taking a compiler down takes a third of a second


def _kernel(name: str) -> Any:
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), dict(zip(sys.argv[3::2], sys.argv[4::2])))
