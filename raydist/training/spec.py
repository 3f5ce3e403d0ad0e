"""What can be set of validation: `validation.ID.{kind, metrics, corpus, ...}`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource, RunSource
from raydist.spec import EXECUTION, FromText, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseRetriever:
    """Exact search over the corpus with the model that is being trained."""

    kind: Literal["dense"] = "dense"
    k: Annotated[int, Ge(1)] = 1000
    """Results per query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReranker:
    """Reranking of a fixed run with the model that is being trained."""

    kind: Literal["rerank"] = "rerank"
    run: RunSource
    """The candidates."""
    depth: Annotated[int, Ge(1)] = 100
    """Candidates per query."""
    missing: Literal["error", "drop", "keep"] = "error"
    """Candidates without text: refuse them, leave them out, or keep them below the scored ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Evaluates the model while it is trained, keeps the best, may stop the run."""

    kind: Literal["listener"] = "listener"
    metrics: dict[str, bool] = field(default_factory=lambda: {"map": True})
    """Measure -> whether the checkpoint of its best value is kept (ir-measures, trec_eval)."""
    corpus: CorpusSource
    """The documents to retrieve from; a part of the collection makes it faster."""
    queries: QueriesSource
    """Queries; those without judgements are not searched."""
    qrels: QrelsSource
    """Judgements."""
    retriever: DenseRetriever | RunReranker = DenseRetriever()
    """How the model is used: `dense` search (bi-encoders) or `rerank` of a run."""
    warmup: Annotated[int, Ge(-1)] = -1
    """Bests are recorded from this step on; -1 = from the start."""
    interval: Annotated[int, Ge(1)] = 128
    """Steps between evaluations; step 0 gives the baseline."""
    early_stop: Annotated[int, Ge(0)] = 0
    """Steps without a new best of a kept measure after which training stops; 0 = never."""
    min_delta: Annotated[float, Ge(0.0)] = 0.0
    """What a new best must be better by."""
    async_: Annotated[bool, EXECUTION] = False
    """Evaluate saved checkpoints beside training, one at a time; decisions lag by an interval."""
    gpus: Annotated[float, Ge(0), Le(1), EXECUTION] = 0.0
    """Share of a GPU, beyond those of training, of an `async` evaluation; 0 = on the CPU."""

    def __post_init__(self) -> None:
        problems = _metric_problems(self.metrics)
        if self.early_stop % self.interval:
            problems.append(
                f"early_stop = {self.early_stop}: expected 0 (never) or a multiple of "
                f"interval = {self.interval}"
            )
        if self.early_stop and self.metrics and not any(self.metrics.values()):
            problems.append(
                f"early_stop = {self.early_stop}: no metric is kept, so nothing could decide; "
                f"set one of {', '.join(self.metrics)} to true, or early_stop to 0"
            )
        if self.gpus and not self.async_:
            problems.append(f"gpus = {self.gpus:g}: only async=true evaluates beside training")
        if problems:
            raise ValueError("; ".join(problems))

    def sources(self) -> dict[str, CorpusSource | QueriesSource | QrelsSource | RunSource]:
        """Returns what it reads, by key."""
        run = {} if self.retriever.kind == "dense" else {"retriever.run": self.retriever.run}
        return {"corpus": self.corpus, "queries": self.queries, "qrels": self.qrels, **run}


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """Watches the mean of several listeners that run at the same steps."""

    kind: Literal["aggregate"] = "aggregate"
    listeners: Annotated[list[str], MinLen(1)]
    """Ids of the listeners; they no longer vote for themselves."""
    metrics: dict[str, bool] | None = None
    """Measure -> whether the checkpoint of its best mean is kept; the listeners' own if null."""
    of: Literal["current", "best"] = "current"
    """Average the listeners' present values, or their bests."""
    agree: Literal["all", "any"] = "all"
    """Stop when all listeners that have a vote want to, or any."""
    warmup: Annotated[int, Ge(-1)] = -1
    """Bests are recorded from this step on; -1 = from the start."""
    min_delta: Annotated[float, Ge(0.0)] = 0.0
    """What a new best must be better by."""

    def __post_init__(self) -> None:
        if problems := _metric_problems(self.metrics) if self.metrics is not None else []:
            raise ValueError("; ".join(problems))


def _metric_problems(metrics: dict[str, bool]) -> list[str]:
    from raydist.evaluation.measures import direction, metric_names, parse

    if not metrics:
        return ["metrics = {}: name at least one measure, for example {map: true}"]
    problems = []
    for name, keep in metrics.items():
        names = list(parse([name]))
        if names != [name]:
            problems.append(f"metrics: {name!r} stands for {', '.join(names)}: name one")
        elif keep and not direction(name):
            problems.append(f"metrics: {name} is a count, its checkpoint cannot be the best")
    metric_names(metrics)
    return problems


def _folder_name(id: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", id):
        raise ValueError(f"{id!r} names a folder: expected letters, digits, '_', '.' and '-'")
    return id


Validation = dict[
    Annotated[str, FromText(_folder_name)], Annotated[Listener | Aggregate, Kind("listener")]
]
"""Listeners by id."""
