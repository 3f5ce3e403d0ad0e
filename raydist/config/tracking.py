"""Where a run is tracked: in MLflow, or only in its local record."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from raydist.config.base import Block, execution


class Tracking(Block):
    """Tracking in MLflow: `tracking=URI` sets it, `tracking=none` keeps only the local record."""

    primary: ClassVar[str | None] = "uri"

    uri: str = execution("auto")
    """`none`; `sqlite` for `mlflow.db` in the storage folder; an MLflow URI such as
    `sqlite:///my.db` or `http://host:5000`; `auto`: `MLFLOW_TRACKING_URI` if set, else sqlite."""
    experiment: str = execution("raydist", min_length=1)
    """Experiment; created if missing."""
    name: str | None = execution(None)
    """Name of the run; that of the output if not given."""
    parent: str | None = execution(None)
    """MLflow id of the parent run."""
    artifacts: str | None = execution(None)
    """URI for the artifacts of a new experiment; beside a SQLite file if not given."""
    tags: dict[str, str] = Field(default={}, json_schema_extra={"execution": True})
    """Further tags."""
