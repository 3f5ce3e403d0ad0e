"""The one training loop: bi-encoders, Reinforced-IR and cross-encoders all run through it.

It knows steps, learning rates, logs, listeners and checkpoints. What a step computes comes as a
function of its batches; where weights live (one process, several, DeepSpeed) is the engine's.

A step's random state (dropout) is a function of (seed, step, rank), and its batches and learning
rate are functions of the step: a resumed run needs the weights, the optimizer and two integers.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from raydist.errors import JobError
from raydist.log import Progress, say
from raydist.protocols import Listener
from raydist.training.checkpoint import CheckpointStore, read_state
from raydist.training.collate import Batch
from raydist.training.engine import Engine
from raydist.training.memory import memory_for
from raydist.training.progress import note
from raydist.training.samplers import key
from raydist.training.schedule import Schedule
from raydist.training.source import BatchSource, ahead

Terms = Mapping[str, tuple[float, float]]
"""Loss terms by name as (sum, count) over all ranks and accumulation parts."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the loop does, besides computing.

    Attributes:
        steps: optimizer steps of the run.
        schedule: learning rates.
        seed: of dropout.
        log_every: steps between logged lines.
        checkpoint_every: steps between checkpoints; 0 keeps only the last one.
        prefetch: steps whose batches are prepared ahead.
        progress: rank 0 shows its progress.
        folder: where a batch with a non-finite loss is saved.
    """

    steps: int
    schedule: Schedule
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 0
    prefetch: int = 2
    progress: bool = True
    folder: Path | None = None


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: optimizer steps done.
        stopped: whether listeners stopped it early.
        loss: the last logged loss, NaN if none was logged.
        resumed_at: the step of the checkpoint it went on from, 0 for a fresh start.
        seconds: wall time of this process's part.
        samples: samples of all ranks in this process's part.
        padding_waste: share of padding among the tokens that rank 0 computed.
    """

    step: int = 0
    stopped: bool = False
    loss: float = math.nan
    resumed_at: int = 0
    seconds: float = 0.0
    samples: int = 0
    padding_waste: float = 0.0


@dataclass(slots=True)
class _Window:
    """What passed since it was begun."""

    started: float = field(default_factory=time.perf_counter)
    samples: int = 0
    tokens: int = 0
    cells: int = 0

    def add(self, samples: int, tokens: int, cells: int) -> None:
        self.samples += samples
        self.tokens += tokens
        self.cells += cells

    @property
    def padding_waste(self) -> float:
        return 1.0 - self.tokens / self.cells if self.cells else 0.0


def run(
    engine: Engine,
    step: Callable[[list[Batch]], Terms],
    total: Callable[[Terms], float],
    cells: Callable[[Batch], int],
    source: BatchSource,
    plan: Plan,
    *,
    log: Callable[[int, Mapping[str, float]], None],
    checkpoints: CheckpointStore,
    listener: Listener | None = None,
    due: Callable[[int], bool] = lambda step: True,
    agree: Callable[[bool], bool] = bool,
) -> Outcome:
    """Trains until `plan.steps` or until the listeners want to stop.

    Args:
        engine: weights and optimizer.
        step: forward and backward of a step's batches; returns the reduced terms.
        total: the objective's value of reduced terms.
        cells: tokens, padding included, that the step computes of a batch.
        source: this rank's batches.
        plan: how long, how fast, what to write.
        log: takes (step, values); called by rank 0 only.
        checkpoints: keeps checkpoints, and may hold one to go on from.
        listener: called after step 0 (the baseline) and after the steps that are due; it sees the
            whole model, wherever its parts are.
        due: at which steps the listener may have something to do.
        agree: turns rank 0's decision into every rank's.

    Raises:
        JobError: the loss or the gradient is not finite (the batch is saved), or a step or
            a validation does not fit the device's memory.
    """
    outcome = _restore(engine, checkpoints, listener)
    if outcome.stopped:
        return outcome
    if outcome.step == 0 and listener is not None and due(0):
        _listen(listener, engine, 0, agree)
    engine.module.train()
    began, window, whole = time.perf_counter(), _Window(), _Window()
    saved = outcome.step
    first = engine.rank == 0
    with (
        _progress(plan, outcome.step, first) as progress,
        ahead(source, outcome.step, plan.steps, plan.prefetch) as upcoming,
    ):
        for batches in upcoming:
            index = outcome.step
            torch.manual_seed(key(plan.seed, index, engine.rank, 3) >> 1)
            lr = plan.schedule.at(index)
            engine.set_lr(lr)
            seen = (
                sum(batch.global_samples for batch in batches),
                sum(batch.tokens for batch in batches),
                sum(cells(batch) for batch in batches),
            )
            with memory_for(f"step {index + 1}: {seen[2]:,} tokens, gradients", engine.device):
                terms = step(batches)
                loss = total(terms)
                if not math.isfinite(loss):
                    _save_bad(source, plan, index, engine.rank, f"loss {loss}", terms)
                norm = engine.step()
            if not math.isfinite(norm):
                _save_bad(source, plan, index, engine.rank, f"gradient norm {norm}", terms)
            outcome.step = done = index + 1
            window.add(*seen)
            whole.add(*seen)
            if done % plan.log_every == 0 or done == plan.steps:
                outcome.loss = loss
                if first:
                    log(done, _line(done, source, loss, terms, lr, norm, window))
                window = _Window()
            if progress is not None:
                rate = whole.samples / max(time.perf_counter() - began, 1e-9)
                progress.advance(1, note=note(loss, lr, rate, whole.padding_waste))
            paused = time.perf_counter()
            if listener is not None and due(done) and _listen(listener, engine, done, agree):
                outcome.stopped = done < plan.steps
                break
            if plan.checkpoint_every and done % plan.checkpoint_every == 0:
                _checkpoint(engine, checkpoints, source, listener, outcome)
                saved = done
            window.started += time.perf_counter() - paused  # rates are those of training alone
    outcome.seconds = time.perf_counter() - began
    outcome.samples, outcome.padding_waste = whole.samples, whole.padding_waste
    if saved != outcome.step:
        _checkpoint(engine, checkpoints, source, listener, outcome)
    return outcome


def _restore(engine: Engine, checkpoints: CheckpointStore, listener: Listener | None) -> Outcome:
    """Loads the newest checkpoint, if there is one, and returns where the run stands."""
    folder = checkpoints.latest()
    if folder is None:
        return Outcome()
    state = read_state(folder)
    engine.load(folder)
    if listener is not None and state["listeners"] is not None:
        listener.load_state_dict(state["listeners"])
    if engine.rank == 0:
        say(f"resume at step {state['step']:,}")
    step = int(state["step"])
    return Outcome(step=step, resumed_at=step, stopped=bool(state["stopped"]))


def _checkpoint(
    engine: Engine,
    checkpoints: CheckpointStore,
    source: BatchSource,
    listener: Listener | None,
    outcome: Outcome,
) -> None:
    done = outcome.step
    epoch, within = source.order.locate(done)
    state = {
        "step": done,
        "stopped": outcome.stopped,
        "sampler": {"epoch": epoch, "step": within},
        "world_size": engine.world_size,
        "listeners": None if listener is None else listener.state_dict(),
    }
    checkpoints.save(done, engine.save, state)


def _listen(listener: Listener, engine: Engine, done: int, agree: Callable[[bool], bool]) -> bool:
    """Lets the listener see the model; returns whether training is to stop."""
    model = engine.module
    training = model.training
    with memory_for(f"validation after step {done}", engine.device), engine.whole_parameters():
        wants = listener.after_step(done, model)
    model.train(training)
    return agree(wants)


def _line(
    done: int,
    source: BatchSource,
    loss: float,
    terms: Terms,
    lr: float,
    norm: float,
    window: _Window,
) -> dict[str, float]:
    seconds = max(time.perf_counter() - window.started, 1e-9)
    line: dict[str, float] = {"loss": loss}
    line |= {f"loss/{name}": value / count for name, (value, count) in terms.items() if count}
    line |= {"lr": lr, "grad_norm": norm, "samples_per_s": window.samples / seconds}
    line["tokens_per_s"] = window.tokens * source.world_size / seconds
    line["epoch"] = done / source.order.steps_per_epoch
    line["padding_waste"] = window.padding_waste
    if torch.cuda.is_available():
        line["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return line


class _Silent:
    """Stands in for the progress of ranks that do not show any."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


def _progress(plan: Plan, done: int, first: bool) -> Progress | _Silent:
    if first and plan.progress:
        return Progress("train", plan.steps, "steps", done=done)
    return _Silent()


def _save_bad(
    source: BatchSource, plan: Plan, index: int, rank: int, what: str, terms: Terms
) -> None:
    """Saves this rank's samples of a step as jsonl and stops."""
    shown = ", ".join(
        f"{name} {value / count:.4g}" for name, (value, count) in terms.items() if count
    )
    where = ""
    if plan.folder is not None:
        path = plan.folder / f"step-{index + 1:08}-rank-{rank}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8") as out:
            for drawn in source.drawn(index):
                for row, sample in zip(drawn.rows, drawn.samples):
                    record = {"dataset": drawn.part.name, "row": row, **asdict(sample)}
                    out.write(json.dumps(record, ensure_ascii=False) + "\n")
        where = f"; its samples are in {path}"
    raise JobError(
        f"step {index + 1}: {what} ({shown}){where}. Lower optim.lr, raise loss.temperature, "
        "clip gradients (optim.clip) or look at those samples"
    )
