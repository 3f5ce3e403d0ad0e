"""Starting and stopping the application on this process's Ray."""

from __future__ import annotations

import logging

from ray import serve

from raydist.config.serve import ServeConfig
from raydist.serving.app import build

__all__ = ["NAME", "open_port", "start", "stop"]

NAME = "raydist"


def open_port(config: ServeConfig) -> None:
    """Starts Serve's proxy; raises ConfigError where keys are needed and there are none."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    build(config)  # checks
    serve.start(http_options={"host": config.host, "port": config.port})


def start(config: ServeConfig) -> None:
    """Runs the application; returns when it is ready."""
    serve.run(build(config), name=NAME, route_prefix="/", blocking=False)


def stop() -> None:
    """Lets running requests end, then stops the application and Serve."""
    serve.delete(NAME)
    serve.shutdown()
