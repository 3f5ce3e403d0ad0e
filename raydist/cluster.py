"""Finding Ray: the cluster that this process belongs to, or a new one on this machine."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from raydist import log
from raydist.errors import JobError
from raydist.log import Waiting


def connect() -> None:
    """Connects to the cluster of the environment (`RAY_ADDRESS`, a submitted job) or starts one.

    A local one listens on loopback only and has no dashboard; the auth mode is whatever
    `RAY_AUTH_MODE` says.
    """
    if "ray" in sys.modules and _ray().is_initialized():
        return
    kwargs: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    what = f"connecting to the Ray cluster {os.environ.get('RAY_ADDRESS', '')}".strip()
    if not _is_named():
        kwargs |= {"address": "local", "include_dashboard": False}
        what = "starting Ray on this machine"
    if not os.environ.get("RAY_JOB_ID"):  # a job's log has everything
        log.divert(Path(os.environ.get("RAYDIST_CACHE") or Path.home() / ".cache/raydist") / "logs")
    with Waiting(f"{what} (usually 8 to 20 s)"):
        ray = _ray()
        try:
            ray.init(**kwargs)
        except Exception as error:  # Ray raises that very class where it does not start
            raise JobError(f"{what}: failed ({error})") from error


def available() -> dict[str, float]:
    """Returns the cluster's resources, e.g. `{"CPU": 2.0, "GPU": 0.0}`."""
    import ray

    resources = ray.cluster_resources()
    return {name: float(resources.get(name, 0)) for name in ("CPU", "GPU")}


def taken(workers: int, cpus: float, gpus: float) -> str:
    """Returns a note that workers of that size wait for others to end, or nothing."""
    import ray

    free = ray.available_resources()
    lacking = [
        f"{workers * each:g} {name}, {free.get(name, 0.0):g} of {available()[name]:g} are free"
        for name, each in (("CPU", cpus), ("GPU", gpus))
        if workers * each > free.get(name, 0.0) + 1e-6
    ]
    if not lacking:
        return ""
    return f"waiting for the cluster: {workers} workers take {' and '.join(lacking)}"


def enter(folder: str) -> None:
    """Gives relative paths the meaning that they have in the driver's folder, if it is here."""
    if os.path.isdir(folder):
        os.chdir(folder)


def is_new() -> bool:
    """Returns whether `connect` would start a Ray on this machine."""
    return not (_ray().is_initialized() or _is_named())


def nodes() -> list[dict[str, float]]:
    """Returns the resources of each living node, by name."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def grows() -> bool:
    """Returns whether the cluster may get further nodes: it says so, or the environment does."""
    if os.environ.get("RAYDIST_AUTOSCALING") == "1":
        return True
    from ray._private.state import state  # what its autoscaler reports has no public reader

    return bool(state.get_max_resources_from_cluster_config())


def require(workers: int, cpus: float, gpus: float, beside: float = 0.0) -> None:
    """Connects; raises JobError if `workers` of that size can never run here.

    The same holds for the GPUs that evaluations `beside` training take of the rest. An autoscaling
    cluster may still grow, so only a fixed one is checked; this machine, before a cluster is
    started on it.
    """
    fixed = os.environ.get("RAYDIST_AUTOSCALING") != "1"
    if fixed and is_new():
        _check("CPU", workers, cpus, float(os.cpu_count() or 1))
    connect()
    if fixed:
        have = available()
        _check("CPU", workers, cpus, have["CPU"])
        _check("GPU", workers, gpus, have["GPU"])
        left = have["GPU"] - workers * gpus
        if beside > left + 1e-6:
            raise JobError(
                f"validation.ID.gpus: evaluations beside training take {beside:g} GPU, the workers "
                f"leave {left:g}; gpus=0 evaluates on the CPU, async=false in training itself"
            )


def _ray() -> Any:
    """Imports Ray, after setting the variables that it reads on import."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not _is_named():
        # Makes the node 127.0.0.1; otherwise Ray's services listen on every interface.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    logging.getLogger("ray.widgets").setLevel(logging.ERROR)  # asks notebooks to install widgets
    import ray

    return ray


def _is_named() -> bool:
    """Returns whether the environment names a cluster."""
    return bool(os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID"))


def _check(name: str, workers: int, each: float, have: float) -> None:
    if workers * each > have + 1e-6:
        raise JobError(
            f"workers = {workers} with {each:g} {name} each need {workers * each:g} {name}, "
            f"the cluster has {have:g}; lower workers= or {name.lower()}s_per_worker=, "
            f"or set RAYDIST_AUTOSCALING=1 on a cluster that grows on demand"
        )
