"""Configuration of `raydist doctor` and `raydist quickstart`, which try an installation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from raydist.config.base import Block, execution
from raydist.data.spec import Paths


class DoctorConfig(Block):
    """What to check beyond this machine."""

    address: str | None = None
    """Address of a cluster that must answer: a head's `host:port` or a job server's URL."""
    storage: str | None = None
    """Path or URI that every node must be able to write to."""
    tracking: str | None = None
    """MLflow tracking URI that must answer."""


class QuickstartConfig(Block):
    """Index, search and measure a small corpus that needs no download."""

    primary: ClassVar[str | None] = "out"

    out: str = Field("quickstart", min_length=1)
    """Folder for the data, the index and the run."""
    packages: Paths = ("numpy", "scipy", "pandas", "sklearn", "matplotlib", "torch")
    """Installed packages whose documentation is taken beside the standard library's."""
    full: bool = False
    """Also train a bi-encoder on the same data, embed the corpus, and search with both: minutes."""
    train_steps: int = Field(225, ge=1)
    """Steps of that training."""
    workers: int = execution(2, ge=0)
    """Ray actors that read and index; 0 works in this process, without Ray."""
