from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from raydist.losses.objective import make_objective
from raydist.losses.spec import InfoNCE
from raydist.records import Sample
from raydist.training.collate import Inputs, collate_texts, text_hash
from raydist.training.engine import TorchEngine
from raydist.training.spec import Optim
from raydist.training.step import forward_backward
from tests.training.small import checkpoint, encoder


class Words:
    """Tokenises nothing but lengths; remembers with which instructions."""

    def __init__(self) -> None:
        self.instructions: dict[str, str | None] = {}

    def tokenize(
        self, texts: Sequence[str], role: str, instruction: str | None = None
    ) -> list[list[int]]:
        self.instructions[role] = instruction
        return [[1] * len(text.split()) for text in texts]

    def pad(self, token_ids: Sequence[Sequence[int]]) -> Inputs:
        width = max(map(len, token_ids))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in token_ids])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def test_a_batch_knows_all_positives_of_its_queries() -> None:
    samples = [
        Sample("q one", ("a", "n"), others=("b", "c")),
        Sample("q two", ("d", "n")),
        Sample("q three", ("b", "m"), others=("a",)),
    ]
    known = collate_texts(samples, Words()).targets.known_BK
    assert known is not None
    expected = ["abc", "ddd", "bab"]
    assert known.tolist() == [[text_hash(text) for text in row] for row in expected]
    assert collate_texts(samples[1:2], Words()).targets.known_BK is None


def test_a_prompt_is_put_before_queries_and_answers_keep_the_models_own() -> None:
    words = Words()
    sample = Sample("q one", ("a", "n"), answer="an answer", prompt="find: ")
    collate_texts([sample], words, answers=1)
    assert words.instructions == {"query": "find: ", "document": None, "answer": None}


def test_symmetric_documents_are_encoded_by_the_tower_of_queries(tmp_path: Path) -> None:
    model = encoder(checkpoint(tmp_path / "m"), towers=2)
    samples = [Sample("river stone", ("lamp", "garden")), Sample("bread", ("winter", "copper"))]
    for symmetric in (False, True):
        engine = TorchEngine(model, Optim(lr=1e-3))
        batch = collate_texts(samples, model, symmetric=symmetric)
        forward_backward(engine, batch, make_objective(InfoNCE()))
        trained = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
        assert trained == ({"0"} if symmetric else {"0", "1"})
        engine.optimizer.zero_grad()


@pytest.mark.parametrize("margin", [0.05, 0.5])
def test_a_margin_is_of_the_teachers_own_scores_whatever_is_learnt_of_them(
    tmp_path: Path, margin: float
) -> None:
    """0.1 below the positive: as ranks it would be 1 below."""
    model = encoder(checkpoint(tmp_path / "m"))
    texts = ("river stone", "lamp", "garden")
    sample = Sample("river", texts, scores=(9.0, 8.9, 3.0), targets=(3.0, 2.0, 1.0))
    goal = make_objective(InfoNCE(teacher_margin=margin, scope="no_in_batch"))
    batch = collate_texts([sample], model, teacher=True)
    loss = goal.total(forward_backward(TorchEngine(model, Optim(lr=1e-3)), batch, goal))
    remaining = Sample("river", (texts[0], *texts[2 if margin > 0.1 else 1 :]))
    plain = make_objective(InfoNCE(scope="no_in_batch"))
    engine = TorchEngine(model, Optim(lr=1e-3))
    expected = plain.total(forward_backward(engine, collate_texts([remaining], model), plain))
    assert loss == pytest.approx(expected, rel=1e-5)
