"""The plan of a run: its data sets, its loss, its steps and rates. Pure; nothing is read.

`plan_groups` and `plan_lists` decide how a data set is trained on. Options that the user left open
follow from the data's facts, with a note; a plan that cannot work is an error before anything
starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raydist.data.samples.lines import UNJUDGED
from raydist.data.samples.sample_set import SampleFacts
from raydist.errors import DataError
from raydist.models.spec import BiEncoderSettings, CrossEncoderSettings
from raydist.training.samplers import (
    DataSampler,
    DistillationListwiseSampler,
    DistillationNegativesSampler,
    GroupSampler,
    Order,
    Stream,
)
from raydist.training.source import ToTargets
from raydist.training.spec import Aggregate, DeepSpeed, Listener, Optim, TrainingData

if TYPE_CHECKING:
    from raydist.losses.objective import Objective
    from raydist.stores.nodes import Area
    from raydist.training.validation.build import Hooks

DEFAULT_GROUP = 8

_SYMMETRIC = ("symmetric_sts", "symmetric_clustering")
"""Types whose documents are encoded as queries, as FlagEmbedding does."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rates of a run.

    Attributes:
        lr: the highest rate.
        steps: optimizer steps of the run.
        warmup: steps of the linear rise; below 1 it is a share of `steps`.
        kind: after the rise: `linear` to zero, `cosine` to zero, or `constant`.
        floor: the lowest share of `lr` after the warm-up.
    """

    lr: float
    steps: int
    warmup: float = 0.0
    kind: Literal["constant", "linear", "cosine"] = "linear"
    floor: float = 0.0

    @property
    def warmup_steps(self) -> int:
        """Steps of the rise."""
        return math.ceil(self.warmup * self.steps) if self.warmup < 1 else int(self.warmup)

    def at(self, step: int) -> float:
        """Returns the rate of a step counted from 0; the first step of a rise is not zero."""
        rise = self.warmup_steps
        if step < rise:
            return self.lr * (step + 1) / rise
        remaining = max(0.0, (self.steps - step) / max(1, self.steps - rise))
        if self.kind == "linear":
            factor = remaining
        elif self.kind == "cosine":
            factor = 0.5 * (1.0 + math.cos(math.pi * (1.0 - remaining)))
        else:
            factor = 1.0
        return self.lr * max(self.floor, factor)


@dataclass(frozen=True, slots=True)
class SetPlan:
    """One data set of a run, decided; JSON-able but for the sampler.

    Attributes:
        name: of the data set.
        folder: its prepared folder.
        streams: its rows, batches and weight in the global order; one for each length of samples
            where batches have a number of tokens.
        sampler: draws a sample's documents.
        prompt: instruction of queries that bring none.
        teacher: whether batches carry teacher targets.
        answers: A, answers of a sample in a batch; 0 for none.
        answer_teacher: whether batches carry teacher scores of answers.
        no_in_batch: only a sample's own documents are negatives.
        symmetric: documents are encoded as queries.
        notes: for the user.
    """

    name: str
    folder: Path
    streams: tuple[Stream, ...]
    sampler: DataSampler
    prompt: str | None = None
    teacher: bool = False
    answers: int = 0
    answer_teacher: bool = False
    no_in_batch: bool = False
    symmetric: bool = False
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Its samples."""
        return sum(stream.rows for stream in self.streams)

    @property
    def batches(self) -> int:
        """Its steps in an epoch."""
        return sum(stream.batches for stream in self.streams)

    @property
    def batch_sizes(self) -> tuple[int, int]:
        """The fewest and the most samples of its steps."""
        sizes = [stream.batch_size for stream in self.streams]
        return min(sizes), max(sizes)


@dataclass(frozen=True, slots=True)
class Plan:
    """The loop's steps, rates and logs.

    Attributes:
        steps: optimizer steps of the run.
        schedule: learning rates.
        seed: of dropout.
        log_every: steps between logged lines.
        checkpoint_every: steps between checkpoints; 0 keeps only the last one.
        prefetch: steps whose batches are prepared ahead.
        threads: steps whose batches are prepared at a time.
        progress: rank 0 shows its progress.
        folder: where a batch with a non-finite loss is saved.
    """

    steps: int
    schedule: Schedule
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 0
    prefetch: int = 2
    threads: int = 1
    progress: bool = True
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """The full plan of a run, for its workers. Picklable.

    Attributes:
        folder: the run's folder.
        model: what is trained; its path is where it starts from.
        sets: the data sets.
        objective: the loss.
        plan: steps, rates, logs.
        seed: of the order, the draws, dropout and new weights.
        accumulation: parts that a step is computed in.
        chunk_size: rows encoded at a time (gradient caching); 0 = off.
        to_targets: turns the scores of a teacher's whole list into targets.
        repair_positive: a drawn positive's target is pulled up (see `TeacherSampler`).
        optim: AdamW.
        deepspeed: ZeRO, if there is any.
        keep: checkpoints that are kept.
        validation: listeners by id.
        settings: travels with the final model.
        system_every: seconds between samples of the load of rank 0's machine; 0 = none.
        hooks: (before, after) pairs by listener's id, called by every rank; picklable, as the job
            is, if there are workers.
        area: through which nodes without a shared folder work, where the output goes to an object
            store.
    """

    folder: Path
    model: BiEncoderSettings | CrossEncoderSettings
    sets: tuple[SetPlan, ...]
    objective: Objective
    plan: Plan
    seed: int = 0
    accumulation: int = 1
    chunk_size: int = 0
    to_targets: ToTargets | None = None
    repair_positive: bool = False
    optim: Optim = field(default_factory=Optim)
    deepspeed: DeepSpeed = field(default_factory=DeepSpeed)
    keep: int = 2
    validation: Mapping[str, Listener | Aggregate] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    system_every: float = 0.0
    hooks: Hooks = field(default_factory=dict)
    area: Area | None = None

    @property
    def order(self) -> Order:
        """The global order of its samples."""
        streams = [replace(s, dataset=i) for i, plan in enumerate(self.sets) for s in plan.streams]
        return Order(tuple(streams), self.seed)


def plan_groups(
    facts: SampleFacts,
    folder: Path,
    data: TrainingData,
    *,
    batch_size: int,
    group: int | None,
    teacher: bool,
    answers: bool,
) -> SetPlan:
    """Returns the plan of a contrastive data set.

    Args:
        facts: of the prepared data.
        folder: where it is.
        data: the options of this data set.
        batch_size: of the run, over all ranks.
        group: G of the run; None follows the data: 8, or 1 and the most negatives of a sample.
        teacher: teacher scores are used where the data has them.
        answers: answers are used where the data has them.

    Raises:
        DataError: G needs negatives and the data has none.
    """
    notes: list[str] = []
    size = data.train_group_size or group or facts.overrides.get("train_group_size")
    fewest, most = facts.fewest_negatives, max(facts.negatives, default=0)
    if facts.kind == "only_1neg":
        size = 2
    elif facts.kind == "symmetric_class":
        size = min(size or DEFAULT_GROUP, fewest + 1)
    elif size is None:
        size = min(DEFAULT_GROUP, 1 + most)
        if not most:
            notes.append("no negatives: only the other samples' positives are negatives (G = 1)")
    if size > 1 and fewest < 1:
        raise DataError(
            f"{facts.without_negatives}: a sample without negatives, which train_group_size = "
            f"{size} needs; give it some, set train_group_size=1, or skip such samples with "
            "train_group_size given and on_bad=skip"
        )
    few = sum(count for n, count in facts.negatives.items() if n < size - 1)
    if few and size > 1:
        notes.append(
            f"{few} of {facts.rows} samples have fewer than {size - 1} negatives: repeated"
        )
    used = facts.answers and answers
    answer_group = 1 + min(facts.negative_answers, max(0, size - 1)) if used else 0
    alone = data.no_in_batch
    if alone is None:
        alone = bool(facts.files) and Path(facts.files[0]).stem.endswith("no_in_batch_neg")
    stream = _stream(facts, data, batch_size)
    if facts.rows < stream.batch_size:
        notes.append(f"{facts.rows} samples fill a batch of {stream.batch_size} several times over")
    return SetPlan(
        facts.name,
        folder,
        (stream,),
        GroupSampler(size, answer_group),
        data.prompt,
        teacher=facts.scores and teacher,
        answers=answer_group,
        answer_teacher=used and facts.answer_scores and teacher,
        no_in_batch=alone,
        symmetric=facts.kind in _SYMMETRIC,
        notes=tuple(notes),
    )


def plan_lists(
    facts: SampleFacts,
    folder: Path,
    data: TrainingData,
    *,
    batch_size: int,
    sampler: DistillationListwiseSampler | DistillationNegativesSampler,
) -> SetPlan:
    """Returns the plan of a data set of lists, for distillation.

    Args:
        facts: of the prepared data.
        folder: where it is.
        data: the options of this data set.
        batch_size: lists in a step of the run, over all ranks.
        sampler: draws a list's documents.
    """
    judged = facts.labels or facts.format not in UNJUDGED
    assert sampler.kind != "negatives" or judged, "no judgements say which documents are positives"
    stream = _stream(facts, data, batch_size)
    return SetPlan(facts.name, folder, (stream,), sampler, data.prompt, teacher=facts.scores)


def _stream(facts: SampleFacts, data: TrainingData, batch_size: int) -> Stream:
    batch_size = data.batch_size or facts.overrides.get("batch_size") or batch_size
    return Stream(facts.rows, batch_size, data.weight)
