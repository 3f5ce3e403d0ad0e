"""The plain engine: clipping, groups, one reduction, and a state that continues bit for bit."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from raydist.errors import ArtifactError
from raydist.losses.objective import make_objective
from raydist.losses.spec import Distillation, InfoNCE
from raydist.models.spec import Lora
from raydist.training.collate import collate_texts
from raydist.training.engine import TorchEngine, add_rows_in_place
from raydist.training.optimizer import parameter_groups
from raydist.training.samplers import share
from raydist.training.spec import Optim
from tests.training import small, tiny
from tests.training.spawn import spawn
from tests.training.steps import forward_backward

GOAL = make_objective(InfoNCE(temperature=0.5, scope="cross_device"), Distillation())


def engine(**options: float) -> TorchEngine:
    module = tiny.TinyEncoder(torch.float32, dropout=options.pop("dropout", 0.0))
    return TorchEngine(module, Optim(lr=1e-2, **options))  # type: ignore[arg-type]


def weights(engine: TorchEngine) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in engine.module.parameters()])


def train(engine: TorchEngine, steps: int, rows: range = range(9), chunk: int = 0) -> list[float]:
    norms = []
    for _ in range(steps):
        engine.set_lr(1e-2 / (1 + engine.steps))
        forward_backward(engine, tiny.batch(tiny.data(), rows), GOAL, chunk_size=chunk)
        norms.append(engine.step())
    return norms


def test_a_step_is_adamw_with_torchs_clipping() -> None:
    ours = engine(clip=0.05)
    reference = tiny.TinyEncoder(torch.float32)
    optimizer = torch.optim.AdamW(parameter_groups(reference, lr=1e-2, weight_decay=0.01))
    forward_backward(ours, tiny.batch(tiny.data(), range(9)), GOAL)
    for parameter, expected in zip(ours.module.parameters(), reference.parameters()):
        expected.grad = None if parameter.grad is None else parameter.grad.clone()
    norm = ours.step()
    expected = nn.utils.clip_grad_norm_(reference.parameters(), 0.05)
    optimizer.step()
    assert norm == pytest.approx(expected.item(), rel=1e-6) and norm > 0.05
    for parameter, expected in zip(ours.module.parameters(), reference.parameters()):
        torch.testing.assert_close(parameter, expected, rtol=1e-6, atol=1e-7)


def test_biases_and_norms_do_not_decay() -> None:
    groups = parameter_groups(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), lr=1, weight_decay=7)
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 7), (3, 0.0)]


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    plain = engine()
    before = weights(plain)
    next(plain.module.parameters()).grad = torch.full((tiny.VOCABULARY, 8), torch.nan)
    assert np.isnan(plain.step())
    assert torch.equal(weights(plain), before)


@pytest.mark.parametrize("chunk", [0, 4])
def test_a_saved_state_continues_bit_for_bit(tmp_path: Path, chunk: int) -> None:
    torch.manual_seed(5)
    undisturbed = engine(dropout=0.3)
    train(undisturbed, 3, chunk=chunk)
    undisturbed.save(tmp_path)
    drawn = (random.random(), float(np.random.rand()))
    norms = train(undisturbed, 2, chunk=chunk)
    resumed = engine(dropout=0.3)
    train(resumed, 1)
    resumed.load(tmp_path)
    assert resumed.steps == 3
    assert (random.random(), float(np.random.rand())) == drawn
    assert train(resumed, 2, chunk=chunk) == norms
    assert torch.equal(weights(resumed), weights(undisturbed))


def test_a_folder_without_this_engines_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not written by the plain engine"):
        engine().load(tmp_path)


def two_ranks(rank: int, world: int, folder: Path) -> None:
    plain = engine(clip=0.05)
    rows = tiny.blocks(9, world)[rank]
    norms = train(plain, 3, rows, chunk=2 if world == 2 else 0)
    assert plain.reductions == (3 if world > 1 else 0)
    plain.save(folder / f"state-{world}")
    if rank == 0:
        torch.save((norms, weights(plain)), folder / f"trained-{world}.pt")


def test_several_ranks_train_as_one_and_travel_once_a_step(tmp_path: Path) -> None:
    for world in (1, 2):
        spawn(two_ranks, world, tmp_path)
    (norms, alone), (norms_2, both) = (torch.load(tmp_path / f"trained-{w}.pt") for w in (1, 2))
    assert norms_2 == pytest.approx(norms, rel=1e-4)
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-5)
    assert {p.name for p in (tmp_path / "state-2").iterdir()} == {
        "engine.json",
        "engine.pt",
        "rng-00000.pt",
        "rng-00001.pt",
    }
    resumed = engine()
    resumed.load(tmp_path / "state-2")
    assert torch.equal(weights(resumed), both)


@pytest.mark.parametrize("clip", [0.0, 0.05, 100.0])
def test_gradients_that_are_clipped_unread_are_the_same(clip: float) -> None:
    """The way of accelerators, on a CPU."""
    engines = [engine(clip=clip), engine(clip=clip)]
    for each in engines:
        forward_backward(each, tiny.batch(tiny.data(), range(9)), GOAL)
    gradients = [[p.grad for p in each._trained if p.grad is not None] for each in engines]
    assert engines[0]._clip(gradients[0]) == engines[1]._clip_unread(gradients[1]).item() > 0.05
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


class Towers(nn.Module):
    """Two encoders, of which a step's last backward pass may read one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = tiny.TinyEncoder(torch.float64, seed=1)
        self.second = tiny.TinyEncoder(torch.float64, seed=2)

    def forward(self, inputs: dict[str, torch.Tensor], role: str = "query") -> torch.Tensor:
        tower = self.second if role == "document" else self.first
        vectors: torch.Tensor = tower(inputs)
        return vectors


def two_towers(rank: int, world: int, folder: Path) -> None:
    trained = TorchEngine(Towers(), Optim(lr=0.0))
    rows = tiny.blocks(9, world)[rank]
    found = []
    for chunk in (0, 2):
        # Steps that read both towers, one of them (the same twice) and both again.
        for symmetric in (False, True, False):
            part = tiny.batch(tiny.data(), rows)
            part = replace(part, symmetric=symmetric)
            forward_backward(trained, part, GOAL, chunk_size=chunk)
            unused = all(p.grad is None for p in trained.module.second.parameters())
            assert unused == symmetric
            found.append(tiny.gradient(trained.module))
            trained.optimizer.zero_grad()
    assert trained.reductions == (6 if world > 1 else 0)
    if rank == 0:
        torch.save(found, folder / f"towers-{world}.pt")


def test_towers_that_a_pass_does_not_read_are_added_all_the_same(tmp_path: Path) -> None:
    for world in (1, 2):
        spawn(two_towers, world, tmp_path)
    alone, both = (torch.load(tmp_path / f"towers-{world}.pt") for world in (1, 2))
    for ours, expected in zip(both, alone, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def a_transformer(rank: int, world: int, folder: Path) -> None:
    """Chunks, parts, recomputed layers and adapters, on ranks of unequal shares."""
    found = []
    for options in ({"gradient_checkpointing": True}, {"lora": Lora(r=2), "trained": "lora_"}):
        trained = options.pop("trained", "")
        model = small.encoder(folder / "model", **options).train()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:  # zero at first, so that A would get no gradient
                    parameter.copy_(torch.arange(parameter.numel()).view_as(parameter).sin() / 9)
        plain = TorchEngine(model, Optim(lr=0.0))
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        assert all(trained in name for name, _ in named)
        samples = [replace(s, targets=s.scores) for s in small.samples(10, scores=True)]
        for chunk in (0, 3):
            own = share(10, rank, world)
            parts = [
                collate_texts(samples[own][half], model, teacher=True, no_in_batch=True)
                for half in (slice(1), slice(1, None))
            ]
            forward_backward(plain, parts, GOAL, chunk_size=chunk)
            found.append({n: p.grad.clone() for n, p in named if p.grad is not None})
            plain.optimizer.zero_grad()
        assert plain.reductions == (2 if world > 1 else 0)
    if rank == 0:
        torch.save(found, folder / f"transformer-{world}.pt")


def test_recomputed_layers_and_adapters_have_one_process_gradient_on_ranks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small.checkpoint(tmp_path / "model")
    for world in (1, 3):
        spawn(a_transformer, world, tmp_path)
    assert "find_unused_parameters" not in capfd.readouterr().err
    alone, three = (torch.load(tmp_path / f"transformer-{world}.pt") for world in (1, 3))
    for ours, expected in zip(three, alone, strict=True):
        assert expected and ours.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


class Tables(nn.Module):
    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 6, padding_idx=padding, dtype=torch.float64)
        self.places = nn.Embedding(7, 6, dtype=torch.float64)
        self.frozen = nn.Embedding(40, 6, dtype=torch.float64).requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids.shape[1])
        return torch.tanh(self.words(ids) + self.places(places)[None] + self.frozen(ids))


@pytest.mark.parametrize("padding", [None, 0])
def test_gradients_are_those_of_pytorch_over_several_backward_passes(padding: int | None) -> None:
    torch.manual_seed(0)
    plain = Tables(padding)
    ours = copy.deepcopy(plain)
    add_rows_in_place(ours)
    moved = copy.deepcopy(ours)  # the copy has its own table
    for rows in (1, 5, 3):
        ids = torch.randint(0, 40, (rows, 7))
        ids[:, -2:] = 0
        weights = torch.randn(rows, 7, 6, dtype=torch.float64)
        assert torch.equal(plain(ids), ours(ids))
        for model in (plain, ours, moved):
            (model(ids) * weights).sum().backward()
    for model in (ours, moved):
        assert model.frozen.weight.grad is None
        for name in ("words", "places"):
            expected = getattr(plain, name).weight.grad
            torch.testing.assert_close(
                getattr(model, name).weight.grad, expected, rtol=0, atol=1e-14
            )
    assert plain.words.weight.grad[0].any() == (padding is None)
    with torch.no_grad():
        assert not ours(ids).requires_grad
    assert list(ours.state_dict()) == list(plain.state_dict())


def test_tables_with_other_rules_are_left_alone() -> None:
    tables = nn.ModuleList(
        [
            nn.Embedding(5, 2, sparse=True),
            nn.Embedding(5, 2, max_norm=1.0),
            nn.Embedding(5, 2, scale_grad_by_freq=True),
        ]
    )
    add_rows_in_place(tables)
    assert all("forward" not in vars(table) for table in tables)
    half = nn.Embedding(5, 2, dtype=torch.bfloat16)
    add_rows_in_place(half)  # rounding every row's sum anew would lose what is small
    assert half(torch.tensor([1, 1])).grad_fn.name().startswith("EmbeddingBackward")
