"""Sparse models are trained exactly: any ranks, chunks and parts, and the memory of one chunk."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from raydist.losses.objective import Objective, make_objective
from raydist.losses.sparsity import counted_terms
from raydist.losses.spec import Flops, InfoNCE
from raydist.models.spec import BiEncoderSettings
from raydist.training.engine import TorchEngine
from raydist.training.plan import Job
from raydist.training.spec import Optim, Resources
from raydist.training.trainer import _load
from raydist.training.worker import Place, fit
from tests.training import tiny
from tests.training.jobs import tiny_job
from tests.training.spawn import spawn
from tests.training.steps import forward_backward

CASES = [(kind, chunk) for kind in ("flops", "idf_flops", "l1") for chunk in (0, 2)]


class TinySparse(tiny.TinyEncoder):
    """Weights of six terms, some of them 0, and a table of queries' weights."""

    def __init__(self) -> None:
        super().__init__(torch.float64)
        self.table = torch.nn.Linear(6, 1, dtype=torch.float64)
        self.table.weight = torch.nn.Parameter(torch.arange(6.0, dtype=torch.float64))
        self.table.requires_grad_(False)

    def forward(self, inputs: Any, role: str = "query") -> Tensor:
        return super().forward(inputs, role).relu()


def objective(kind: str) -> Objective:
    flops = Flops(document=0.3, query=0.7, kind=kind)  # type: ignore[arg-type]
    goal = make_objective(InfoNCE(temperature=0.7, scope="cross_device", flops=flops))
    return Objective((*goal.parts, counted_terms()))


def run_all(rank: int, world: int, folder: Path) -> None:
    """Every case on this rank's share, which is uneven; rank 0 writes terms and gradients."""
    whole = tiny.data()
    rows = tiny.blocks(whole.size, world)[rank]
    results: dict[Any, Any] = {}
    engine = TorchEngine(TinySparse(), Optim(lr=0.0))
    for kind, chunk in CASES:
        goal = objective(kind)
        batch = tiny.batch(whole, rows)
        terms = forward_backward(engine, batch, goal, chunk_size=chunk)
        results[kind, chunk] = (terms, goal.total(terms), tiny.gradient(engine.module))
        engine.optimizer.zero_grad()
    # Parts have foreign columns of their own, but FLOPS is that of all their rows.
    even = tiny.data(size=8)
    mine = range(rank * 8 // world, (rank + 1) * 8 // world)
    goal = objective("flops")
    for name, cuts in (("parts", [range(i, i + 1) for i in mine]), ("no parts", [mine])):
        parts = [tiny.batch(even, cut, no_in_batch=True) for cut in cuts]
        terms = forward_backward(engine, parts, goal, chunk_size=int(name == "parts"))
        results[name] = (terms, goal.total(terms), tiny.gradient(engine.module))
        engine.optimizer.zero_grad()
    if rank == 0:
        torch.save(results, folder / f"results-{world}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[Any, Any]]:
    folder = tmp_path_factory.mktemp("sparse")
    run_all(0, 1, folder)
    spawn(run_all, 4, folder)
    return {n: torch.load(folder / f"results-{n}.pt", weights_only=False) for n in (1, 4)}


def by_hand(kind: str) -> tuple[dict[str, Tensor], Tensor]:
    """The measures of the joined batch, and the gradient of the whole loss."""
    whole = tiny.data()
    model = TinySparse()
    queries = model(whole.queries, "query")
    documents = model(whole.passages, "document")
    measures = {}
    for side, rows in (("query", queries), ("document", documents)):
        mean = rows.mean(0)
        if kind == "idf_flops":
            mean = mean / model.table.weight.clamp(min=1)
        measures[f"{kind}_{side}"] = rows.sum(1).mean() if kind == "l1" else (mean**2).sum()
        measures[f"terms_{side}"] = (rows > 0).double().sum() / len(rows)
    (0.7 * measures[f"{kind}_query"] + 0.3 * measures[f"{kind}_document"]).backward()
    return measures, tiny.gradient(model)


@pytest.mark.parametrize(("kind", "chunk"), CASES)
def test_ranks_and_chunks_have_the_measures_and_gradient_of_the_joined_batch(results, kind, chunk):
    measures, gradient = by_hand(kind)
    terms, loss, alone = results[1][kind, 0]
    contrast = objective(kind)
    contrast = Objective(contrast.parts[:1])
    engine = TorchEngine(TinySparse(), Optim(lr=0.0))
    forward_backward(engine, tiny.batch(tiny.data(), range(9)), contrast)
    torch.testing.assert_close(alone, tiny.gradient(engine.module) + gradient, rtol=0, atol=1e-10)
    for world in (1, 4):
        terms, total, found = results[world][kind, chunk]
        assert total == pytest.approx(loss, abs=1e-10)
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-10)
        for name, value in measures.items():
            assert terms[name][0] / terms[name][1] == pytest.approx(value.item(), abs=1e-10)


def test_parts_of_a_step_have_the_measure_of_all_their_rows(results):
    expected = results[1]["no parts"]
    for world, name in ((1, "parts"), (4, "parts"), (4, "no parts")):
        _, total, gradient = results[world][name]
        assert total == pytest.approx(expected[1], abs=1e-10)
        torch.testing.assert_close(gradient, expected[2], rtol=0, atol=1e-10)


def write_weights(jobs: dict[str, Job], folder: Path, place: Place) -> dict[str, Any]:
    torch.manual_seed(10 + place.rank)  # what else a rank draws does not matter
    loaded = {name: _load(job, place).state_dict() for name, job in jobs.items()}
    torch.save(loaded, folder / f"weights-{place.rank}.pt")
    place.barrier()
    return {}


@pytest.mark.ray
def test_workers_of_ray_start_from_the_same_fresh_head(
    tiny_bert: Path, tmp_path: Path, ray_cluster: None
) -> None:
    """Drawn at random, because input and output share no embeddings; as likeness; a projection."""
    model = AutoModel.from_pretrained(tiny_bert)
    model.config.tie_word_embeddings = False
    model.save_pretrained(tmp_path / "untied")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "untied")
    job = tiny_job(tmp_path / "job")
    models = {
        "random": BiEncoderSettings(path=str(tmp_path / "untied"), kind="sparse"),
        "alike": BiEncoderSettings(path=str(tiny_bert), kind="sparse"),
        "tokens": BiEncoderSettings(path=str(tiny_bert), kind="multivector"),
    }
    jobs = {name: replace(job, model=model) for name, model in models.items()}
    fit(partial(write_weights, jobs, tmp_path), tmp_path, Resources(workers=2))
    first, second = (torch.load(tmp_path / f"weights-{rank}.pt") for rank in range(2))
    for kind, tensors in first.items():
        assert tensors.keys() == second[kind].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, second[kind][name]), f"{kind}: {name}"
    decoder = "towers.0.cls.predictions.decoder.weight"
    assert not torch.equal(first["random"][decoder], first["alike"][decoder])
