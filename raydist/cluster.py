"""Finding Ray: the cluster that this process belongs to, or a new one on this machine."""

from __future__ import annotations

import logging
import os
from typing import Any

from raydist.errors import JobError

__all__ = ["available", "connect", "require"]


def connect() -> None:
    """Connects to the cluster of the environment (`RAY_ADDRESS`, a submitted job) or starts one.

    A local one listens on loopback only and has no dashboard; the auth mode is whatever
    `RAY_AUTH_MODE` says.
    """
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return
    kwargs: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not (os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID")):
        kwargs |= {"address": "local", "include_dashboard": False}
    ray.init(**kwargs)


def available() -> dict[str, float]:
    """Returns the cluster's resources, e.g. `{"CPU": 2.0, "GPU": 0.0}`."""
    import ray

    found = ray.cluster_resources()
    return {"CPU": float(found.get("CPU", 0)), "GPU": float(found.get("GPU", 0))}


def require(workers: int, cpus: float, gpus: float) -> None:
    """Raises JobError if `workers` of that size can never run here.

    An autoscaling cluster may still grow, so it is only checked where the cluster is fixed.
    """
    if os.environ.get("RAYDIST_AUTOSCALING") == "1":
        return
    have = available()
    for name, each in (("CPU", cpus), ("GPU", gpus)):
        if workers * each > have[name] + 1e-6:
            raise JobError(
                f"workers = {workers} with {each:g} {name} each need {workers * each:g} {name}, "
                f"the cluster has {have[name]:g}; lower workers= or {name.lower()}s_per_worker=, "
                f"or set RAYDIST_AUTOSCALING=1 on a cluster that grows on demand"
            )
