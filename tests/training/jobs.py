"""Training jobs for tests: a tiny bi-encoder on a few samples, in any kind of process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raydist.data.samples.prepare import prepare
from raydist.losses.inputs import LossBatch
from raydist.losses.objective import Objective, make_part
from raydist.losses.parts import LossPart, LossTerms
from raydist.losses.spec import Distillation, InfoNCE
from raydist.models.spec import BiEncoderSettings, Lora
from raydist.training.plan import Job, Plan, Schedule, plan_groups
from raydist.training.spec import Optim, TrainingData
from tests.training.small import checkpoint, samples


def scores_as_targets(scores_BD: torch.Tensor, mask_BD: torch.Tensor) -> torch.Tensor:
    return scores_BD


class Deadly:
    """Terms of another part; in one training step of one rank it kills its process, once."""

    def __init__(self, inner: LossPart, marker: Path, call: int) -> None:
        self.inner, self.marker, self.call, self.calls = inner, marker, call, 0

    def __call__(self, batch: LossBatch) -> LossTerms:
        queries_Bd = getattr(batch.output, "queries_Bd", None)
        self.calls += queries_Bd is not None and queries_Bd.requires_grad  # not when only counting
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        if self.calls == self.call and rank == 1 and not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.compute(batch)


def tiny_job(
    folder: Path,
    *,
    steps: int = 6,
    deadly: Path | None = None,
    dropout: float = 0.1,
    lora: Lora | None = None,
    checkpointing: bool = False,
    **options: Any,
) -> Job:
    """A job of 24 samples with teacher scores in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    if not model.exists():
        checkpoint(model)
        with open(folder / "train.jsonl", "w", encoding="utf-8") as out:
            for sample in samples(scores=True):
                out.write(json.dumps(record(sample)) + "\n")
    facts = prepare(folder / "train.jsonl", folder / "data")
    data = TrainingData(path=(str(folder / "train.jsonl"),))
    plan = plan_groups(
        facts, folder / "data", data, batch_size=7, group=4, teacher=True, answers=False
    )
    loss = InfoNCE(temperature=0.05, scope="cross_device")
    part = make_part(loss, distill=Distillation())
    if deadly is not None:
        part = LossPart(part.weights, Deadly(part, deadly, 5))
    settings = {
        "folder": folder,
        "model": BiEncoderSettings(
            path=str(model),
            dropout=dropout,
            lora=lora,
            pooling="mean",
            normalize=True,
            gradient_checkpointing=checkpointing,
        ),
        "sets": (plan,),
        "objective": Objective((part,)),
        "plan": Plan(
            steps,
            Schedule(1e-3, 6, 0.2),
            log_every=1,
            checkpoint_every=2,
            progress=False,
            folder=folder / "nonfinite",
        ),
        "to_targets": scores_as_targets,
        "optim": Optim(lr=1e-3),
    }
    return Job(**{**settings, **options})  # type: ignore[arg-type]


def record(sample: Any) -> Mapping[str, Any]:
    """A sample as a FlagEmbedding line."""
    return {
        "query": sample.query,
        "pos": [sample.documents[0]],
        "neg": list(sample.documents[1:]),
        "pos_scores": [sample.scores[0]],
        "neg_scores": list(sample.scores[1:]),
    }


def lines(folder: Path) -> list[dict[str, float]]:
    """The logged steps, without what depends on the clock."""
    text = (folder / "metrics.jsonl").read_text()
    clock = ("time", "samples_per_s", "tokens_per_s", "gpu_memory_mb")
    return [
        {k: v for k, v in json.loads(line).items() if k not in clock} for line in text.splitlines()
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The final model's weights."""
    from safetensors.torch import load_file

    return load_file(str(folder / "checkpoint-final" / "model.safetensors"))
