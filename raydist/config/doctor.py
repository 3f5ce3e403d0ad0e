"""Configuration of `raydist doctor`."""

from __future__ import annotations

from raydist.config.base import Block


class DoctorConfig(Block):
    """What to check beyond this machine."""

    address: str | None = None
    """Address of a cluster that must answer: a head's `host:port` or a job server's URL."""
    storage: str | None = None
    """Path or URI that every node must be able to write to."""
    tracking: str | None = None
    """MLflow tracking URI that must answer."""
