"""The build on Ray beside the same build in one process; part of benchmarks/bow.py."""

from __future__ import annotations

import functools
import shutil
import time
from pathlib import Path

from benchmarks.report import WORK

DAEMONS = ("raylet", "gcs_server", "dashboard", "log_monitor", "monitor.py", "runtime_env")


def ray_figures(source: Path) -> dict[str, float]:
    """Returns CPU and wall seconds of builds by one and two workers on one running cluster."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        local, _, _ = on_ray(source, 0)
        before = daemons()
        one, wall_one, start = on_ray(source, 1)
        after = daemons()
        two, wall_two, _ = on_ray(source, 2)
    finally:
        ray.shutdown()
    return {
        "ray_cpu_vs_local": max(one, two) / local,
        "ray_wall_2_vs_1": wall_two / wall_one,
        "ray_local_cpu_s": local,
        "ray_cpu_1_s": one,
        "ray_cpu_2_s": two,
        "ray_wall_1_s": wall_one,
        "ray_wall_2_s": wall_two,
        "ray_start_s": start,
        "ray_daemons_cpu_s": (after - before) / 2,
    }


def on_ray(source: Path, workers: int) -> tuple[float, float, float]:
    """Returns CPU and wall seconds of the second of two builds, and until its first split began."""
    from raydist.bow.build.create import build_index
    from raydist.bow.spec import IndexSpec
    from raydist.data.readers import read_kept
    from raydist.data.spec import CorpusSource, Fields
    from raydist.data.splits import plan_splits

    splits = plan_splits(str(source))
    read = functools.partial(
        read_kept, CorpusSource(path=(str(source),), fields=Fields(text="contents"))
    )
    for _ in range(2):
        out = WORK / f"ray-{workers}"
        shutil.rmtree(out, ignore_errors=True)
        began = time.monotonic()
        facts = build_index(splits, read, out, IndexSpec(store=False, workers=workers))
        wall = time.monotonic() - began
    start: float = facts["seconds"]["start"]
    return facts["cpu_seconds"], wall - start, start


def daemons() -> float:
    """Returns the CPU seconds that Ray's own processes below this one have used."""
    import psutil

    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            words = " ".join(process.cmdline())
            if any(name in words for name in DAEMONS) and "default_worker.py" not in words:
                used = process.cpu_times()
                total += used.user + used.system
        except psutil.Error:
            continue
    return total
