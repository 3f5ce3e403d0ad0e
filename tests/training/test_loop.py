from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from raydist.errors import JobError
from raydist.losses.objective import Objective, make_objective
from raydist.losses.spec import Distillation, InfoNCE
from raydist.models.biencoder import BiEncoder
from raydist.records import Sample
from raydist.training import run
from raydist.training.checkpoint import Checkpoints
from raydist.training.collate import Batch, collate_texts
from raydist.training.engine import TorchEngine
from raydist.training.plan import Plan, Schedule
from raydist.training.samplers import GroupSampler, Order, Stream
from raydist.training.source import BatchSource, TeacherSampler, TrainingSet
from raydist.training.spec import Optim
from raydist.training.step import UnreadTerms
from raydist.training.trainer import Trainer
from tests.training.small import checkpoint, encoder, samples
from tests.training.steps import forward_backward


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


def scores_as_targets(scores_BD: torch.Tensor, mask_BD: torch.Tensor) -> torch.Tensor:
    return scores_BD


class Interrupted(Exception):
    pass


class Counter:
    """A listener that remembers the steps it saw, and stops or breaks off at one."""

    def __init__(self, stop: int = -1, break_at: int = -1) -> None:
        self.seen: list[int] = []
        self.stop, self.break_at = stop, break_at

    def after_step(self, step: int, model: Any) -> bool:
        self.seen.append(step)
        if step == self.break_at:
            raise Interrupted
        return step == self.stop

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = list(state["seen"])


def dataset(model: BiEncoder, rows: list[Sample]) -> TrainingSet:
    def collate(drawn: Sequence[Sample], total: int) -> Batch:
        return collate_texts(drawn, model, teacher=True, global_samples=total)

    return TrainingSet("small", rows, TeacherSampler(GroupSampler(3), scores_as_targets), collate)


def train(
    folder: Path,
    out: Path,
    *,
    steps: int = 8,
    every: int = 0,
    listener: Counter | None = None,
    prefetch: int = 2,
    dropout: float = 0.1,
    log_every: int = 1,
) -> tuple[run.Outcome, list[dict[str, float]], dict[str, torch.Tensor]]:
    model = encoder(folder, dropout=dropout)
    objective = make_objective(InfoNCE(), Distillation())
    rows = samples(scores=True)
    source = BatchSource(Order((Stream(len(rows), 6),), 5), (dataset(model, rows),))
    logged: list[dict[str, float]] = []
    trainer = Trainer(
        TorchEngine(model, Optim(lr=1e-3)),
        objective,
        source,
        Checkpoints(out),
        listener=listener,
        log=lambda step, values: logged.append({"step": step, **values}),
    )
    plan = Plan(
        steps,
        Schedule(1e-3, steps, 0.25),
        log_every=log_every,
        checkpoint_every=every,
        prefetch=prefetch,
        progress=False,
        folder=out / "bad",
    )
    outcome = run.train(plan, trainer)
    return outcome, logged, {k: v.clone() for k, v in model.state_dict().items()}


TIMES = ("samples_per_s", "tokens_per_s", "gpu_memory_mb")


def timeless(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    folder: Path, tmp_path: Path
) -> None:
    _, whole, weights = train(folder, tmp_path / "a", every=3)
    with pytest.raises(Interrupted):
        train(folder, tmp_path / "b", every=3, listener=Counter(break_at=5))
    outcome, rest, again = train(folder, tmp_path / "b", every=3)
    assert outcome.resumed_at == 3 and outcome.step == 8
    assert timeless(rest) == timeless(whole)[3:]
    for name, tensor in weights.items():
        assert torch.equal(tensor, again[name]), name
    assert whole[0]["loss"] > whole[-1]["loss"] > 0


def test_dropout_follows_the_step_and_not_what_ran_before(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    _, first, _ = train(folder, tmp_path / "a", steps=2)
    torch.manual_seed(2)
    torch.rand(17)
    _, second, _ = train(folder, tmp_path / "b", steps=2, prefetch=0)
    _, none, _ = train(folder, tmp_path / "c", steps=2, dropout=0.0)
    assert timeless(first) == timeless(second)
    assert first[0]["loss"] != none[0]["loss"]


def test_a_line_names_every_term_rate_and_norm(folder: Path, tmp_path: Path) -> None:
    outcome, lines, _ = train(folder, tmp_path, dropout=0.0)
    line = lines[0]
    assert {"loss", "loss/infonce", "lr", "grad_norm", "samples_per_s", "padding_waste"} <= set(
        line
    )
    terms = [v for k, v in line.items() if k.startswith("loss/")]
    assert len(terms) == 2 and sum(terms) == pytest.approx(line["loss"], rel=1e-6)
    assert [entry["lr"] for entry in lines[:3]] == [5e-4, 1e-3, 1e-3]  # a rise of two steps
    assert lines[-1]["lr"] == pytest.approx(1e-3 / 6)
    assert line["epoch"] == 0.25 and 0 < outcome.padding_waste < 1 and outcome.samples == 48


def test_accumulation_parts_hold_the_whole_batch(folder: Path, tmp_path: Path) -> None:
    """With the query's own negatives only, cutting a step into parts changes nothing."""
    norms = []
    for accumulation in (1, 2, 3):
        model = encoder(folder)
        engine = TorchEngine(model, Optim(lr=1e-3))
        objective = make_objective(InfoNCE(scope="no_in_batch"), Distillation())
        small = dataset(model, samples(scores=True))
        source = BatchSource(Order((Stream(24, 7),), 5), (small,), accumulation=accumulation)
        batches = source(0)
        assert (
            len(batches) == accumulation and sum(len(b.supervision.sizes_B) for b in batches) == 7
        )
        terms = forward_backward(engine, batches, objective)
        norms.append((objective.total(terms), engine.step()))
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    assert norms[2] == pytest.approx(norms[0], rel=1e-5)


@pytest.mark.parametrize(
    ("owner", "method", "what"),
    [
        (Objective, "forward", r"step 1: [\d,]+ tokens, gradients"),
        (torch.optim.AdamW, "step", r"step 1: [\d,]+ tokens, gradients"),  # makes its moments
        (Counter, "after_step", "validation after step 0"),
    ],
)
def test_what_does_not_fit_names_the_remedy(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    what: str,
) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(owner, method, full)
    with pytest.raises(JobError, match=what + ": no memory is left on cpu: cache=16"):
        train(folder, tmp_path, listener=Counter())


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, weights = [], []
    backward = TorchEngine.backward

    def poisoned(self: TorchEngine, share: torch.Tensor, *, last: bool) -> None:
        backward(self, share, last=last)
        steps.append(self.steps)
        if self.steps == 2:
            weights.extend([p, p.detach().clone()] for p in self.module.parameters())
            next(p for p in self.module.parameters() if p.grad is not None).grad[0] = math.nan

    monkeypatch.setattr(TorchEngine, "backward", poisoned)
    with pytest.raises(JobError, match=r"step 3: gradient norm nan .*samples are in .*jsonl"):
        train(folder, tmp_path)
    assert steps[-1] == 2
    assert weights and all(torch.equal(now, before) for now, before in weights)


def test_a_run_that_reads_late_logs_the_same_and_names_the_step_that_was_not_finite(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an accelerator: read are the steps that are logged or saved, with those before them."""
    expected = train(folder, tmp_path / "at once", every=3)
    reads: list[list[int]] = []
    read = run._read

    def noted(plan: Plan, trainer: Trainer, unread: Any) -> Any:
        reads.append([each.index for each in unread])
        return read(plan, trainer, unread)

    monkeypatch.setattr(run, "_waits", lambda device: True)
    monkeypatch.setattr(run, "_read", noted)
    late = train(folder, tmp_path / "late", every=3, log_every=4)
    assert reads == [[0, 1, 2], [3], [4, 5], [6, 7]]
    numbers = [
        {line["step"]: (line["loss"], line["grad_norm"]) for line in lines}
        for lines in (expected[1], late[1])
    ]
    assert numbers[1] == {step: numbers[0][step] for step in (4, 8)}
    assert all(torch.equal(late[2][name], value) for name, value in expected[2].items())
    of = UnreadTerms.of

    def broken(self: UnreadTerms, values: Any) -> Any:
        factor = math.nan if reads[-1][0] == 4 else 1.0
        return {name: (factor * value, n) for name, (value, n) in of(self, values).items()}

    reads.clear()
    monkeypatch.setattr(UnreadTerms, "of", broken)
    with pytest.raises(JobError, match=r"step 5: loss nan"):
        train(folder, tmp_path / "broken", log_every=4)


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_the_batch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def broken(self: Objective, terms: object) -> float:
        nonlocal calls
        calls += 1
        return math.nan if calls == 3 else 1.0

    monkeypatch.setattr(Objective, "total", broken)
    with pytest.raises(JobError, match=r"step 3: loss nan .*samples are in .*rank-0\.jsonl"):
        train(folder, tmp_path)
    saved = (tmp_path / "bad" / "step-00000003-rank-0.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in saved]
    assert len(records) == 6 and {len(r["documents"]) for r in records} == {3}
    assert all(r["dataset"] == "small" and r["query"] for r in records)


def test_listeners_see_step_zero_and_may_stop_and_a_stopped_run_stays_stopped(
    folder: Path, tmp_path: Path
) -> None:
    listener = Counter(stop=4)
    outcome, lines, _ = train(folder, tmp_path, listener=listener)
    assert outcome.stopped and outcome.step == 4 == len(lines)
    assert listener.seen == [0, 1, 2, 3, 4]
    again = Counter()
    outcome, lines, _ = train(folder, tmp_path, listener=again)
    assert outcome.stopped and outcome.step == 4 and lines == [] and again.seen == [0, 1, 2, 3, 4]


def test_a_checkpoint_is_complete_or_not_there(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path, steps=6, every=1)
    folders = sorted(f.name for f in tmp_path.iterdir() if f.is_dir())
    assert folders == ["step-00000005", "step-00000006"]
    store = Checkpoints(tmp_path)

    def fails(target: Path) -> None:
        (target / "half").write_text("x")
        raise Interrupted

    with pytest.raises(Interrupted):
        store.save(7, fails, {})
    latest = store.latest()
    assert latest is not None and latest.name == "step-00000006"
    (tmp_path / "step-00000009").mkdir()  # without its state
    latest = store.latest()
    assert latest is not None and latest.name == "step-00000006"
