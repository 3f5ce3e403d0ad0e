"""What can be set of training: data sets, optimizer, DeepSpeed, checkpoints, validation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from raydist.data.spec import CorpusSource, Paths, QrelsSource, QueriesSource, RunSource
from raydist.spec import ADDED, EXECUTION, FromText, Kind, Reads


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """One data set of training samples."""

    primary: ClassVar[str] = "path"

    path: Annotated[Paths, MinLen(1), Reads("samples")]
    """Samples, a run, judgements, a BEIR folder or `irds:ID`; several files are one data set."""
    format: Literal["flagembedding", "tevatron", "lists", "ids", "triples", "pairs"] | None = None
    """Of the lines; detected if not given."""
    corpus: CorpusSource | None = None
    """Documents that ids refer to; the run's own `corpus` if not given."""
    queries: QueriesSource | None = None
    """Queries that ids refer to; the run's own `queries` if not given."""
    qrels: QrelsSource | None = None
    """Judgements that make positives; the run's own `qrels` if not given."""
    run: RunSource | None = None
    """A run whose other documents become negatives, where `path` holds judgements."""
    bm25_negatives: Annotated[int, Ge(0)] = 0
    """First documents of BM25's ranking that become a query's negatives unless they are relevant,
    where `path` holds judgements; 0 = none. The index is built once."""
    relevance: int = 1
    """Lowest grade of a positive."""
    split: str = "train"
    """Of a BEIR folder's judgements."""
    weight: Annotated[float, Gt(0)] = 1.0
    """Passes over this data set in an epoch."""
    prompt: str | None = None
    """Instruction put before queries that have none of their own, verbatim."""
    no_in_batch: bool | None = None
    """Only a sample's own documents are its negatives; if not given, true for a file name that
    ends in `no_in_batch_neg`."""
    train_group_size: Annotated[int, Ge(1)] | None = None
    """Positive and negatives of a sample together; the run's own if not given."""
    batch_size: Annotated[int, Ge(1)] | None = None
    """Samples of a step, over all workers; the run's own if not given."""
    max_samples: Annotated[int, Ge(0)] = 0
    """Use only the first samples, so many; 0 = all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optim:
    """AdamW and its learning rates."""

    primary: ClassVar[str] = "lr"

    lr: Annotated[float, Gt(0)] = 2e-5
    """Highest learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """What follows the warm-up: down to `floor`, or constant."""
    warmup: Annotated[float, Ge(0)] = 0.1
    """Steps of the rise; below 1 it is a share of all steps."""
    floor: Annotated[float, Ge(0), Le(1)] = 0.0
    """Lowest share of `lr` after the warm-up."""
    weight_decay: Annotated[float, Ge(0)] = 0.01
    """Of matrices; biases and norms do not decay."""
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Decay of the gradient's mean."""
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    """Decay of the squared gradient's mean."""
    eps: Annotated[float, Gt(0)] = 1e-8
    """Added to the denominator."""
    clip: Annotated[float, Ge(0)] = 1.0
    """Largest norm of the gradient; 0 = no clipping."""
    state: Annotated[Literal["float32", "bfloat16", "8bit"], ADDED] = "float32"
    """Precision of the gradient's two means, 8 bytes a weight in float32, 4 in bfloat16; 8bit needs
    a GPU and bitsandbytes."""


def check_state(optim: Optim, *, gpu: bool) -> list[str]:
    """Returns the complaint about an optimizer's state that cannot be kept, at most one line."""
    if optim.state != "8bit":
        return []
    if find_spec("bitsandbytes") is None:
        return ["optim.state = 8bit: bitsandbytes is not installed; bfloat16 needs nothing"]
    return [] if gpu else ["optim.state = 8bit: needs a GPU; bfloat16 works everywhere"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Gradient caching: batches of any size at the memory of a chunk."""

    primary: ClassVar[str] = "chunk_size"

    chunk_size: Annotated[int, Ge(0), EXECUTION] = 0
    """Texts that are encoded at a time, twice; 0 = off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSpeed:
    """Spreads the optimizer's state (1), gradients (2), and weights (3) over the workers."""

    primary: ClassVar[str] = "zero"

    zero: Annotated[int, Ge(0), Le(3)] = 0
    """ZeRO stage; 0 trains without DeepSpeed."""
    offload_optimizer: Annotated[bool, EXECUTION] = False
    """Keep the optimizer's state in CPU memory (ZeRO 1 to 3)."""
    offload_parameters: Annotated[bool, EXECUTION] = False
    """Keep the weights in CPU memory (ZeRO 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Where training runs: in this process, or on Ray Train's workers."""

    workers: Annotated[int, Ge(0), EXECUTION] = 0
    """Ray Train workers; 0 trains in this process, without Ray."""
    cpus_per_worker: Annotated[float, Gt(0), EXECUTION] = 1.0
    """CPUs of a worker."""
    gpus_per_worker: Annotated[float, Ge(0), Le(1), EXECUTION] = 0.0
    """GPUs of a worker: one, or a share of one if it is the only worker (or a trial of `tune`)."""
    max_failures: Annotated[int, Ge(0), EXECUTION] = 3
    """How often failed workers are replaced before the run fails."""
    timeout: Annotated[int, Ge(1), EXECUTION] = 1800
    """Seconds after which a worker that waits in vain for another one gives up (NCCL and gloo)."""
    threads: Annotated[int, Ge(0), EXECUTION] = 0
    """Torch threads if `workers` is 0; 0 is torch's own choice."""

    def __post_init__(self) -> None:
        if self.workers > 1 and 0 < self.gpus_per_worker < 1:
            raise ValueError(
                f"gpus_per_worker = {self.gpus_per_worker:g}: {self.workers} workers could share a "
                "GPU, which NCCL refuses; gpus_per_worker=1 gives each its own, workers=1 takes a "
                "share, cache=16 makes room for larger batches on one GPU"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointing:
    """The state that an interrupted run resumes from."""

    primary: ClassVar[str] = "every"

    every: Annotated[int, Ge(0), EXECUTION] = 0
    """Steps between checkpoints; 0 = a tenth of the run, 500 at most."""
    keep: Annotated[int, Ge(1), EXECUTION] = 2
    """Checkpoints that are kept."""


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
    """Steps between evaluations; step 0 gives the baseline, and the last step is evaluated, too."""
    early_stop: Annotated[int, Ge(0)] = 0
    """Steps without a new best of a kept measure after which training stops; 0 = never."""
    min_delta: Annotated[float, Ge(0.0)] = 0.0
    """By how much a new best must be better."""
    async_: Annotated[bool, EXECUTION] = False
    """Evaluate saved checkpoints beside training, one at a time; decisions lag by an interval."""
    gpus: Annotated[float, Ge(0), Le(1), EXECUTION] = 0.0
    """Share of a GPU, beyond those of training, of an `async` evaluation; 0 = on the CPU."""

    def __post_init__(self) -> None:
        problems = _metric_problems(self.metrics)
        problems += _stop_problems(self.early_stop, self.interval)
        problems += _kept_problems(self.early_stop, self.metrics)
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
    """Average the listeners' current values, or their bests."""
    agree: Literal["all", "any"] = "all"
    """Stop when all listeners that have a vote want to, or any; without `early_stop` of its own."""
    warmup: Annotated[int, Ge(-1)] = -1
    """Bests are recorded from this step on; -1 = from the start."""
    interval: Annotated[int | None, Ge(1), ADDED] = None
    """Steps between means, a multiple of the listeners' interval; theirs if not given."""
    early_stop: Annotated[int, Ge(0), ADDED] = 0
    """Steps without a new best mean of a kept measure after which training stops; 0 = the
    listeners' votes decide."""
    min_delta: Annotated[float, Ge(0.0)] = 0.0
    """By how much a new best must be better."""

    def __post_init__(self) -> None:
        problems = _metric_problems(self.metrics) if self.metrics is not None else []
        if self.interval is not None:
            problems += _stop_problems(self.early_stop, self.interval)
        if self.early_stop and self.metrics is not None:
            problems += _kept_problems(self.early_stop, self.metrics)
        if problems:
            raise ValueError("; ".join(problems))


def _metric_problems(metrics: dict[str, bool]) -> list[str]:
    from raydist.evaluation.measures import direction, parse

    if not metrics:
        return ["metrics = {}: name at least one measure, for example {map: true}"]
    problems = []
    for name, keep in metrics.items():
        names = list(parse([name]))
        if names != [name]:
            problems.append(f"metrics: {name!r} stands for {', '.join(names)}: name one")
        elif keep and not direction(name):
            problems.append(f"metrics: {name} is a count, its checkpoint cannot be the best")
    return problems


def _stop_problems(early_stop: int, interval: int) -> list[str]:
    if early_stop % interval == 0:
        return []
    return [f"early_stop = {early_stop}: expected 0 (never) or a multiple of interval = {interval}"]


def _kept_problems(early_stop: int, metrics: dict[str, bool]) -> list[str]:
    if not early_stop or not metrics or any(metrics.values()):
        return []
    return [
        f"early_stop = {early_stop}: no metric is kept, so nothing could decide; "
        f"set one of {', '.join(metrics)} to true, or early_stop to 0"
    ]


def _folder_name(id: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", id):
        raise ValueError(f"{id!r} names a folder: expected letters, digits, '_', '.' and '-'")
    return id


Validation = dict[
    Annotated[str, FromText(_folder_name)], Annotated[Listener | Aggregate, Kind("listener")]
]
"""Listeners by id."""
