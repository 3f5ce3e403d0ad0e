"""Multi-vector training: any number of ranks and chunks gives the gradient of one process."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from raydist.losses.objective import make_objective
from raydist.losses.spec import Distillation, InfoNCE
from raydist.training.collate import Inputs
from raydist.training.engine import TorchEngine
from raydist.training.spec import Optim
from tests.losses import naive
from tests.training import tiny
from tests.training.spawn import spawn
from tests.training.steps import forward_backward

KINDS = [None, "kl_div", "margin_mse"]
CASES = list(itertools.product(["in_batch", "cross_device"], KINDS, [0, 2]))


class TinyTokens(tiny.TinyEncoder):
    """A unit vector for each token, no wider than the longest text; documents skip token 7."""

    def forward(self, inputs: Inputs, role: str = "query") -> Tensor:
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask", torch.ones_like(ids)).bool()
        width = int(mask.sum(1).max())
        ids, mask = ids[:, :width], mask[:, :width]
        vectors = F.normalize(self.body(self.dropout(self.tokens(ids))), dim=-1)
        if role == "document":
            mask = mask & (ids % 7 != 0)
        return vectors * mask[..., None]


def run_all(rank: int, world: int, folder: Path) -> None:
    whole = tiny.data()
    rows = tiny.blocks(whole.size, world)[rank]
    results: dict[Any, Any] = {}
    engine = TorchEngine(TinyTokens(torch.float64), Optim(lr=0.0))
    for scope, kind, chunk in CASES:
        distill = Distillation(kind=kind) if kind else None
        goal = make_objective(InfoNCE(temperature=0.7, scope=scope), distill)
        batch = tiny.batch(whole, rows, teacher=kind is not None)
        terms = forward_backward(engine, batch, goal, chunk_size=chunk)
        results[scope, kind, chunk] = (goal.total(terms), tiny.gradient(engine.module))
        engine.optimizer.zero_grad()
    if rank == 0:
        torch.save(results, folder / f"results-{world}.pt")


class Rows:
    """Vectors of tokens whose `@` is MaxSim, so that the naive formulas read them."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def new_zeros(self, shape: tuple[int, ...]) -> Tensor:
        return self.vectors.new_zeros(shape)

    def __getitem__(self, row: int) -> Any:
        return Rows(self.vectors[row])

    def __matmul__(self, other: Any) -> Tensor:
        kept = other.vectors[(other.vectors.detach() != 0).any(-1)]
        if not len(kept):
            return self.vectors.sum() * 0
        return (self.vectors @ kept.T).max(-1).values.sum()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[Any, Any]]:
    folder = tmp_path_factory.mktemp("parity")
    for world in (1, 2):
        spawn(run_all, world, folder)
    return {world: torch.load(folder / f"results-{world}.pt") for world in (1, 2)}


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["in_batch", "cross_device"])
def test_max_sim_losses_on_ranks_and_chunks_equal_the_formula_on_the_joined_batch(
    results: dict[int, dict[Any, Any]], world: int, kind: str | None, scope: str
) -> None:
    whole = tiny.data()
    joined = tiny.joined(whole, world)
    model = TinyTokens(torch.float64)
    loss = naive.total_loss(
        Rows(model(whole.queries)),
        Rows(model(whole.passages, "document")),
        Rows(model(whole.answers)),
        joined,
        temperature=0.7,
        answer_temperature=0.9,
        scope=scope,
        kind=kind,
        training_type=None,
    )
    loss.backward()
    expected = tiny.gradient(model)
    for chunk in (0, 2):
        value, gradient = results[world][scope, kind, chunk]
        assert value == pytest.approx(float(loss.detach()), abs=1e-10)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)
