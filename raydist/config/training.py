"""What `train` and `distill` have in common: data sets, optimizer, steps, resources."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from raydist.config.base import Block, Verb, execution
from raydist.config.losses import Distillation, Loss
from raydist.config.tracking import Tracking
from raydist.data.spec import CorpusSource, Paths, QrelsSource, QueriesSource, RunSource
from raydist.training.spec import Validation


class DataConfig(Block):
    """One data set of training samples."""

    primary: ClassVar[str | None] = "path"

    path: Paths = Field(min_length=1)
    """Samples, a run, judgements, a BEIR folder or `irds:ID`; several files are one data set."""
    format: Literal["flagembedding", "tevatron", "lists", "ids", "triples", "pairs"] | None = None
    """Of the lines; found out if not given."""
    corpus: CorpusSource | None = None
    """Documents that ids refer to; the run's own `corpus` if not given."""
    queries: QueriesSource | None = None
    """Queries that ids refer to; the run's own `queries` if not given."""
    qrels: QrelsSource | None = None
    """Judgements that make positives; the run's own `qrels` if not given."""
    run: RunSource | None = None
    """A run whose other documents become negatives, where `path` holds judgements."""
    bm25_negatives: int = Field(0, ge=0)
    """Negatives from BM25's first documents, where `path` holds judgements: so many are looked at
    for each query; 0 = none. An index is built for it once."""
    relevance: int = 1
    """Least grade of a positive."""
    split: str = "train"
    """Of a BEIR folder's judgements."""
    weight: float = Field(1.0, gt=0)
    """Passes over this data set in an epoch."""
    prompt: str | None = None
    """Instruction before queries that bring none of their own, as it stands."""
    no_in_batch: bool | None = None
    """Only a sample's own documents are its negatives; by a file name that ends in
    `no_in_batch_neg` if not given."""
    train_group_size: int | None = Field(None, ge=1)
    """Positive and negatives of a sample together; the run's own if not given."""
    batch_size: int | None = Field(None, ge=1)
    """Samples of a step, over all workers; the run's own if not given."""
    max_samples: int = Field(0, ge=0)
    """Use the first samples only; 0 = all."""


class OptimConfig(Block):
    """AdamW and its learning rates."""

    primary: ClassVar[str | None] = "lr"

    lr: float = Field(2e-5, gt=0)
    """Highest learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """What follows the warm-up: down to `floor`, or constant."""
    warmup: float = Field(0.1, ge=0)
    """Steps of the rise; below 1 it is a share of all steps."""
    floor: float = Field(0.0, ge=0, le=1)
    """Lowest share of `lr` after the warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """Of matrices; biases and norms do not decay."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the gradient's mean."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the squared gradient's mean."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator."""
    clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0 = no clipping."""


class CacheConfig(Block):
    """Gradient caching: batches of any size at the memory of a chunk."""

    primary: ClassVar[str | None] = "chunk_size"

    chunk_size: int = Field(0, ge=0, json_schema_extra={"execution": True})
    """Texts that are encoded at a time, twice; 0 = off."""


class DeepSpeedConfig(Block):
    """Spreads the optimizer's state (1), gradients (2), and weights (3) over the workers."""

    primary: ClassVar[str | None] = "zero"

    zero: int = Field(0, ge=0, le=3)
    """ZeRO stage; 0 trains without DeepSpeed."""
    offload_optimizer: bool = execution(False)
    """Keep the optimizer's state in CPU memory (ZeRO 1 to 3)."""
    offload_parameters: bool = execution(False)
    """Keep the weights in CPU memory (ZeRO 3)."""


class CheckpointConfig(Block):
    """The state that an interrupted run goes on from."""

    primary: ClassVar[str | None] = "every"

    every: int = execution(0, ge=0)
    """Steps between checkpoints; 0 = a tenth of the run, 500 at most."""
    keep: int = execution(2, ge=1)
    """How many are kept."""


class TrainingConfig(Verb):
    """The fields of every training run."""

    data: DataConfig | None = None
    """The training samples."""
    datasets: dict[str, DataConfig] = {}
    """Several data sets by name, instead of `data`; a step's samples are of one of them."""
    corpus: CorpusSource | None = None
    """Documents that ids in the data refer to."""
    queries: QueriesSource | None = None
    """Queries that ids in the data refer to."""
    qrels: QrelsSource | None = None
    """Judgements that make positives of a run's or a list's documents."""
    on_bad: Literal["error", "skip"] = "error"
    """A bad line is an error, or is skipped, counted and written to a rejects file."""
    out: str = Field(min_length=1)
    """The run's folder; on a cluster a path that every worker sees."""
    steps: int | None = Field(None, ge=1)
    """Optimizer steps; counted by `epochs` if not given."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the data, where `steps` is not given."""
    batch_size: int = Field(32, ge=1)
    """Samples of an optimizer step, over all workers and accumulation parts."""
    accumulation: int = Field(1, ge=1)
    """Parts that a step is computed in, one after the other."""
    seed: int = 0
    """Of order, draws, dropout and fresh weights."""
    optim: OptimConfig = OptimConfig()
    """AdamW and its learning rates; a number is the learning rate."""
    cache: CacheConfig = CacheConfig()
    """Gradient caching; a number is the chunk size."""
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    """DeepSpeed; a number is the ZeRO stage."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """State to go on from; a number is the steps between checkpoints."""
    loss: Loss | None = None
    """What is optimised."""
    losses: dict[str, Loss] = {}
    """Several losses by name, added up, instead of `loss`."""
    distill: Distillation = Distillation()
    """Distillation beside a contrastive loss, on where the data has teacher scores."""
    validation: Validation = {}
    """Listeners by id: evaluate while training, keep the best, stop early."""
    tracking: Tracking = Tracking()
    """MLflow; `tracking=none` keeps the local record alone."""
    workers: int = execution(0, ge=0)
    """Ray Train workers; 0 trains in this process, without Ray."""
    cpus_per_worker: float = execution(1.0, gt=0)
    """CPUs of a worker."""
    gpus_per_worker: float = execution(0.0, ge=0, le=1)
    """GPUs of a worker; one worker drives one GPU."""
    max_failures: int = execution(3, ge=0)
    """How often dead workers are replaced."""
    threads: int = execution(0, ge=0)
    """Torch threads where `workers` is 0; 0 = torch's choice."""
    log_every: int = execution(10, ge=1)
    """Steps between logged lines."""
    prefetch: int = execution(2, ge=0)
    """Steps whose batches are prepared ahead, in a thread."""

    @model_validator(mode="before")
    @classmethod
    def _losses_replace_loss(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("losses") and "loss" not in data:
            return {**data, "loss": None}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        problems = []
        if self.loss is None and not self.losses:
            problems.append("one of loss and losses is required")
        if (self.data is None) == (not self.datasets):
            problems.append("one of data and datasets is required")
        processes = max(1, self.workers) * self.accumulation
        smallest = min(
            [self.batch_size, *(d.batch_size or self.batch_size for d in self.sets().values())]
        )
        if smallest < processes:
            problems.append(
                f"batch_size = {smallest}: expected at least one sample for each of {self.workers} "
                f"workers and {self.accumulation} accumulation parts"
            )
        for name, data in self.sets().items():
            missing = [
                w for w in ("corpus", "queries") if not (getattr(data, w) or getattr(self, w))
            ]
            if data.bm25_negatives and missing:
                problems.append(f"{name}.bm25_negatives: needs {' and '.join(missing)}")
            if data.bm25_negatives and data.run is not None:
                problems.append(f"{name}: one of run and bm25_negatives")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def objectives(self) -> dict[str, Loss]:
        """Returns the losses by name, the one loss under its own kind."""
        return dict(self.losses) if self.loss is None else {self.loss.kind: self.loss}

    def sets(self) -> dict[str, DataConfig]:
        """Returns the data sets by name."""
        return {"data": self.data} if self.data is not None else dict(self.datasets)

    def inputs(self, data: DataConfig) -> dict[str, Any]:
        """Returns the keyword arguments of `prepare` that say where a data set's parts are."""
        given: dict[str, Any] = {}
        for name in ("corpus", "queries", "qrels", "run"):
            source = getattr(data, name) or getattr(self, name, None)
            given[name] = None if source is None else source.arguments()
        return given | {
            "format": data.format,
            "relevance": data.relevance,
            "split": data.split,
            "on_bad": self.on_bad,
            "max_rows": data.max_samples,
        }
