"""Training in a few lines: by hand, and as a job that a worker runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from raydist.losses.objective import make_objective
from raydist.losses.spec import InfoNCE
from raydist.models.biencoder import BiEncoder
from raydist.records import Sample
from raydist.training.checkpoint import Checkpoints
from raydist.training.collate import Batch, collate_texts
from raydist.training.engine import TorchEngine
from raydist.training.plan import Plan, Schedule
from raydist.training.run import run, train
from raydist.training.samplers import GroupSampler, Order, Stream
from raydist.training.source import BatchSource, TrainingSet
from raydist.training.spec import Optim
from raydist.training.trainer import Trainer
from raydist.training.worker import Place
from tests.training.jobs import tiny_job
from tests.training.small import checkpoint, samples


def test_a_bi_encoder_is_trained_by_the_loop(tmp_path: Path) -> None:
    model = BiEncoder.load(checkpoint(tmp_path / "model"), pooling="mean", device="cpu")

    def collate(drawn: Sequence[Sample], total: int) -> Batch:
        return collate_texts(drawn, model, global_samples=total)

    dataset = TrainingSet("small", samples(24), GroupSampler(size=4), collate)
    source = BatchSource(Order((Stream(rows=24, batch_size=8),)), (dataset,))
    losses: list[float] = []
    trainer = Trainer(
        TorchEngine(model, Optim(lr=1e-3)),
        make_objective(InfoNCE(temperature=1.0)),
        source,
        Checkpoints(tmp_path / "checkpoints"),
        log=lambda step, values: losses.append(values["loss"]),
    )
    outcome = train(Plan(20, Schedule(1e-3, steps=20), log_every=1, progress=False), trainer)
    assert outcome.step == 20 and losses[-1] < losses[0]


def test_a_job_is_all_that_a_worker_needs(tmp_path: Path) -> None:
    alone = Place(rank=0, world_size=1, device=torch.device("cpu"))
    outcome = run(tiny_job(tmp_path, steps=2), alone)
    assert outcome["step"] == 2
    assert BiEncoder.load(tmp_path, device="cpu").encode_queries(["river stone"]).shape == (1, 32)
