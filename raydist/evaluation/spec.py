"""What can be set of tracking: MLflow, or only the local record of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import MinLen

from raydist.spec import EXECUTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """Tracking in MLflow: `tracking=URI` sets it, `tracking=none` keeps only the local record."""

    primary: ClassVar[str] = "uri"

    uri: Annotated[str, EXECUTION] = "auto"
    """`none`; `sqlite` for `mlflow.db` in the storage folder; an MLflow URI such as
    `sqlite:///my.db` or `http://host:5000`; `auto`: `MLFLOW_TRACKING_URI` if set, else sqlite."""
    experiment: Annotated[str, MinLen(1), EXECUTION] = "raydist"
    """Experiment; created if missing."""
    name: Annotated[str | None, EXECUTION] = None
    """Name of the run; that of the output if not given."""
    parent: Annotated[str | None, EXECUTION] = None
    """MLflow id of the parent run."""
    artifacts: Annotated[str | None, EXECUTION] = None
    """URI for the artifacts of a new experiment; beside a SQLite file if not given."""
    tags: Annotated[dict[str, str], EXECUTION] = field(default_factory=dict)
    """Further tags."""
