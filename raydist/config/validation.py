"""Validation listeners of a training run: `validation.ID.{kind, metrics, corpus, ...}`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from raydist.config.base import Block, execution
from raydist.config.data import CorpusSource, QrelsSource, QueriesSource, RunSource


class DenseRetriever(Block):
    """Exact search over the corpus with the model that is being trained."""

    kind: Literal["dense"] = "dense"
    k: int = Field(1000, ge=1)
    """Results per query."""


class RunReranker(Block):
    """Reranking of a fixed run with the model that is being trained."""

    kind: Literal["rerank"] = "rerank"
    run: RunSource
    """The candidates."""
    depth: int = Field(100, ge=1)
    """Candidates per query."""
    missing: Literal["error", "drop", "keep"] = "error"
    """Candidates without text: refuse them, leave them out, or keep them below the scored ones."""


class Listener(Block):
    """Evaluates the model while it is trained, keeps the best, may stop the run."""

    kind: Literal["listener"] = "listener"
    metrics: dict[str, bool] = {"map": True}
    """Measure -> whether the checkpoint of its best value is kept (ir-measures, trec_eval)."""
    corpus: CorpusSource
    """The documents to retrieve from; a part of the collection makes it faster."""
    queries: QueriesSource
    """Queries; those without judgements are not searched."""
    qrels: QrelsSource
    """Judgements."""
    retriever: Annotated[DenseRetriever | RunReranker, Field(discriminator="kind")] = (
        DenseRetriever()
    )
    """How the model is used: `dense` search (bi-encoders) or `rerank` of a run."""
    warmup: int = Field(-1, ge=-1)
    """Bests are recorded from this step on; -1 = from the start."""
    interval: int = Field(128, ge=1)
    """Steps between evaluations; step 0 gives the baseline."""
    early_stop: int = Field(0, ge=0)
    """Steps without a new best of a kept measure after which training stops; 0 = never."""
    min_delta: float = Field(0.0, ge=0.0)
    """What a new best must be better by."""
    async_: bool = execution(False, alias="async")
    """Evaluate saved checkpoints beside training, one at a time; decisions lag by an interval."""
    gpus: float = execution(0.0, ge=0, le=1)
    """Share of a GPU, beyond those of training, of an `async` evaluation; 0 = on the CPU."""

    @model_validator(mode="after")
    def _consistent(self) -> Listener:
        from raydist.evaluation.measures import direction, parse
        from raydist.evaluation.names import metric_names
        from raydist.training.decisions import Rules

        rules = Rules(self.metrics, self.interval, self.warmup, self.early_stop, self.min_delta)
        problems = rules.problems()
        for name, keep in self.metrics.items():
            found = list(parse([name]))
            if found != [name]:
                problems.append(f"metrics: {name!r} stands for {', '.join(found)}: name one")
            elif keep and not direction(name):
                problems.append(f"metrics: {name} is a count, its checkpoint cannot be the best")
        metric_names(self.metrics)
        if self.gpus and not self.async_:
            problems.append(f"gpus = {self.gpus:g}: only async=true evaluates beside training")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def arguments(self) -> dict[str, Any]:
        """Returns plain values for `raydist.training.listening`: readers' arguments and rules."""
        plain = self.model_dump(by_alias=True)
        for name in ("corpus", "queries", "qrels"):
            plain[name] = getattr(self, name).arguments()
        if isinstance(self.retriever, RunReranker):
            plain["retriever"]["run"] = self.retriever.run.arguments()
        return plain


class Aggregate(Block):
    """Watches the mean of several listeners that run at the same steps."""

    kind: Literal["aggregate"] = "aggregate"
    listeners: list[str] = Field(min_length=1)
    """Ids of the listeners; they no longer vote for themselves."""
    metrics: dict[str, bool] | None = None
    """Measure -> whether the checkpoint of its best mean is kept; the listeners' own if null."""
    of: Literal["current", "best"] = "current"
    """Average the listeners' present values, or their bests."""
    agree: Literal["all", "any"] = "all"
    """Stop when all listeners that have a vote want to, or any."""
    warmup: int = Field(-1, ge=-1)
    """Bests are recorded from this step on; -1 = from the start."""
    min_delta: float = Field(0.0, ge=0.0)
    """What a new best must be better by."""

    def arguments(self) -> dict[str, Any]:
        """Returns plain values for `raydist.training.listening`."""
        return self.model_dump()


def _kind(value: Any) -> str:
    kind = value.get("kind", "listener") if isinstance(value, dict) else value.kind
    return str(kind)


def _id(value: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", value):
        raise ValueError(f"{value!r} names a folder: expected letters, digits, '_', '.' and '-'")
    return value


Validation = dict[
    Annotated[str, AfterValidator(_id)],
    Annotated[
        Annotated[Listener, Tag("listener")] | Annotated[Aggregate, Tag("aggregate")],
        Discriminator(_kind),
    ],
]
"""Listeners by id."""
