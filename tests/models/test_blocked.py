"""Weights in blocks give the vectors of the same weights in rows, family by family."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from transformers.activations import GELUActivation

from raydist.models import blocked
from raydist.models.biencoder import BiEncoder
from raydist.models.blocked import use_blocked_weights
from raydist.models.inference import load_encoder
from raydist.models.spec import EncoderSource
from tests.models.zoo import TEXTS, TYPICAL

pytestmark = pytest.mark.skipif(not blocked._is_faster(), reason="no AVX-512 or no oneDNN here")


def blocks(model: nn.Module) -> int:
    """Returns how many layers have their weights in blocks."""
    return sum(type(part) is blocked._Blocked for part in model.modules())


@pytest.mark.parametrize("family", TYPICAL)
def test_vectors_of_blocked_weights_are_those_of_rows(families, family):
    rows = BiEncoder.load(families / family, device="cpu")
    encoder = load_encoder(EncoderSource(path=str(families / family)), device="cpu")
    linear = sum(type(part) is nn.Linear for part in rows.modules())
    assert blocks(encoder) == linear
    assert encoder.packs == (family in ("bert", "gpt2", "qwen3", "mistral"))
    for texts in (TEXTS, TEXTS[:1]):
        ours, theirs = (model.encode_documents(texts) for model in (encoder, rows))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * max(1, abs(theirs).max()))


def test_weights_in_blocks_are_held_once_and_saved_as_they_were(families):
    rows = BiEncoder.load(families / "bert", device="cpu")
    saved = {name: tensor.clone() for name, tensor in rows.state_dict().items()}
    linear = [part.weight for part in rows.modules() if type(part) is nn.Linear]
    held = [weakref.ref(weight) for weight in linear]
    del linear
    use_blocked_weights(rows)
    gc.collect()
    assert held and not any(each() for each in held)
    again = rows.state_dict()
    assert again.keys() == saved.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in saved.items())


class Feed(nn.Module):
    """A linear layer and the activation after it, named as in BERT and its relatives."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(24, 40)
        self.intermediate_act_fn = GELUActivation()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.intermediate_act_fn(self.dense(values))


@torch.inference_mode()
def test_gelu_is_part_of_the_product_before_it():
    torch.manual_seed(0)
    feed = Feed()
    values = 4 * torch.randn(3, 50, 24)
    expected = feed.double()(values.double())
    use_blocked_weights(feed.float())
    assert type(feed.intermediate_act_fn) is nn.Identity
    torch.testing.assert_close(feed(values).double(), expected, rtol=0, atol=3e-6)
    strided = values.transpose(0, 1)[::2]
    torch.testing.assert_close(feed(strided), feed(strided.contiguous()), rtol=0, atol=0)
    assert feed(values[:, :0]).shape == (3, 0, 40)


def test_what_cannot_have_blocks_stays_as_it_is(families):
    tied = nn.ModuleDict({"one": nn.Linear(8, 8), "two": nn.Linear(8, 8)})
    tied["two"].weight = tied["one"].weight
    double = nn.Sequential(nn.Linear(8, 8)).double()
    meta = nn.Sequential(nn.Linear(8, 8, device="meta"))
    half = BiEncoder.load(families / "bert", autocast="bfloat16", device="cpu")
    for model in (tied, double, meta, half):
        use_blocked_weights(model)
        assert blocks(model) == 0
