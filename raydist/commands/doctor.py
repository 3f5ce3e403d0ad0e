"""Says what this machine or cluster can run: one line per finding.

Exits 0 on a bare machine with neither cluster nor GPU; 1 only where something that was asked for
(`address=`, `storage=`, `tracking=`) is broken.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence

from raydist.commands.checks import Finding
from raydist.commands.checks.cluster import job_server, look_at_cluster
from raydist.commands.checks.machine import devices, memory, packages
from raydist.commands.checks.places import check_storage, check_tracking
from raydist.config.base import Flags
from raydist.config.doctor import DoctorConfig

Config = DoctorConfig

_QWEN3 = {"Qwen3-Reranker-0.6B": 0.6, "-4B": 4.0, "-8B": 8.2}  # parameters, billions


def run(config: DoctorConfig, flags: Flags) -> int:
    """Prints the findings and returns the exit code."""
    findings: list[Finding] = []
    for finding in _checks(config):
        findings.append(finding)
        state, what, found = finding
        print(f"{state:<5} {what:<22} {found}", flush=True)
    bad = sum(state == "bad" for state, _, _ in findings)
    print(f"{bad} problem{'s' * (bad != 1)}" if bad else "nothing that was asked for is broken")
    return 1 if bad else 0


def _checks(config: DoctorConfig) -> Iterator[Finding]:
    yield "ok", "python", f"{platform.python_version()} on {platform.machine()}, {sys.executable}"
    yield from packages()
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    yield (
        ("ok", "C compiler", compiler)
        if compiler
        else (
            "note",
            "C compiler",
            "none: DeepSpeed's optional kernels cannot be built; nothing else needs it",
        )
    )
    sizes = yield from devices()
    yield from memory()
    cpus, gpus, nodes = os.cpu_count() or 1, len(sizes), 0
    where = config.address or os.environ.get("RAY_ADDRESS")
    if where and where.startswith(("http://", "https://")):
        yield from job_server(where)
    elif where:
        cpus, gpus, nodes = yield from look_at_cluster(where)
    else:
        yield "note", "Ray cluster", "none asked for; verbs with workers= above 0 start their own"
        mode = os.environ.get("RAY_AUTH_MODE", "not set")
        yield "ok" if mode == "token" else "note", "Ray auth", f"RAY_AUTH_MODE is {mode}"
    if config.storage:
        yield check_storage(config.storage, nodes)
    if config.tracking:
        yield check_tracking(config.tracking)
    yield from _verbs(cpus, gpus, sizes)


def _verbs(cpus: int, gpus: int, sizes: Sequence[int]) -> Iterator[Finding]:
    """Says how many workers fit now, and which models.

    Args:
        cpus: of the cluster, or of this machine.
        gpus: likewise.
        sizes: memory of this machine's accelerators, bytes.
    """
    import psutil

    most = f"workers up to {cpus}"
    if not cpus:
        most = "no worker now; RAYDIST_AUTOSCALING=1 on a cluster that grows on demand"
    yield "ok", "index, search, bm25", most
    if gpus:
        yield "ok", "embed, train, distill", f"workers up to {gpus} with gpus_per_worker=1"
    else:
        yield "ok", "embed, train, distill", f"{most}, on CPU, dtype float32"
    yield "ok", "mine, evaluate, export", "in one process, without Ray"
    what = "rerank, score, serve"
    if gpus and not sizes:
        yield "ok", what, "Qwen3 rerankers as far as the nodes' GPUs have memory for them"
        return
    have, width = (min(sizes), 2) if sizes else (psutil.virtual_memory().available, 4)
    fitting = [name for name, billions in _QWEN3.items() if billions * 1e9 * width * 1.1 < have]
    where = "bfloat16 within a GPU's memory" if sizes else "float32 within this machine's memory"
    found = ", ".join(fitting) or "none of the Qwen3 rerankers"
    yield "ok" if fitting else "note", what, f"{found} in {where}"
