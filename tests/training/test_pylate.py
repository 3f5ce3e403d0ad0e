"""Multi-vector losses against what PyLate's gave for the same model: values and gradients.

PyLate leaves out a masked vector by a product of 0, raydist by leaving it out: they differ where
all of a document's vectors point away from a query's, which none of these does.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from raydist.losses.inputs import Supervision
from raydist.losses.objective import make_objective
from raydist.losses.spec import DistillationLoss, InfoNCE, Loss
from raydist.models.biencoder import BiEncoder
from raydist.training.collate import Batch
from raydist.training.engine import TorchEngine
from raydist.training.spec import Optim
from tests.models.pylate_weights import LISTS, QUERIES, RECORDED, TEACHER, restored
from tests.training.steps import forward_backward

CONTRASTIVE = InfoNCE(temperature=0.7, scope="in_batch")
CASES = [
    ("contrastive", CONTRASTIVE, 0, 1),
    # Its value is a mean over the queries, its gradient that of their sum.
    ("cached", CONTRASTIVE, 1, len(LISTS)),
    ("distillation", DistillationLoss(kind="true_kl", minmax=True), 0, 1),
    ("distillation", DistillationLoss(kind="true_kl", minmax=True, temperature=3.0), 2, 1),
    ("distillation_of_raw_scores", DistillationLoss(kind="true_kl"), 0, 1),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return restored(tmp_path_factory.mktemp("pylate") / "m")


@pytest.mark.parametrize(("name", "loss", "chunk", "times"), CASES)
def test_losses_and_gradients_are_those_of_pylate(
    folder: Path, name: str, loss: Loss, chunk: int, times: int
) -> None:
    model = BiEncoder.load(folder, dropout=0.0, device="cpu")
    teacher = torch.tensor(TEACHER)
    supervision = Supervision(
        sizes_B=torch.tensor([len(each) for each in LISTS]),
        mask_BD=torch.ones_like(teacher, dtype=torch.bool),
        targets_BD=teacher,
        scores_BD=teacher,
    )
    texts = [text for each in LISTS for text in each]
    batch = Batch(
        supervision,
        queries=model.pad(model.tokenize(QUERIES[: len(LISTS)], "query")),
        passages=model.pad(model.tokenize(texts, "document")),
        global_samples=len(LISTS),
    )
    engine = TorchEngine(model, Optim(lr=0.0))
    goal = make_objective(loss)
    value = goal.total(forward_backward(engine, batch, goal, chunk_size=chunk))
    expected = json.loads((RECORDED / "losses.json").read_text())[name]
    assert value == pytest.approx(expected["value"], abs=1e-5)
    gradient = model.projections[0].linear.weight.grad
    reference = torch.tensor(expected["gradient"]) / times
    assert reference.norm() > 0.01
    torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-5)
