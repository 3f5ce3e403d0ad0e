"""The one training loop: bi-encoders, Reinforced-IR and cross-encoders all run through it.

`train` is the loop: batches, forward and backward, step, log, validate, checkpoint. `run` surrounds
it in every worker: build, train, save the final model.

A step's random state (dropout) is a function of (seed, step, rank), and its batches and learning
rate are functions of the step: a resumed run needs the weights, the optimizer and the step.

On an accelerator losses and norms stay there until a line is logged, or until something depends on
the weights: reading a number waits for all steps that were started. One that is not finite changes
no weight there, and is found when it is read.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from raydist.errors import JobError
from raydist.evaluation.mirror import Mirror
from raydist.evaluation.system import SystemMetrics
from raydist.log import Progress, say
from raydist.training.checkpoint import read_state, save_final
from raydist.training.collate import Batch
from raydist.training.memory import memory_for
from raydist.training.nodes import on_this_node
from raydist.training.plan import Job, Plan
from raydist.training.progress import note
from raydist.training.samplers import key
from raydist.training.source import ahead
from raydist.training.step import StepTerms, UnreadTerms, cells_of, packs, start_step
from raydist.training.trainer import Trainer, build_trainer
from raydist.training.worker import Place


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: optimizer steps done.
        stopped: whether listeners stopped it early.
        loss: the last logged loss, None if none was logged.
        resumed_at: the step of the checkpoint it resumed from, 0 for a fresh start.
        seconds: wall time of this process's part.
        samples: samples of all ranks in this process's part.
        padding_waste: share of padding among the tokens that rank 0 computed.
    """

    step: int = 0
    stopped: bool = False
    loss: float | None = None
    resumed_at: int = 0
    seconds: float = 0.0
    samples: int = 0
    padding_waste: float = 0.0


def run(job: Job, place: Place) -> dict[str, Any]:
    """Trains, saves the final model and returns the outcome (the same on every rank)."""
    job = on_this_node(job)
    trainer = build_trainer(job, place)
    every = job.system_every if place.rank == 0 else 0
    with SystemMetrics(Mirror(job.folder, repair=False), every):
        outcome = train(job.plan, trainer)
    save_final(
        trainer.engine,
        job.folder,
        save=trainer.save,
        settings={**job.settings, "step": outcome.step},
        barrier=place.barrier,
    )
    return asdict(outcome)


def train(plan: Plan, trainer: Trainer) -> Outcome:
    """Trains until `plan.steps`, or until the listeners want to stop.

    The listener is called after step 0 (the baseline) and after the steps that are due.

    Raises:
        JobError: the loss or the gradient is not finite (the batch is saved), or a step or
            a validation does not fit the device's memory.
    """
    engine, objective, source = trainer.engine, trainer.objective, trainer.source
    outcome = _resume(trainer)
    if outcome.stopped:
        return outcome
    if outcome.step == 0:
        _listen(trainer, 0)
    engine.module.train()
    first, saved = engine.rank == 0, outcome.step
    overall, recent = _Throughput(), _Throughput()
    bar = Progress("train", plan.steps, "step", done=saved) if first and plan.progress else None
    unread: list[_Unread] = []
    packed, loss, waits = packs(engine.module), math.nan, _waits(engine.device)
    with (
        bar or nullcontext() as progress,
        ahead(source, outcome.step, plan.steps, plan.prefetch, plan.threads) as upcoming,
    ):
        for batches in upcoming:
            index, done = outcome.step, outcome.step + 1
            torch.manual_seed(key(plan.seed, index, engine.rank, 3) >> 1)
            lr = plan.schedule.at(index)
            engine.set_lr(lr)
            cells = sum(
                cells_of(b, engine.device, chunk_size=trainer.chunk_size, packed=packed)
                for b in batches
            )
            with memory_for(f"step {done}: {cells:,} tokens, gradients", engine.device):
                present = objective.at(index, plan.steps)
                terms = start_step(engine, batches, present, chunk_size=trainer.chunk_size)
                logged = done % plan.log_every == 0 or done == plan.steps
                kept = bool(plan.checkpoint_every) and done % plan.checkpoint_every == 0
                heard = trainer.listener is not None and trainer.due(done)
                if waits:
                    unread.append(_Unread(index, terms, engine.step()))
                    if logged or kept or heard:
                        loss, norm, values = _read(plan, trainer, unread)
                else:  # a loss that is not finite changes no weight
                    loss, values = _loss(plan, trainer, index, terms, terms.values.tolist())
                    norm = _norm(plan, trainer, index, float(engine.step()), values)
            outcome.step = done
            overall.add(batches, cells)
            recent.add(batches, cells)
            if logged:
                outcome.loss = loss
                if first:
                    trainer.log(done, _line(trainer, done, loss, values, lr, norm, recent))
                recent = _Throughput()
            if progress is not None:
                rate = overall.samples / overall.seconds
                known = not math.isnan(loss)  # nothing is read before the first line is logged
                waste = overall.padding_waste
                progress.advance(1, note=note(loss, lr, rate, waste) if known else "")
            paused = time.perf_counter()
            if _listen(trainer, done):
                outcome.stopped = done < plan.steps
                break
            if kept:
                _checkpoint(trainer, outcome)
                saved = done
            recent.started += time.perf_counter() - paused  # rates are those of training alone
    outcome.seconds = overall.seconds
    outcome.samples, outcome.padding_waste = overall.samples, overall.padding_waste
    if saved != outcome.step:
        _checkpoint(trainer, outcome)
    trainer.checkpoints.finish()
    return outcome


def _waits(device: torch.device) -> bool:
    """Returns whether reading a number waits for a device."""
    return device.type != "cpu"


@dataclass(slots=True)
class _Unread:
    """A step whose loss and gradient norm were not read yet."""

    index: int
    terms: UnreadTerms
    norm: float | torch.Tensor


def _read(plan: Plan, trainer: Trainer, unread: list[_Unread]) -> tuple[float, float, StepTerms]:
    """Returns the last step's loss, norm and terms; waits for the device, once."""
    rows = []
    for each in unread:
        values = each.terms.values
        norm = torch.as_tensor(each.norm, dtype=values.dtype, device=values.device)
        rows.append(torch.cat([values, norm.reshape(1)]))
    loss, last, terms = math.nan, math.nan, StepTerms()
    for each, (*numbers, last) in zip(unread, torch.stack(rows).tolist(), strict=True):
        loss, terms = _loss(plan, trainer, each.index, each.terms, numbers)
        _norm(plan, trainer, each.index, last, terms)
    unread.clear()
    return loss, last, terms


def _loss(
    plan: Plan, trainer: Trainer, index: int, unread: UnreadTerms, values: Sequence[float]
) -> tuple[float, StepTerms]:
    """Returns a step's loss and terms; JobError if the loss is not finite."""
    terms = unread.of(values)
    loss = trainer.objective.at(index, plan.steps).total(terms)
    if not math.isfinite(loss):
        _give_up(plan, trainer, index, f"loss {loss}", terms)
    return loss, terms


def _norm(plan: Plan, trainer: Trainer, index: int, norm: float, terms: StepTerms) -> float:
    """Returns a step's gradient norm; JobError if it is not finite."""
    if not math.isfinite(norm):
        _give_up(plan, trainer, index, f"gradient norm {norm}", terms)
    return norm


@dataclass(slots=True)
class _Throughput:
    """Samples and tokens per second since `started`."""

    started: float = field(default_factory=time.perf_counter)
    samples: int = 0
    tokens: int = 0
    cells: int = 0

    def add(self, batches: Sequence[Batch], cells: int) -> None:
        self.samples += sum(batch.global_samples for batch in batches)
        self.tokens += sum(batch.tokens for batch in batches)
        self.cells += cells

    @property
    def seconds(self) -> float:
        return max(time.perf_counter() - self.started, 1e-9)

    @property
    def padding_waste(self) -> float:
        return 1.0 - self.tokens / self.cells if self.cells else 0.0


def _resume(trainer: Trainer) -> Outcome:
    """Loads the newest checkpoint, if there is one."""
    folder = trainer.checkpoints.latest()
    if folder is None:
        return Outcome()
    state = read_state(folder)
    trainer.engine.load(folder)
    if trainer.listener is not None and state["listeners"] is not None:
        trainer.listener.load_state_dict(state["listeners"])
    if trainer.engine.rank == 0:
        say(f"resume at step {state['step']:,}")
    step = int(state["step"])
    return Outcome(step=step, resumed_at=step, stopped=bool(state["stopped"]))


def _checkpoint(trainer: Trainer, outcome: Outcome) -> None:
    done, listener = outcome.step, trainer.listener
    epoch, within = trainer.source.order.locate(done)
    state = {
        "step": done,
        "stopped": outcome.stopped,
        "sampler": {"epoch": epoch, "step": within},
        "world_size": trainer.engine.world_size,
        "listeners": None if listener is None else listener.state_dict(),
    }
    trainer.checkpoints.save(done, trainer.engine.save, state)


def _listen(trainer: Trainer, done: int) -> bool:
    """Calls the listener with the full model, if it is due; returns whether training stops."""
    listener, engine = trainer.listener, trainer.engine
    if listener is None or not trainer.due(done):
        return False
    model = engine.module
    training = model.training
    with memory_for(f"validation after step {done}", engine.device):
        if trainer.beside:
            stop = listener.after_step(done, engine.exported())
        else:
            with engine.whole_parameters():
                stop = listener.after_step(done, model)
    model.train(training)
    if engine.world_size == 1:
        return stop
    decision = torch.tensor([int(stop)], device=engine.device)
    dist.broadcast(decision, 0)  # rank 0's decision is every rank's
    return bool(decision.item())


def _line(
    trainer: Trainer,
    done: int,
    loss: float,
    terms: StepTerms,
    lr: float,
    norm: float,
    recent: _Throughput,
) -> dict[str, float]:
    source, seconds = trainer.source, recent.seconds
    line: dict[str, float] = {"loss": loss}
    measures = trainer.objective.measures
    for name, (value, count) in terms.items():
        if count:
            line[name if name in measures else f"loss/{name}"] = value / count
    line |= {"lr": lr, "grad_norm": norm, "samples_per_s": recent.samples / seconds}
    line["tokens_per_s"] = recent.tokens * source.world_size / seconds
    line["epoch"] = done / source.order.steps_per_epoch
    line["padding_waste"] = recent.padding_waste
    if torch.cuda.is_available():
        line["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return line


def _give_up(plan: Plan, trainer: Trainer, index: int, reason: str, terms: StepTerms) -> NoReturn:
    """Saves this rank's samples of a step as jsonl and stops."""
    values = ", ".join(
        f"{name} {value / count:.4g}" for name, (value, count) in terms.items() if count
    )
    where = ""
    if plan.folder is not None:
        path = plan.folder / f"step-{index + 1:08}-rank-{trainer.engine.rank}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8") as out:
            for drawn in trainer.source.drawn(index):
                for row, sample in zip(drawn.rows, drawn.samples):
                    record = {"dataset": drawn.dataset.name, "row": row, **asdict(sample)}
                    out.write(json.dumps(record, ensure_ascii=False) + "\n")
        where = f"; its samples are in {path}"
    raise JobError(
        f"step {index + 1}: {reason} ({values}){where}. Lower optim.lr, raise loss.temperature, "
        "clip gradients (optim.clip) or look at those samples"
    )
