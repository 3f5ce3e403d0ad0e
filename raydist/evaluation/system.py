"""How busy the machine is while a run goes on: CPU, memory, disk, network and GPUs.

The names are MLflow's own, so its page of system metrics shows them.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping

from raydist.evaluation.mirror import Mirror

_MB = 1e6
_SMI = (
    "nvidia-smi",
    "--query-gpu=index,utilization.gpu,memory.used,memory.total",
    "--format=csv,noheader,nounits",
)


class SystemMetrics:
    """Records the machine's load every few seconds, in a thread, between `with` and its end.

    Args:
        mirror: the run's record.
        every: seconds between two samples; 0 records nothing.
    """

    def __init__(self, mirror: Mirror, every: float) -> None:
        self._mirror = mirror
        self._every = every
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="system-metrics", daemon=True)
        self._count = 0

    def __enter__(self) -> SystemMetrics:
        if self._every > 0:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _sample(self) -> None:
        import psutil

        psutil.cpu_percent()  # the first call only sets the start of the interval
        before, since = _transfers(), time.monotonic()
        while not self._end.wait(self._every):
            after, now = _transfers(), time.monotonic()
            rates = {
                f"{name}_megabytes_per_second": (after[name] - before[name]) / (now - since) / _MB
                for name in after.keys() & before.keys()
            }
            before, since = after, now
            self._mirror.system(self._count, load() | rates)
            self._count += 1


def load() -> dict[str, float]:
    """Returns the present load of the CPUs, the memory and the GPUs of this machine."""
    import psutil

    memory = psutil.virtual_memory()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / _MB,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_megabytes": psutil.Process().memory_info().rss / _MB,
        **_gpus(),
    }


def _transfers() -> Mapping[str, float]:
    import psutil

    network, disk = psutil.net_io_counters(), psutil.disk_io_counters()
    bytes_: dict[str, float] = {}
    if network is not None:
        bytes_ |= {"network_receive": network.bytes_recv, "network_transmit": network.bytes_sent}
    if disk is not None:
        bytes_ |= {"disk_read": disk.read_bytes, "disk_write": disk.write_bytes}
    return bytes_


def _gpus() -> dict[str, float]:
    """Returns memory and use of each GPU that `nvidia-smi` shows; nothing without it."""
    if shutil.which(_SMI[0]) is None:
        return {}
    try:
        done = subprocess.run(_SMI, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_gpus(done.stdout)


def parse_gpus(lines: str) -> dict[str, float]:
    """Returns the values in the lines of `nvidia-smi`: number, use, memory used and in all, MiB.

    What a GPU does not tell (`[N/A]`) is left out.
    """
    values: dict[str, float] = {}
    for line in lines.splitlines():
        number, *cells = (cell.strip() for cell in line.split(","))
        with contextlib.suppress(ValueError):
            values[f"gpu_{number}_utilization_percentage"] = float(cells[0])
        with contextlib.suppress(ValueError):
            used, whole = float(cells[1]), float(cells[2])
            values[f"gpu_{number}_memory_usage_megabytes"] = used * 2**20 / _MB
            values[f"gpu_{number}_memory_usage_percentage"] = 100 * used / whole
    return values
