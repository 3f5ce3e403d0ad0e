"""What a training run says before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raydist import log
from raydist.config.training import TrainingConfig

if TYPE_CHECKING:
    from raydist.training.job import Job
    from raydist.training.sets import SetPlan


def say_plan(config: TrainingConfig, job: Job) -> None:
    """Says what is trained on, and for how long."""
    order = job.order
    rows = []
    for plan in job.sets:
        stream = plan.stream
        rows.append([plan.name, stream.rows, stream.batch_size, stream.batches, _drawn(plan)])
    log.table("training data", ["data set", "samples", "batch", "steps/epoch", "drawn"], rows)
    epochs = job.plan.steps / order.steps_per_epoch
    where = f"{config.workers} Ray workers" if config.workers else "this process"
    stage = f", ZeRO {job.zero}" if job.zero else ""
    log.say(f"{job.kind}: {job.plan.steps:,} steps, {epochs:.2f} epochs, on {where}{stage}")


def _drawn(plan: SetPlan) -> str:
    words = [str(plan.sampler).replace("Sampler", "")]
    words += ["teacher"] if plan.targets else []
    words += ["no_in_batch"] if plan.no_in_batch else []
    words += ["symmetric"] if plan.symmetric else []
    return ", ".join(words)


def say_result(config: TrainingConfig, job: Job, result: Mapping[str, Any]) -> None:
    """Says how it went."""
    rate = result["samples"] / result["seconds"] if result["seconds"] else 0.0
    loss = result["loss"]
    rows: list[list[object]] = [
        ["steps", result["step"]],
        ["last loss", "-" if loss is None else float(loss)],
        ["samples/s", rate],
        ["padding", f"{result['padding_waste']:.1%}"],
    ]
    if result["stopped"]:
        rows.append(["stopped early by", ", ".join(config.validation)])
    log.table(f"trained {config.out}", ["what", "value"], rows)
    log.say(f"model: {config.out}/checkpoint-final (model={config.out} takes it)")
