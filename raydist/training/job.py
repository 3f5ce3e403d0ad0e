"""What every worker of a training run does, from a picklable description: load, train, save.

The parts are put together here once, for bi-encoders and cross-encoders alike; the loop itself is
`raydist.training.loop`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from raydist.data.samples.sample_set import SampleSet
from raydist.evaluation.measures import Evaluation
from raydist.evaluation.mirror import Mirror
from raydist.log import warn
from raydist.losses.nested import nested
from raydist.losses.objective import Objective
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.records import Sample
from raydist.training import loop
from raydist.training.checkpoint import LocalCheckpoints, read_state
from raydist.training.collate import Batch
from raydist.training.collating import collate_pairs, collate_texts
from raydist.training.engine import Engine, TorchEngine
from raydist.training.final import CheckedSave, save_final
from raydist.training.listener_files import Save
from raydist.training.listeners import Listeners
from raydist.training.listening import Hooks, make_listeners
from raydist.training.memory import memory_note
from raydist.training.samplers import Order
from raydist.training.sets import SetPlan
from raydist.training.source import BatchSource, Part
from raydist.training.step import biencoder_step, cells_of, crossencoder_step
from raydist.training.targets import Retarget, Taught
from raydist.training.validation import Ranks
from raydist.training.worker import Place

CHECKPOINTS = "checkpoints"
LISTENERS = "listeners"

Kind = Literal["biencoder", "crossencoder"]


@dataclass(frozen=True, slots=True)
class Job:
    """A run, decided: all that a worker needs to know.

    Attributes:
        kind: what is trained.
        folder: the run's folder.
        model: the folder or name to start from.
        model_options: keyword arguments of the model's `load`.
        sets: the data sets.
        objective: the loss.
        plan: steps, rates, logs.
        seed: of the order, the draws and dropout.
        accumulation: parts that a step is computed in.
        chunk_size: rows encoded at a time (gradient caching); 0 = off.
        targets: turns the scores of a teacher's whole list into targets.
        repair_positive: a drawn positive's target is pulled up (see `Taught`).
        optimizer: keyword arguments of the engine: lr, weight_decay, betas, eps, max_grad_norm.
        zero: ZeRO stage; 0 needs no DeepSpeed.
        zero_options: further keyword arguments of the DeepSpeed engine.
        keep: checkpoints that are kept.
        validation: listeners' arguments by id.
        settings: travels with the final model.
        hooks: (before, after) pairs by listener's id, called by every rank; picklable, as the job
            is, if there are workers.
    """

    kind: Kind
    folder: Path
    model: str
    sets: tuple[SetPlan, ...]
    objective: Objective
    plan: loop.Plan
    seed: int = 0
    accumulation: int = 1
    chunk_size: int = 0
    targets: Retarget | None = None
    repair_positive: bool = False
    model_options: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    zero: int = 0
    zero_options: Mapping[str, Any] = field(default_factory=dict)
    keep: int = 2
    validation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    hooks: Hooks = field(default_factory=dict)

    @property
    def order(self) -> Order:
        """The global order of its samples."""
        return Order(tuple(plan.stream for plan in self.sets), self.seed)


def model_class(kind: Kind) -> type[BiEncoder] | type[CrossEncoderModel]:
    """Returns the class of what is trained."""
    return BiEncoder if kind == "biencoder" else CrossEncoderModel


def run_job(job: Job, place: Place) -> dict[str, Any]:
    """Trains, saves the final model and returns how it went (the same on every rank)."""
    model = model_class(job.kind).load(job.model, device=place.device, **job.model_options)
    engine = _engine(job, model)
    checkpoints = LocalCheckpoints(
        job.folder / CHECKPOINTS, keep=job.keep, rank=place.rank, barrier=place.barrier
    )
    latest = checkpoints.latest()
    place.barrier()
    reached = read_state(latest)["step"] if latest else 0
    mirror = Mirror(job.folder, resume_step=reached) if place.rank == 0 else None
    parts = tuple(_part(job, plan, model) for plan in job.sets)
    source = BatchSource(job.order, parts, place.rank, place.world_size, job.accumulation)
    save = CheckedSave(
        _probe(job, parts[0], place.device),
        partial(_reload, job, place.device),
        first=place.rank == 0,
    )
    listeners = _listeners(job, place, mirror, save)
    step = biencoder_step if job.kind == "biencoder" else crossencoder_step
    objective = _objective(job, model)
    if place.rank == 0 and reached < job.plan.steps:
        cached = job.chunk_size or job.model_options.get("gradient_checkpointing")
        note = "" if cached else memory_note(model, source(reached))
        if note:
            warn(note)

    def log(number: int, values: Mapping[str, float]) -> None:
        assert mirror is not None
        mirror.step(number, values)

    outcome = loop.run(
        engine,
        lambda batches: step(engine, batches, objective, chunk_size=job.chunk_size),
        objective.total,
        partial(cells_of, device=place.device, chunk_size=job.chunk_size),
        source,
        job.plan,
        log=log,
        checkpoints=checkpoints,
        listener=listeners,
        due=_due(job),
        agree=place.agree,
    )
    save_final(
        engine,
        job.folder,
        save=save,
        settings={**job.settings, "step": outcome.step},
        barrier=place.barrier,
    )
    result = asdict(outcome)
    if math.isnan(outcome.loss):
        result["loss"] = None
    return result


def _objective(job: Job, model: BiEncoder | CrossEncoderModel) -> Objective:
    """Returns the job's objective, on nested prefixes of the vectors if the model asks for them."""
    if not isinstance(model, BiEncoder) or not model.contract.dimensions:
        return job.objective
    return nested(
        job.objective,
        model.contract.dimensions,
        width=model.hidden,
        normalize=model.contract.normalize,
    )


def _engine(job: Job, model: torch.nn.Module) -> Engine:
    if job.zero == 0:
        return TorchEngine(model, **job.optimizer)
    from raydist.training.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(model, zero=job.zero, **job.optimizer, **job.zero_options)  # type: ignore[arg-type]


def _part(job: Job, plan: SetPlan, model: BiEncoder | CrossEncoderModel) -> Part:
    samples = SampleSet(plan.folder, prompt=plan.prompt, lazy=True)
    sampler = plan.sampler
    if plan.targets:
        assert job.targets is not None
        sampler = Taught(plan.sampler, job.targets, job.repair_positive)

    def texts(drawn: Sequence[Sample], rows: Sequence[int], total: int) -> Batch:
        assert isinstance(model, BiEncoder)
        return collate_texts(
            drawn,
            model,
            dataset=plan.name,
            rows=rows,
            targets=plan.targets,
            answers=plan.answers,
            answer_targets=plan.answer_targets,
            no_in_batch=plan.no_in_batch,
            symmetric=plan.symmetric,
            global_samples=total,
        )

    def pairs(drawn: Sequence[Sample], rows: Sequence[int], total: int) -> Batch:
        assert isinstance(model, CrossEncoderModel)
        return collate_pairs(
            drawn, model, dataset=plan.name, rows=rows, targets=plan.targets, global_samples=total
        )

    collate = texts if job.kind == "biencoder" else pairs
    return Part(plan.name, samples, sampler, collate, samples.fill)


def _listeners(job: Job, place: Place, mirror: Mirror | None, save: Save) -> Listeners | None:
    if not job.validation:
        return None

    def gather(value: Any) -> list[Any]:
        if place.world_size == 1:
            return [value]
        found: list[Any] = [None] * place.world_size
        dist.all_gather_object(found, value)
        return found

    return make_listeners(
        job.validation,
        folder=job.folder / LISTENERS,
        steps=job.plan.steps,
        ranks=Ranks(place.rank, place.world_size, gather),
        mirror=mirror,
        save=save,
        submit=_submit_nothing if place.rank else None,
        hooks=job.hooks,
    )


class _Nothing:
    """What other ranks hold of an evaluation beside training: they are told rank 0's result."""

    def result(self, timeout_s: float) -> Evaluation | None:
        return None


def _submit_nothing(spec: Mapping[str, Any], folder: Path) -> _Nothing:
    return _Nothing()


def _due(job: Job) -> Callable[[int], bool]:
    intervals = {spec["interval"] for spec in job.validation.values() if "interval" in spec}
    return lambda step: step == job.plan.steps or any(step % i == 0 for i in intervals)


def _probe(job: Job, part: Part, device: torch.device) -> Callable[[Any], torch.Tensor]:
    """Returns what gives a model's output for a few of the training texts."""
    samples = [part.rows[row] for row in range(min(4, len(part.rows)))]
    samples = part.fill([replace(s, documents=s.documents[:1]) for s in samples])
    queries = [sample.query for sample in samples]
    documents = [sample.documents[0] for sample in samples]

    def embed(model: BiEncoder) -> torch.Tensor:
        both: list[tuple[list[str], Literal["query", "document"]]] = [
            (queries, "query"),
            (documents, "document"),
        ]
        outputs = []
        for texts, role in both:
            inputs = model.pad(model.tokenize(texts, role))
            outputs.append(model({k: v.to(device) for k, v in inputs.items()}, role))
        return torch.cat(outputs)

    def score(model: CrossEncoderModel) -> torch.Tensor:
        inputs = model.pad(model.tokenize(queries, documents))
        output: torch.Tensor = model({k: v.to(device) for k, v in inputs.items()})
        return output

    return embed if job.kind == "biencoder" else score


def _reload(job: Job, device: torch.device, folder: Path) -> BiEncoder | CrossEncoderModel:
    kept = ("dtype", "autocast", "attention", "truncate")
    options = {name: job.model_options[name] for name in kept if name in job.model_options}
    return model_class(job.kind).load(folder, device=device, **options)
