"""Configuration of `raydist doctor` and `raydist quickstart`, which try an installation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from raydist.config.base import Block, execution
from raydist.data.spec import Paths


class DoctorConfig(Block):
    """Checks of this installation, and of what it connects to."""

    address: str | None = None
    """A cluster that must answer: `host:port` of its head, or the URL of its job server."""
    storage: str | None = None
    """A path or URI that every node must be able to write to."""
    tracking: str | None = None
    """An MLflow tracking URI that must answer."""


class QuickstartConfig(Block):
    """Indexes, searches and measures a small corpus that needs no download."""

    primary: ClassVar[str | None] = "out"

    out: str = Field("quickstart", min_length=1)
    """Folder for the data, the index and the run."""
    packages: Paths = ("numpy", "scipy", "pandas", "sklearn", "matplotlib", "torch")
    """Installed packages whose documentation joins the standard library's."""
    full: bool = False
    """Also train a bi-encoder on the same data, embed the corpus and search both; takes minutes."""
    train_steps: int = Field(225, ge=1)
    """Steps of that training."""
    workers: int = execution(0, ge=0)
    """Ray actors that read and index; 0 works in this process, without Ray."""
