"""Two processes whose samples have different numbers of negatives: the gradients of one process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from raydist.data.samples.prepare import prepare
from raydist.data.samples.sample_set import SampleSet
from raydist.losses.objective import make_objective
from raydist.losses.spec import InfoNCE, ListInfoNCE
from raydist.records import Sample
from raydist.training.collate import Batch, collate_pairs, collate_texts
from raydist.training.engine import TorchEngine
from raydist.training.samplers import DistillationListwiseSampler, GroupSampler, Order, Stream
from raydist.training.source import BatchSource, TrainingSet
from raydist.training.spec import Optim
from tests.training.small import checkpoint, encoder, reranker, samples
from tests.training.spawn import spawn
from tests.training.steps import forward_backward

STEPS = 2
CHUNKS = (0, 3)


def gradients(rank: int, world: int, folder: Path) -> None:
    """Every step's gradients and losses on this rank's share; rank 0 writes them."""
    rows = SampleSet(folder / "data", lazy=True)
    results: dict[str, tuple[torch.Tensor, float]] = {}
    lists, groups = DistillationListwiseSampler(size=0), GroupSampler(4)
    scorer = reranker(folder / "model", fresh_head=True).double()
    with torch.no_grad():  # scores that differ
        for parameter in scorer.parameters():
            parameter.mul_(3.0)
    texts = encoder(folder / "model").double()

    def pairs(drawn: Sequence[Sample], total: int) -> Batch:
        return collate_pairs(drawn, scorer, global_samples=total)

    def tuples(drawn: Sequence[Sample], total: int) -> Batch:
        return collate_texts(drawn, texts, global_samples=total)

    cases = [
        ("lists", lists, scorer, pairs, ListInfoNCE()),
        ("groups", groups, texts, tuples, InfoNCE(scope="cross_device")),
    ]
    for name, sampler, model, collate, loss in cases:
        engine, goal = TorchEngine(model, Optim(lr=0.0)), make_objective(loss)
        drawn = partial(lambda s, at: s.drawn(rows.sizes_n2[at], rows.facts.labels), sampler)
        dataset = TrainingSet(name, rows, sampler, collate, rows.fill, drawn)
        source = BatchSource(Order((Stream(len(rows), 7),), 5), (dataset,), rank, world)
        for step in range(STEPS):
            for chunk in CHUNKS:
                parts = source(step)
                if name == "lists":
                    assert len(set(parts[0].supervision.sizes_B.tolist())) > 1, "not ragged"
                terms = forward_backward(engine, parts, goal, chunk_size=chunk)
                flat = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
                results[f"{name} {step} {chunk}"] = (torch.cat(flat), goal.total(terms))
                engine.optimizer.zero_grad()
    if rank == 0:
        torch.save(results, folder / f"results-{world}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ragged")
    checkpoint(folder / "model")
    with open(folder / "train.jsonl", "w", encoding="utf-8") as out:
        for i, sample in enumerate(samples(negatives=6)):
            each = replace(sample, documents=sample.documents[: 2 + i * 5 % 6])
            line = {"query": each.query, "pos": [each.documents[0]], "neg": [*each.documents[1:]]}
            out.write(json.dumps(line) + "\n")
    prepare(folder / "train.jsonl", folder / "data")
    return folder


def test_two_processes_with_ragged_lists_have_the_gradients_of_one(folder: Path) -> None:
    gradients(0, 1, folder)
    spawn(gradients, 2, folder)
    alone, together = (torch.load(folder / f"results-{world}.pt") for world in (1, 2))
    assert len(alone) == 2 * STEPS * len(CHUNKS)
    for name, (expected, loss) in alone.items():
        gradient, total = together[name]
        assert expected.abs().max() > 1e-3, name
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-10, msg=name)
        assert total == pytest.approx(loss, rel=1e-9), name
