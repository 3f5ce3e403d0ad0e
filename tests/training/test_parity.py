"""Any number of ranks, chunks and parts gives the loss and gradient of one process."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from raydist.losses.objective import Objective, make_objective, make_part
from raydist.losses.spec import (
    AdrMse,
    BiIR,
    Distillation,
    InfoNCE,
    LambdaLoss,
    ListNet,
    MarginMsePairs,
    RankNet,
)
from raydist.training.engine import TorchEngine
from raydist.training.spec import Optim
from tests.losses import naive
from tests.training import tiny
from tests.training.spawn import spawn
from tests.training.steps import forward_backward

TEMPERATURE, ANSWER_TEMPERATURE = 0.7, 0.9
SCOPES = ["no_in_batch", "in_batch", "cross_device"]
KINDS = [None, "kl_div", "true_kl", "m3_kd", "list_mle", "margin_mse", "pairwise_kl"]
TYPES = [None, "retrieval", "retrieval_answer", "retrieval_answer_passage"]
CHUNKS = [0, 2]
CASES = list(itertools.product(SCOPES, KINDS, TYPES, CHUNKS))


def objective(scope: str, kind: str | None, training_type: str | None) -> Objective:
    distill = Distillation(kind=kind) if kind else None
    shared: dict[str, Any] = {"temperature": TEMPERATURE, "scope": scope}
    if training_type is None:
        return make_objective(InfoNCE(**shared), distill)
    loss = BiIR(training_type=training_type, answer_temperature=ANSWER_TEMPERATURE, **shared)
    return make_objective(loss, distill)


def pair_objective() -> Objective:
    return Objective(
        (
            make_part(RankNet(weight=0.5), "ranknet"),
            make_part(RankNet(per_query=True), "ranknet_mean"),
            make_part(AdrMse(), "adr"),
            make_part(ListNet(weight=2.0), "listnet"),
            make_part(LambdaLoss(), "lambda"),
            make_part(MarginMsePairs(), "margin"),
            make_part(InfoNCE(temperature=0.3), distill=Distillation(kind="m3_kd", hard=True)),
        )
    )


def run_all(rank: int, world: int, folder: Path) -> None:
    """Every case on this rank's share; rank 0 writes losses and gradients."""
    whole = tiny.data()
    rows = tiny.blocks(whole.size, world)[rank]
    results: dict[Any, Any] = {}

    def keep(name: Any, engine: TorchEngine, goal: Objective, terms: Any) -> None:
        results[name] = (goal.total(terms), tiny.gradient(engine.module))
        engine.optimizer.zero_grad()

    engine = TorchEngine(tiny.TinyEncoder(torch.float64), Optim(lr=0.0))
    for scope, kind, training_type, chunk in CASES:
        goal = objective(scope, kind, training_type)
        batch = tiny.batch(whole, rows, teacher=kind is not None)
        terms = forward_backward(engine, batch, goal, chunk_size=chunk)
        keep((scope, kind, training_type, chunk), engine, goal, terms)
    flagged = tiny.batch(whole, rows, no_in_batch=True)
    goal = objective("cross_device", "m3_kd", None)
    keep("flag", engine, goal, forward_backward(engine, flagged, goal))
    # Parts of one row have no foreign columns, and some have no answer.
    even = tiny.data(size=8)
    mine = range(rank * 8 // world, (rank + 1) * 8 // world)
    goal = objective("cross_device", "kl_div", "retrieval_answer_passage")
    parts = [tiny.batch(even, range(i, i + 1), no_in_batch=True) for i in mine]
    keep("parts", engine, goal, forward_backward(engine, parts, goal, chunk_size=1))
    joined = tiny.batch(even, mine, no_in_batch=True)
    keep("no parts", engine, goal, forward_backward(engine, joined, goal))
    # On the first rank no query has an answer.
    answered = [row for row in range(9) if whole.answer_mask[row, 0]]
    silent = [row for row in range(9) if row not in answered]
    some = {(1, 0): [*silent, *answered], (2, 0): silent, (2, 1): answered}.get((world, rank))
    if some is not None:
        goal = objective("cross_device", "kl_div", "retrieval_answer_passage")
        keep("silent", engine, goal, forward_backward(engine, tiny.batch(whole, some), goal))
    scorer = TorchEngine(tiny.TinyScorer(torch.float64), Optim(lr=0.0))
    for chunk in CHUNKS:
        goal = pair_objective()
        terms = forward_backward(scorer, tiny.pair_batch(whole, rows), goal, chunk_size=chunk)
        keep(("pairs", chunk), scorer, goal, terms)
    results["fault"] = fault(rank, world, rows)
    if rank == 0:
        torch.save(results, folder / f"results-{world}.pt")


def fault(rank: int, world: int, rows: range) -> float:
    """The gradient of a common way to gather, as a multiple of the true one.

    Every rank keeps the graph of its own slice alone, computes the mean over all queries, and the
    gradients are averaged over ranks.
    """
    whole = tiny.data()
    model = tiny.TinyEncoder(torch.float64)
    part = tiny.batch(whole, rows)
    everyone = [tiny.batch(whole, block) for block in tiny.blocks(whole.size, world)]
    gathered = []
    for role, name in (("query", "queries"), ("document", "passages")):
        with torch.no_grad():
            slices = [model(getattr(b, name), role) for b in everyone]
        slices[rank] = model(getattr(part, name), role)
        gathered.append(torch.cat(slices))
    scores = gathered[0] @ gathered[1].T / TEMPERATURE
    target = torch.arange(whole.size) * whole.group
    torch.nn.functional.cross_entropy(scores, target).backward()
    faulty = tiny.gradient(model)
    if world > 1:
        dist.all_reduce(faulty)
    faulty /= world
    engine = TorchEngine(tiny.TinyEncoder(torch.float64), Optim(lr=0.0))
    goal = make_objective(
        InfoNCE(temperature=TEMPERATURE, scope="cross_device", mask_duplicates=False)
    )
    forward_backward(engine, part, goal)
    ours = tiny.gradient(engine.module)
    ratio = float(faulty @ ours / (ours @ ours))
    assert torch.allclose(faulty, ratio * ours, rtol=0, atol=1e-12)
    return ratio


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[Any, Any]]:
    folder = tmp_path_factory.mktemp("parity")
    for world in (1, 2, 4):
        spawn(run_all, world, folder)
    return {world: torch.load(folder / f"results-{world}.pt") for world in (1, 2, 4)}


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("scope", SCOPES)
def test_every_loss_on_any_number_of_ranks_equals_the_formula_on_the_joined_batch(
    results: dict[int, dict[Any, Any]], world: int, scope: str
) -> None:
    whole = tiny.data()
    joined = tiny.joined(whole, world)
    for kind, training_type in itertools.product(KINDS, TYPES):
        model = tiny.TinyEncoder(torch.float64)
        loss = naive.total_loss(
            model(whole.queries),
            model(whole.passages, "document"),
            model(whole.answers),
            joined,
            temperature=TEMPERATURE,
            answer_temperature=ANSWER_TEMPERATURE,
            scope=scope,
            kind=kind,
            training_type=training_type,
        )
        loss.backward()
        for chunk in CHUNKS:
            value, gradient = results[world][scope, kind, training_type, chunk]
            case = (world, scope, kind, training_type, chunk)
            assert value == pytest.approx(loss.item(), rel=0, abs=1e-10), case
            error = (gradient - tiny.gradient(model)).abs().max()
            assert error <= 1e-10, (case, error)


@pytest.mark.parametrize("world", [2, 4])
def test_worker_counts_agree_where_the_scope_does_not_depend_on_them(
    results: dict[int, dict[Any, Any]], world: int
) -> None:
    names: list[Any] = [("pairs", 0), ("pairs", 2), "flag", "parts"]
    names += ["silent"] if world == 2 else []
    names += [case for case in CASES if case[0] != "in_batch"]
    for name in names:
        for ours, alone in zip(results[world][name], results[1][name]):
            assert torch.as_tensor(ours - alone).abs().max() <= 1e-10, name


def test_no_in_batch_of_a_batch_goes_before_the_scope(
    results: dict[int, dict[Any, Any]],
) -> None:
    for world in (1, 2, 4):
        flagged = results[world]["flag"]
        plain = results[world]["no_in_batch", "m3_kd", None, 0]
        assert flagged[0] == plain[0]
        assert torch.equal(flagged[1], plain[1])


@pytest.mark.parametrize("world", [1, 2, 4])
def test_parts_of_single_rows_add_up_to_the_whole(
    results: dict[int, dict[Any, Any]], world: int
) -> None:
    for part, whole in zip(results[world]["parts"], results[world]["no parts"]):
        assert torch.as_tensor(part - whole).abs().max() <= 1e-10


@pytest.mark.parametrize("world", [1, 2, 4])
def test_averaging_the_loss_over_gathered_slices_gives_one_wth_of_the_gradient(
    results: dict[int, dict[Any, Any]], world: int
) -> None:
    assert results[world]["fault"] == pytest.approx(1.0 / world, abs=1e-10)
