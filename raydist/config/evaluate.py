"""Configuration of `raydist evaluate`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from raydist.config.base import Verb, execution
from raydist.config.tracking import Tracking
from raydist.data.spec import Paths, QrelsSource


class EvaluateConfig(Verb):
    """Measure runs against judgements, and compare them."""

    run: Paths = Field(min_length=1)
    """Runs: TREC's six columns, or Parquet."""
    qrels: QrelsSource
    """Judgements."""
    measures: list[str] = Field(["nDCG@10", "AP", "R@1000"], min_length=1)
    """Measures by ir-measures' names, or trec_eval's (`map`)."""
    baseline: str | None = None
    """One of the runs: the others are tested against it."""
    ties: Literal["score", "rank"] = "score"
    """Equal scores: ordered by the measuring tool (trec_eval: document id), or as in the run."""
    sort: bool = False
    """Order each query's documents by score where a run's file does not."""
    interval: Literal["bootstrap", "t"] = "bootstrap"
    """Confidence interval of the mean: percentile bootstrap over queries, or Student's t."""
    level: float = Field(0.95, gt=0, lt=1)
    """Confidence."""
    test: Literal["t", "randomisation"] = "t"
    """Paired test against the baseline."""
    family: Literal["measure", "all"] = "measure"
    """Holm's correction is over the runs of each measure, or over all comparisons."""
    resamples: int = Field(10_000, ge=100)
    """Resamples of the bootstrap and of the randomisation test."""
    seed: int = 0
    """Of the resampling."""
    format: Literal["table", "markdown", "tsv", "json"] = execution("table")
    """How the table is printed to standard output; tsv and json have all digits."""
    out: str | None = execution(None)
    """Folder for everything: results.json, report.md, per_query.tsv and figures."""
    per_query: str | None = execution(None)
    """File for the values of each query (`.tsv`, `.csv` or `.parquet`)."""
    figures: str | None = execution(None)
    """Folder for the figures."""
    tracking: Tracking = Tracking()
    """MLflow; `tracking=none` prints the table alone, some seconds sooner."""

    @model_validator(mode="after")
    def _known(self) -> EvaluateConfig:
        from raydist.evaluation.measures import metric_names, parse

        metric_names(parse(self.measures))
        if len(set(self.run)) < len(self.run):
            raise ValueError("run: a file is named twice")
        if self.baseline is not None and self.baseline not in self.run:
            raise ValueError(
                f"baseline = {self.baseline!r}: expected one of the runs {', '.join(self.run)}"
            )
        if self.per_query is not None and not self.per_query.endswith((".tsv", ".csv", ".parquet")):
            raise ValueError(
                f"per_query = {self.per_query!r}: expected a name that ends in .tsv, .csv or "
                f".parquet"
            )
        return self
