"""What one rank trains with: model, engine, data, listeners and checkpoints, built from a job.

They are put together here once, for bi-encoders and cross-encoders alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raydist.data.samples.sample_set import SampleSet
from raydist.errors import ConfigError
from raydist.evaluation.measures import Evaluation
from raydist.evaluation.mirror import Mirror
from raydist.log import warn
from raydist.losses.nested import nested
from raydist.losses.objective import Objective
from raydist.losses.sparsity import counted_terms
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.encode import joined
from raydist.models.spec import BiEncoderSettings, ModelSettings
from raydist.models.texts.tokens import Role
from raydist.protocols import Listener
from raydist.records import Sample
from raydist.training.checkpoint import (
    CHECKPOINTS,
    CheckedSave,
    Checkpoints,
    Save,
    read_state,
    save_model,
)
from raydist.training.collate import Batch, collate_pairs, collate_texts
from raydist.training.engine import Engine, TorchEngine
from raydist.training.memory import memory_note
from raydist.training.nodes import RunFolder
from raydist.training.plan import Job, SetPlan
from raydist.training.precision import allow_tf32, decided
from raydist.training.skeleton import from_bytes, to_bytes
from raydist.training.source import BatchSource, Sampler, TeacherSampler, TrainingSet
from raydist.training.uploads import AreaCheckpoints
from raydist.training.validation.build import RaySubmit, evaluate_checkpoint, make_listeners
from raydist.training.validation.listener import Listeners
from raydist.training.validation.retrieval import Ranks
from raydist.training.worker import Place

LISTENERS = "listeners"

Model = BiEncoder | CrossEncoderModel


def _always(step: int) -> bool:
    return True


def _nowhere(step: int, values: Mapping[str, float]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Trainer:
    """What one rank trains with.

    Attributes:
        engine: weights and optimizer.
        objective: the loss.
        source: this rank's batches.
        checkpoints: keeps states, and may hold one to resume from.
        chunk_size: rows that are encoded at a time (gradient caching); 0 encodes all at once.
        listener: sees the whole model, wherever its parts are.
        due: the steps after which the listener may have something to do.
        beside: the listener evaluates elsewhere; it takes the model to save it, on rank 0.
        log: takes (step, values); called by rank 0 only.
        save: writes the final model.
    """

    engine: Engine
    objective: Objective
    source: BatchSource
    checkpoints: Checkpoints | AreaCheckpoints
    chunk_size: int = 0
    listener: Listener | None = None
    due: Callable[[int], bool] = _always
    beside: bool = False
    log: Callable[[int, Mapping[str, float]], None] = _nowhere
    save: Save = save_model


def build_trainer(job: Job, place: Place) -> Trainer:
    """Loads the model and opens the data of a job; warns where a step may not fit the memory."""
    job = replace(job, model=decided(job.model, place.device))
    allow_tf32(job.model, place.device)
    model = _load(job, place)
    engine = _engine(job, model, place)
    checkpoints = _checkpoints(job, place)
    latest = checkpoints.latest()
    place.barrier()
    reached = read_state(latest)["step"] if latest else 0
    mirror = Mirror(job.folder, resume_step=reached) if place.rank == 0 else None
    datasets = tuple(_training_set(job, plan, model) for plan in job.sets)
    source = BatchSource(
        job.order,
        datasets,
        place.rank,
        place.world_size,
        job.accumulation,
        pinned=place.device.type == "cuda",
    )
    if place.rank == 0 and reached < job.plan.steps:
        cached = job.chunk_size or job.model.gradient_checkpointing
        if not cached and (note := memory_note(model, source(reached))):
            warn(note)
    save = CheckedSave(_probe(datasets[0]), partial(_reload, job), place.rank == 0)
    listeners = _listeners(job, place, mirror, save)
    return Trainer(
        engine,
        _objective(job, model),
        source,
        checkpoints,
        chunk_size=job.chunk_size,
        listener=listeners,
        due=_always if listeners is None else listeners.due,
        beside=listeners is not None and listeners.asynchronous,
        log=_nowhere if mirror is None else mirror.step,
        save=save,
    )


def _checkpoints(job: Job, place: Place) -> Checkpoints | AreaCheckpoints:
    ranks: dict[str, Any] = {
        "rank": place.rank,
        "barrier": place.barrier,
        "broadcast": place.broadcast,
    }
    if job.area is None:
        return Checkpoints(job.folder / CHECKPOINTS, keep=job.keep, **ranks)
    run = RunFolder(job.area, job.folder)
    if place.rank == 0 and not run.is_drivers:
        run.fetch_record()
    return AreaCheckpoints(run, keep=job.keep, world_size=place.world_size, **ranks)


def _load(job: Job, place: Place) -> Model:
    """Returns the model; under ZeRO 3 rank 0 has its weights, on the CPU, and others its form.

    Classes that a folder brings are known to those who read it alone: each rank loads such a model.
    """
    whole = job.deepspeed.zero < 3 or place.world_size == 1 or job.model.trust_remote_code
    if whole:
        return _open(job, place.device)
    if place.rank:
        return from_bytes(place.broadcast(None))  # type: ignore[no-any-return]
    model = _open(job, torch.device("cpu"))
    place.broadcast(to_bytes(model))
    return model


def _open(job: Job, device: torch.device) -> Model:
    if isinstance(job.model, BiEncoderSettings):
        return BiEncoder.load(job.model, fresh_head=True, seed=job.seed, device=device)
    return CrossEncoderModel.load(job.model, fresh_head=True, seed=job.seed, device=device)


def _reload(job: Job, folder: Path, device: torch.device) -> Model:
    trained = job.model
    cls = BiEncoder if isinstance(trained, BiEncoderSettings) else CrossEncoderModel
    return cls.load(folder, device=device, **_beside(trained))


def _beside(trained: ModelSettings) -> dict[str, Any]:
    """Returns how a model computes while it is trained, which its folder need not keep."""
    names = ("dtype", "autocast", "attention", "trust_remote_code")
    return {name: getattr(trained, name) for name in names}


def _engine(job: Job, model: torch.nn.Module, place: Place) -> Engine:
    if job.deepspeed.zero == 0:
        return TorchEngine(model, job.optim)
    from raydist.training.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(model, job.optim, job.deepspeed, device=place.device)


def _objective(job: Job, model: Model) -> Objective:
    """Returns the job's objective, on nested prefixes of the vectors if the model asks for them.

    Of weights of terms their number is measured, too.

    Raises:
        ConfigError: terms are about weights of terms, and the model has vectors.
    """
    sparse = isinstance(model, BiEncoder) and model.contract.kind == "sparse"
    if sparse:
        return Objective((*job.objective.parts, counted_terms()))
    if any(part.sparse for part in job.objective.parts):
        raise ConfigError("loss.flops: is for sparse models; set model.kind=sparse")
    if not isinstance(model, BiEncoder) or not model.contract.dimensions:
        return job.objective
    return nested(
        job.objective,
        model.contract.dimensions,
        width=model.whole_dimension,
        normalize=model.contract.normalize,
    )


def _training_set(job: Job, plan: SetPlan, model: Model) -> TrainingSet:
    samples = SampleSet(plan.folder, prompt=plan.prompt, lazy=True)
    sampler: Sampler = plan.sampler
    if plan.teacher:
        assert job.to_targets is not None
        sampler = TeacherSampler(plan.sampler, job.to_targets, job.repair_positive)

    def collate(drawn: Sequence[Sample], total: int) -> Batch:
        if isinstance(model, CrossEncoderModel):
            return collate_pairs(drawn, model, teacher=plan.teacher, global_samples=total)
        return collate_texts(
            drawn,
            model,
            teacher=plan.teacher,
            answers=plan.answers,
            answer_teacher=plan.answer_teacher,
            no_in_batch=plan.no_in_batch,
            symmetric=plan.symmetric,
            global_samples=total,
        )

    def drawn(rows: np.ndarray) -> np.ndarray:
        return plan.sampler.drawn(samples.sizes_n2[rows], samples.facts.labels)

    return TrainingSet(plan.name, samples, sampler, collate, samples.fill, drawn)


def _listeners(job: Job, place: Place, mirror: Mirror | None, save: Save) -> Listeners | None:
    if not job.validation:
        return None
    beside = RaySubmit(evaluate_checkpoint, _beside(job.model))
    return make_listeners(
        job.validation,
        folder=job.folder / LISTENERS,
        steps=job.plan.steps,
        ranks=Ranks(place.rank, place.world_size, place.gather, place.broadcast, place.barrier),
        mirror=mirror,
        save=save,
        submit=_submit_nothing if place.rank else beside,
        hooks=job.hooks,
    )


class _Nothing:
    """What other ranks hold of an evaluation beside training: they get rank 0's result."""

    def result(self, timeout_s: float) -> Evaluation | None:
        return None


def _submit_nothing(spec: object, folder: Path) -> _Nothing:
    return _Nothing()


def _probe(dataset: TrainingSet) -> Callable[[Any], torch.Tensor]:
    """Returns a function that gives a model's output for a few of the training texts."""
    samples = [dataset.rows[row] for row in range(min(4, len(dataset.rows)))]
    samples = dataset.fill([replace(s, documents=s.documents[:1]) for s in samples])
    queries = [sample.query for sample in samples]
    documents = [sample.documents[0] for sample in samples]

    def output(model: Model) -> torch.Tensor:
        if isinstance(model, CrossEncoderModel):
            pairs = model.pad(model.tokenize(queries, documents))
            scores: torch.Tensor = model({k: v.to(model.device) for k, v in pairs.items()})
            return scores
        vectors = []
        roles: tuple[tuple[list[str], Role], ...] = ((queries, "query"), (documents, "document"))
        for texts, role in roles:
            inputs = model.pad(model.tokenize(texts, role))
            vectors.append(model({k: v.to(model.device) for k, v in inputs.items()}, role))
        return joined(vectors)

    return output
