"""Configuration of `raydist train` and `raydist distill`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge
from pydantic import Field, model_validator

from raydist.config.base import Flat, Verb, execution
from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource, SampleSource
from raydist.errors import ArtifactError, DataError
from raydist.evaluation.spec import Tracking
from raydist.losses.spec import (
    AdrMse,
    Distillation,
    InfoNCE,
    Loss,
    Target,
    TargetSpec,
    check_losses,
)
from raydist.models.spec import (
    BiEncoderSettings,
    BiEncoderStudent,
    CrossEncoderStudent,
    ModelSettings,
    check_precision,
)
from raydist.spec import ADDED, Kind
from raydist.training.samplers import DistillationListwiseSampler, DistillationNegativesSampler
from raydist.training.spec import (
    Cache,
    Checkpointing,
    DeepSpeed,
    Optim,
    Resources,
    TrainingData,
    Validation,
    check_state,
)

if TYPE_CHECKING:
    from raydist.models.folders.contract import ModelKind


class TrainingConfig(Verb):
    """The fields of every training run."""

    data: TrainingData | None = None
    """The training samples."""
    datasets: dict[str, TrainingData] = {}
    """Several data sets by name, instead of `data`; each step draws from one of them."""
    corpus: CorpusSource | None = None
    """The documents that ids in the data refer to."""
    queries: QueriesSource | None = None
    """The queries that ids in the data refer to."""
    qrels: QrelsSource | None = None
    """Judgements that decide which documents of a run or list are positives."""
    on_bad: Literal["error", "skip"] = "error"
    """A bad line is an error, or is skipped, counted and written to a rejects file."""
    out: str = Field(min_length=1)
    """The folder of the run; on a cluster, a path that all workers share, or a URI."""
    steps: int | None = Field(None, ge=1)
    """Optimizer steps; follows from `epochs` if not given."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the data, if `steps` is not given."""
    batch_size: int = Field(32, ge=1)
    """Samples in an optimizer step, over all workers and accumulation parts."""
    batch_tokens: Annotated[int, Ge(0), ADDED] = 0
    """Tokens in an optimizer step, over all workers and accumulation parts, padding included: as
    many samples of like length as they hold, instead of `batch_size`; 0 = off."""
    accumulation: int = Field(1, ge=1)
    """Parts of a step, computed one after the other."""
    seed: int = 0
    """Seed of the order, the draws, dropout and new weights."""
    optim: Optim = Optim()
    """AdamW and its learning rates; a number is the learning rate."""
    cache: Cache = Cache()
    """Gradient caching; a number is the chunk size."""
    deepspeed: DeepSpeed = DeepSpeed()
    """DeepSpeed; a number is the ZeRO stage."""
    checkpoint: Checkpointing = Checkpointing()
    """Checkpoints to resume from; a number is the steps between them."""
    loss: Loss | None = None
    """The loss to minimise."""
    losses: dict[str, Loss] = {}
    """Several losses by name, added up, instead of `loss`."""
    distill: Distillation = Distillation()
    """Distillation beside a contrastive loss, where the data has teacher scores."""
    validation: Validation = {}
    """Listeners by id: they evaluate during training, keep the best model, and may stop early."""
    tracking: Tracking = Tracking()
    """MLflow; `tracking=none` keeps only the local record."""
    resources: Flat[Resources]
    log_every: int = execution(10, ge=1)
    """Steps between logged lines."""
    prefetch: int = execution(2, ge=0)
    """Steps to prepare batches ahead, in a thread."""

    @model_validator(mode="before")
    @classmethod
    def _losses_replace_loss(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("losses") and "loss" not in data:
            return {**data, "loss": None}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        problems = self._batch_problems()
        if self.loss is None and not self.losses:
            problems.append("one of loss and losses is required")
        if (self.data is None) == (not self.datasets):
            problems.append("one of data and datasets is required")
        for name, data in self.sets().items():
            missing = [
                w for w in ("corpus", "queries") if not (getattr(data, w) or getattr(self, w))
            ]
            if data.bm25_negatives and missing:
                problems.append(f"{name}.bm25_negatives: needs {' and '.join(missing)}")
            if data.bm25_negatives and data.run is not None:
                problems.append(f"{name}: give only one of run and bm25_negatives")
        gpu = (
            not self.resources.workers or self.resources.gpus_per_worker > 0
        )  # this process's is known later
        problems += check_state(self.optim, gpu=gpu)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def processes(self) -> int:
        """Workers times accumulation parts: each needs a sample in every step."""
        return max(1, self.resources.workers) * self.accumulation

    def _batch_problems(self) -> list[str]:
        if self.batch_tokens:
            return [
                f"{name}.batch_size = {data.batch_size}: batch_tokens = {self.batch_tokens} says "
                "how many samples a step has; leave one of them out"
                for name, data in self.sets().items()
                if data.batch_size
            ]
        smallest = min(
            [self.batch_size, *(d.batch_size or self.batch_size for d in self.sets().values())]
        )
        if smallest >= self.processes:
            return []
        return [
            f"batch_size = {smallest}: expected at least one sample for each of "
            f"{self.resources.workers} workers and {self.accumulation} accumulation parts"
        ]

    def _uncounted(self, model: ModelSettings) -> list[str]:
        """Returns the complaint about tokens that cannot be counted, at most one line."""
        if not self.batch_tokens or model.scratch is None:
            return []
        return [
            f"batch_tokens = {self.batch_tokens}: model.scratch has no tokenizer to count with "
            "before the model is created; use batch_size"
        ]

    def objectives(self) -> dict[str, Loss]:
        """Returns the losses by name, the one loss under its own kind."""
        return dict(self.losses) if self.loss is None else {self.loss.kind: self.loss}

    def sets(self) -> dict[str, TrainingData]:
        """Returns the data sets by name."""
        return {"data": self.data} if self.data is not None else dict(self.datasets)

    def source(self, data: TrainingData) -> SampleSource:
        """Returns where the samples of a data set come from."""
        return SampleSource(
            path=data.path,
            format=data.format,
            corpus=data.corpus or self.corpus,
            queries=data.queries or self.queries,
            qrels=data.qrels or self.qrels,
            run=data.run,
            relevance=data.relevance,
            split=data.split,
            on_bad=self.on_bad,
            max_rows=data.max_samples,
        )


class TrainConfig(TrainingConfig):
    """Trains a bi-encoder by contrast, with or without a teacher."""

    model: BiEncoderSettings
    """The model to start from: a path or name, or `model.scratch` for a new one."""
    train_group_size: int | None = Field(None, ge=1)
    """Positive and negatives of a sample; 8 if not given, 1 if no sample has negatives."""
    loss: Loss | None = InfoNCE()
    """The loss to minimise."""
    target: Target = TargetSpec()
    """How teacher scores become targets."""

    @model_validator(mode="after")
    def _losses_agree(self) -> TrainConfig:
        unset = self.losses and self.distill == Distillation()
        problems = check_losses(
            self.loss, None if unset else self.distill, self.losses, pairs=False
        )
        problems += check_precision(self.model, self.deepspeed.zero)
        problems += self._uncounted(self.model)
        if problems:
            raise ValueError("; ".join(problems))
        return self


def kind_at(path: str) -> ModelKind | None:
    """Returns the kind of model that a local folder is trained as, None for any other name."""
    from raydist.models.folders.kinds import settled_kind
    from raydist.models.folders.packaged import local_folder

    try:
        folder = None if "://" in path else local_folder(path)
        return None if folder is None else settled_kind(folder)
    except (DataError, ArtifactError):  # which loading the model says
        return None


class DistillConfig(TrainingConfig):
    """Trains a reranker or bi-encoder from a teacher's rankings."""

    model: Annotated[CrossEncoderStudent | BiEncoderStudent, Kind("crossencoder")]
    """The student to start from: a path or name; a bi-encoder's folder that raydist wrote, or that
    of a sparse or multi-vector model, is known by itself, else `model.kind` says so."""
    sampler: DistillationListwiseSampler | DistillationNegativesSampler = (
        DistillationListwiseSampler()
    )
    """Which documents of a list a step uses."""
    loss: Loss | None = AdrMse()
    """The loss to minimise."""
    target: Target | None = None
    """How teacher scores become targets; unchanged if not given, or scaled to [0, 1] if
    listwise_softmax_ce needs it."""

    @model_validator(mode="before")
    @classmethod
    def _kind_of_the_folder(cls, data: Any) -> Any:
        """Takes a bi-encoder that was trained, of any kind, for what it is."""
        model = data.get("model") if isinstance(data, dict) else None
        model = {"path": model} if isinstance(model, str) else model
        if not isinstance(model, dict) or "kind" in model or not isinstance(model.get("path"), str):
            return data
        kind = kind_at(model["path"])
        return data if kind is None else {**data, "model": {**model, "kind": kind}}

    @model_validator(mode="after")
    def _losses_agree(self) -> DistillConfig:
        unset = self.losses and self.distill == Distillation()
        pairs = self.model.kind == "crossencoder"
        problems = check_losses(
            self.loss, None if unset else self.distill, self.losses, pairs=pairs
        )
        problems += check_precision(self.model, self.deepspeed.zero)
        problems += self._uncounted(self.model)
        judged = all(data.qrels or self.qrels for data in self.sets().values())
        if self.sampler.kind == "negatives" and not judged:
            problems.append("sampler.kind = negatives: needs qrels=PATH to find the positives")
        if self.sampler.kind == "listwise" and judged and self.target is not None:
            problems.append(
                f"target = {self.target.kind}: applies to a teacher's scores, but with qrels= the "
                "targets of sampler.kind=listwise are the grades; leave one of them out"
            )
        unbounded = [
            loss.kind for loss in self.objectives().values() if loss.kind != "listwise_softmax_ce"
        ]
        if self.model.output != "real" and unbounded:
            problems.append(
                f"model.output = {self.model.output}: only listwise_softmax_ce takes "
                f"probabilities; {unbounded[0]} needs model.output=real"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self
