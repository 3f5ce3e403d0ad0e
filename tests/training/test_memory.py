from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raydist.models.scratch import create
from raydist.training.collate import collate_pairs
from raydist.training.memory import kept_bytes, memory_note
from tests.training.small import reranker, samples, texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("model")
    create(texts(), target, layers=3, hidden=96, heads=4, vocab=300, seed=1)
    return target


def test_the_estimate_is_near_what_a_transformer_keeps(folder: Path) -> None:
    model = reranker(folder, dropout=0.1, fresh_head=True)
    model.train()
    ids = torch.randint(10, 100, (8, 64))
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    saved = sum(size for place, size in sizes.items() if place not in own)
    assert scores.requires_grad
    assert 0.7 < kept_bytes(model, ids.numel()) / saved < 1.4


def test_a_step_that_may_not_fit_is_named_with_the_remedy(folder: Path) -> None:
    model = reranker(folder, fresh_head=True)
    batch = collate_pairs(samples(6), model)
    tokens = kept_bytes(model, batch.tokens)
    assert memory_note(model, [batch], free=tokens * 3) == ""
    note = memory_note(model, [batch, batch], free=tokens // 2)  # parts come one after the other
    assert "tokens may need about" in note and "cache=16" in note
    assert kept_bytes(torch.nn.Linear(2, 2), 1000) == 0
