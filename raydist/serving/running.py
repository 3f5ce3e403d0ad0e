"""Starting and stopping the application on this process's Ray."""

from __future__ import annotations

import logging
import re

import ray
from ray import serve

from raydist.config.serve import ServeConfig
from raydist.errors import JobError
from raydist.serving.app import build

NAME = "raydist"


def open_port(config: ServeConfig) -> None:
    """Starts Serve's proxy; raises ConfigError where keys are needed and there are none."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    build(config)  # checks
    serve.start(http_options={"host": config.host, "port": config.port})


def start(config: ServeConfig) -> None:
    """Runs the application; returns when it is ready.

    Raises:
        JobError: it does not start; says what a replica said last.
    """
    try:
        serve.run(build(config), name=NAME, route_prefix="/", blocking=False)
    except RuntimeError as error:
        raise JobError(f"the service did not start: {_reason() or error}") from None


def _reason() -> str:
    """Returns the last error that a replica met when it started, empty if none is known."""
    found = serve.status().applications.get(NAME)
    for deployment in found.deployments.values() if found else ():
        errors = re.findall(r"^(?:[\w.]+\.)?\w+Error: .*$", deployment.message, re.M)
        if errors:
            return str(errors[-1]).removeprefix("raydist.errors.")
    return ""


def metrics_url() -> str:
    """Returns where Prometheus finds this node's metrics."""
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


def stop(*, serve_too: bool) -> None:
    """Lets running requests end, then stops the application, and Serve if asked to."""
    serve.delete(NAME)
    if serve_too:
        serve.shutdown()
