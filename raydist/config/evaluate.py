"""Configuration of `raydist evaluate`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raydist.config.base import Flat, Verb, execution
from raydist.data.spec import Paths, QrelsSource
from raydist.evaluation.spec import MeasuredQueries, Statistics, Tracking
from raydist.spec import ADDED, Reads


class EvaluateConfig(Verb):
    """Measures runs against judgements, and compares them."""

    run: Annotated[Paths, Reads()] = Field(min_length=1)
    """Runs: TREC, MS MARCO (3 columns), ColBERT (4), Parquet, JSON; each match of a glob is one."""
    qrels: QrelsSource
    """Judgements."""
    measures: list[str] = Field(["nDCG@10", "AP", "R@1000"], min_length=1)
    """Measures, by their names in ir-measures or trec_eval (`map`)."""
    queries: Annotated[MeasuredQueries, ADDED] = MeasuredQueries()
    """How the queries are measured."""
    baseline: str | None = None
    """One of the runs: the others are tested against it."""
    ties: Literal["score", "rank"] = "score"
    """Order of equal scores: by document id, descending, as in trec_eval; or the run's."""
    sort: bool = False
    """Order a run by its scores; without it, a run in another order is an error."""
    statistics: Flat[Statistics]
    format: Literal["table", "markdown", "tsv", "json"] = execution("table")
    """Format of the table on standard output; tsv and json have all digits."""
    out: str | None = execution(None)
    """Folder for everything: results.json, report.md, per_query.tsv and figures."""
    per_query: str | None = execution(None)
    """File for the values of each query (`.tsv`, `.csv` or `.parquet`)."""
    figures: str | None = execution(None)
    """Folder for the figures."""
    tracking: Tracking = Tracking()
    """MLflow; `tracking=none` only prints the table, some seconds sooner."""

    @model_validator(mode="after")
    def _known(self) -> EvaluateConfig:
        from raydist.evaluation.measures import parse

        parse(self.measures)
        if len(set(self.run)) < len(self.run):
            raise ValueError("run: a file occurs twice")
        if self.per_query is not None and not self.per_query.endswith((".tsv", ".csv", ".parquet")):
            raise ValueError(
                f"per_query = {self.per_query!r}: expected a name that ends in .tsv, .csv or "
                ".parquet"
            )
        return self
