"""What this machine has: packages, accelerators, memory."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from importlib import metadata
from pathlib import Path

from raydist import log
from raydist.commands.checks import Finding

_PACKAGES = [
    *("raydist", "ray", "torch", "transformers", "deepspeed", "pyarrow", "ir-measures"),
    *("rank-bm25", "mlflow", "numba", "pydantic", "faiss-cpu", "peft", "sentence-transformers"),
]


def packages() -> Iterator[Finding]:
    """Says which version of each package is installed."""
    for name in _PACKAGES:
        try:
            yield "ok", name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield "note", name, "not installed"


def devices() -> Generator[Finding, None, list[int]]:
    """Looks for accelerators; returns the memory of each, in bytes."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        yield "note", "GPU", "none; training and embedding use the CPU (gloo)"
    sizes = []
    for i in range(count):
        found = torch.cuda.get_device_properties(i)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield "ok", f"GPU {i}", f"{found.name}, {log.size(found.total_memory)}, {bf16}"
        sizes.append(int(found.total_memory))
    return sizes


def memory() -> Iterator[Finding]:
    """Looks at memory, disk and shared memory."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{log.size(memory.available)} of {log.size(memory.total)} free"
    yield "ok", "memory", found
    disk = shutil.disk_usage(Path.cwd())
    state = "ok" if disk.free > 5e9 else "note"
    yield state, "disk here", f"{log.size(disk.free)} of {log.size(disk.total)} free"
    shm = shutil.disk_usage("/dev/shm") if Path("/dev/shm").exists() else None
    if shm is not None:
        small = shm.total < 0.25 * memory.total
        hint = ", small: start containers with --shm-size" if small else ""
        yield "note" if small else "ok", "shared memory", f"{log.size(shm.total)}{hint}"
