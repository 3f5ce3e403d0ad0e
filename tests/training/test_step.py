"""A step against its definition, where the order of the student's own scores decides the count."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from raydist.losses.objective import make_objective
from raydist.losses.spec import LambdaLoss
from raydist.records import Sample
from raydist.training.collate import collate_pairs
from raydist.training.engine import TorchEngine
from raydist.training.spec import Optim
from tests.training.small import checkpoint, reranker, texts
from tests.training.steps import forward_backward

K = 2


def judged() -> list[Sample]:
    pool = texts()
    grades = ((0.0, 2.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 2.0, 0.0, 3.0))
    samples = []
    for i, labels in enumerate(grades):
        documents = tuple(pool[i * 9 + 5 * j + 1] for j in range(len(labels)))
        samples.append(Sample(pool[i], documents, 1, labels=labels))
    return samples


def by_hand(lists: list[tuple[list[float], tuple[float, ...]]]) -> float:
    """The mean of −log2 σ(s_i − s_j) over pairs t_i > t_j with one of the first K by score."""
    losses = []
    for scores, labels in lists:
        first = sorted(range(len(scores)), key=lambda i: -scores[i])[:K]
        for i, j in itertools.permutations(range(len(scores)), 2):
            if labels[i] > labels[j] and (i in first or j in first):
                losses.append(math.log2(1 + math.exp(scores[j] - scores[i])))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("chunk_size", [0, 2])
@pytest.mark.parametrize("parts", [1, 3])
def test_pairs_of_the_first_k_are_counted_on_the_students_order(
    tmp_path: Path, parts: int, chunk_size: int
) -> None:
    model = reranker(checkpoint(tmp_path / "m"), fresh_head=True)
    with torch.no_grad():  # scores that differ, and not in the order given
        for parameter in model.parameters():
            parameter.mul_(3.0)
    samples = judged()
    lists = []
    for sample in samples:
        pairs = model.tokenize([sample.query] * len(sample.documents), sample.documents)
        with torch.no_grad():
            lists.append((model.eval()(model.pad(pairs)).tolist(), sample.labels or ()))
    batches = [collate_pairs([each], model) for each in samples]
    if parts == 1:
        batches = [collate_pairs(samples, model)]
    goal = make_objective(LambdaLoss(scheme="none", k=K))
    engine = TorchEngine(model, Optim(lr=1e-3))
    terms = forward_backward(engine, batches, goal, chunk_size=chunk_size)
    assert goal.total(terms) == pytest.approx(by_hand(lists), abs=1e-5)
