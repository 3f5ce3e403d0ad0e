"""What can be set of measuring and comparing runs, and of tracking: MLflow or a local record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from raydist.evaluation.secrets import has_password, without_secrets
from raydist.spec import EXECUTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Confidence intervals of means, and paired tests."""

    interval: Literal["bootstrap", "t"] = "bootstrap"
    """Confidence interval of the mean: percentile bootstrap over queries, or Student's t."""
    level: Annotated[float, Gt(0), Lt(1)] = 0.95
    """Confidence level of the interval."""
    test: Literal["t", "randomisation"] = "t"
    """Paired test against the baseline."""
    family: Literal["measure", "all"] = "measure"
    """What Holm's correction spans: the runs of each measure, or all comparisons."""
    resamples: Annotated[int, Ge(100)] = 10_000
    """Resamples of the bootstrap and of the randomisation test."""
    seed: int = 0
    """Seed of the resampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredQueries:
    """How the queries of a run are measured."""

    exclude_own: bool = False
    """A query is no document for itself: leaves out the document with the query's id (ArguAna)."""


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
    system: Annotated[float, Ge(0), EXECUTION] = 10.0
    """Seconds between samples of the machine's load during training; 0 takes none."""

    def __post_init__(self) -> None:
        if has_password(self.uri):
            raise ValueError(
                f"{without_secrets(self.uri)}: this address holds a password, which would be kept "
                "with the output; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                "the whole address as MLFLOW_TRACKING_URI"
            )
