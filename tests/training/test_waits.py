"""A step asks a device for no number: on torch's `meta` device there is none to be had.

Tensors there have shapes and no values, so `.item()`, `.tolist()`, `.cpu()`, `bool()`, `nonzero()`
and all else that would wait for an accelerator are errors.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raydist.losses.objective import Objective, make_objective
from raydist.losses.spec import (
    AdrMse,
    BiIR,
    Distillation,
    InfoNCE,
    LambdaLoss,
    ListNet,
    ListwiseSoftmaxCE,
    MarginMsePairs,
    RankNet,
)
from raydist.training import run
from raydist.training.checkpoint import Checkpoints
from raydist.training.collate import collate_pairs, collate_texts
from raydist.training.engine import TorchEngine
from raydist.training.plan import Plan, Schedule
from raydist.training.samplers import Order, Stream
from raydist.training.source import BatchSource
from raydist.training.spec import Optim
from raydist.training.step import start_step
from raydist.training.trainer import Trainer
from tests.training import small, test_loop, tiny

META = torch.device("meta")


class MetaEngine:
    """Forward and backward of a model without values, counting the latter."""

    agrees_on_chunks = False
    rank, world_size = 0, 1

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.device = module.to(META), META
        self.passes: list[bool] = []

    def __call__(self, *args: Any) -> Any:
        return self.module(*args)

    def one_reduction(self, backwards: int) -> Any:
        return nullcontext()

    def backward(self, share: torch.Tensor, *, last: bool) -> None:
        self.passes.append(last)
        share.backward()

    def set_lr(self, lr: float) -> None:
        pass

    def step(self) -> torch.Tensor:
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = TorchEngine(tiny.TinyEncoder(torch.float32), Optim(clip=0.1))._clip_unread(gradients)
        self.module.zero_grad()
        return norm

    def save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)


def start(engine: MetaEngine, batches: Any, goal: Objective, chunk_size: int) -> None:
    engine.passes.clear()
    terms = start_step(engine, batches, goal, chunk_size=chunk_size)  # type: ignore[arg-type]
    assert terms.values.device == META
    assert engine.passes[-1] and not any(engine.passes[:-1])  # the last one, and no other
    assert any(p.grad is not None for p in engine.module.parameters())


def test_numbers_of_this_device_cannot_be_read() -> None:
    for read in (torch.Tensor.item, torch.Tensor.tolist, bool, torch.Tensor.cpu, torch.nonzero):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(torch.ones(1, device=META))  # type: ignore[operator]


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())  # not for meta


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.checkpoint(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("chunk_size", [0, 4])
@pytest.mark.parametrize("attention", ["sdpa", "varlen"])
def test_no_step_of_a_bi_encoder_waits(
    folder: Path, chunk_size: int, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small.encoder(folder, attention=attention, pooling="cls")
    if attention == "varlen":
        kernel = pytest.importorskip("torch.nn.attention.varlen")
        monkeypatch.setattr(kernel, "varlen_attn", lambda q, k, v, *args, **options: q + k + v)
        model.to(torch.bfloat16)
    samples = [replace(s, targets=s.scores) for s in small.samples(9, scores=True)]
    batch = collate_texts(samples, model, teacher=True)
    goal = make_objective(InfoNCE(scope="cross_device"), Distillation())
    engine = MetaEngine(model.train())
    start(engine, batch, goal, chunk_size)
    start(engine, [batch, batch], goal, chunk_size)


@pytest.mark.parametrize("kind", ["kl_div", "m3_kd", "list_mle", "margin_mse", "pairwise_kl"])
def test_no_loss_on_vectors_waits(kind: Any) -> None:
    engine = MetaEngine(tiny.TinyEncoder(torch.float32))
    whole = tiny.data()
    for scope in ("no_in_batch", "in_batch", "cross_device"):
        loss = BiIR(scope=scope, training_type="retrieval_answer_passage")  # type: ignore[arg-type]
        goal = make_objective(loss, Distillation(kind=kind))
        start(engine, tiny.batch(whole, range(9)), goal, 4)


@pytest.mark.parametrize("chunk_size", [0, 4])
@pytest.mark.parametrize(
    "loss",
    [
        RankNet(per_query=True),
        AdrMse(),
        ListNet(),
        ListwiseSoftmaxCE(gains=True),
        LambdaLoss(),
        LambdaLoss(k=2),
        MarginMsePairs(),
    ],
    ids=lambda loss: f"{loss.kind}-{getattr(loss, 'k', '')}",
)
def test_no_step_of_a_reranker_waits(folder: Path, loss: Any, chunk_size: int) -> None:
    model = small.reranker(folder, fresh_head=True)
    pool = small.samples(6)
    grades = [tuple(float(j == 1) for j in range(1 + i % 4 + 1)) for i in range(6)]
    ragged = [replace(s, documents=s.documents[: len(g)], labels=g) for s, g in zip(pool, grades)]
    engine = MetaEngine(model.train())
    start(engine, collate_pairs(ragged, model), make_objective(loss), chunk_size)


def test_a_run_reads_numbers_where_a_line_is_logged_and_nowhere_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def read(plan: Any, trainer: Any, unread: list[Any]) -> tuple[float, float, Any]:
        assert all(each.norm.device == META for each in unread)
        reads.append([each.index for each in unread])
        unread.clear()
        return 1.0, 1.0, {}

    monkeypatch.setattr(run, "_read", read)
    engine = MetaEngine(small.encoder(folder))
    data = test_loop.dataset(engine.module, small.samples(scores=True))  # type: ignore[arg-type]
    source = BatchSource(Order((Stream(24, 6),)), (data,), accumulation=2)
    goal = make_objective(InfoNCE(), Distillation())
    trainer = Trainer(engine, goal, source, Checkpoints(tmp_path))  # type: ignore[arg-type]
    outcome = run.train(Plan(6, Schedule(1e-3, 6), log_every=4, progress=False), trainer)
    assert reads == [[0, 1, 2, 3], [4, 5]] and outcome.step == 6
