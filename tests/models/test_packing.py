"""Texts laid end to end give the vectors and gradients of padded ones, family by family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raydist.errors import ConfigError
from raydist.models import packed_attention
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.encode import packed_batches
from raydist.models.inference import speed_up
from raydist.models.packed_attention import Edges
from raydist.models.packing import packed_rows, placed, pool_packed, wide_mask
from raydist.models.pooling import POOLINGS, pool
from tests.models import zoo

PACKED = ("bert", "roberta", "electra", "modernbert", "mistral", "qwen3")
REFUSED = ("mpnet", "t5", "deberta", "bloom")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.build((*PACKED, *REFUSED), tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("family", PACKED)
def test_packed_texts_have_the_vectors_and_gradients_of_padded_ones(families, tmp_path, family):
    padded = BiEncoder.load(families / family, dropout=0.0, device="cpu").train()
    packed = BiEncoder.load(
        families / family, dropout=0.0, attention="varlen", device="cpu"
    ).train()
    assert packed.packs and not padded.packs
    texts = [*zoo.TEXTS, " ".join(zoo.TEXTS)]
    rows = padded.tokenize(texts, "document")
    outputs = []
    for model in (padded, packed):
        inputs = placed(model.pad(rows), CPU, model.packs)
        assert (inputs["input_ids"].numel() == sum(map(len, rows))) == model.packs
        vectors = model(inputs, "document")
        (vectors * torch.arange(1.0, 1 + vectors.numel()).view_as(vectors).sin()).sum().backward()
        outputs.append(vectors)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=2e-6)
    gradients = [dict(m.named_parameters()) for m in (padded, packed)]
    largest = max(p.grad.abs().max() for p in gradients[0].values() if p.grad is not None)
    for name, parameter in gradients[0].items():
        if parameter.grad is not None:
            other = gradients[1][name].grad
            torch.testing.assert_close(other, parameter.grad, rtol=0, atol=float(largest) * 1e-5)
    ours, theirs = (m.eval().encode_documents(texts, max_tokens=40) for m in (packed, padded))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)
    packed.save(tmp_path)
    assert not BiEncoder.load(tmp_path, device="cpu").packs  # the same vectors, by any attention


@pytest.mark.parametrize("family", REFUSED)
def test_a_model_whose_texts_would_see_each_other_is_refused(families, family):
    with pytest.raises(ConfigError, match="attention=varlen"):
        BiEncoder.load(families / family, attention="varlen", device="cpu")


def test_what_varlen_cannot_do_is_refused(families):
    with pytest.raises(ConfigError, match="a reranker's head reads padded rows"):
        CrossEncoderModel.load(families / "bert", attention="varlen", fresh_head=True)
    model = BiEncoder.load(families / "bert", attention="varlen", dropout=0.1, device="cpu").train()
    with pytest.raises(ConfigError, match=r"no dropout of attention; model\.dropout=0"):
        model(placed(packed_rows([[2, 7, 3]]), CPU), "document")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_packed_pooling_is_that_of_padded_texts(pooling):
    lengths = [3, 1, 6]
    rows = [list(range(5, 5 + n)) for n in lengths]
    hidden = torch.randn(3, 6, 4)
    mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
    inputs = packed_rows(rows)
    assert inputs["edges"].tolist() == [0, 3, 4, 10] and int(inputs["longest"]) == 6
    assert inputs["positions"].tolist() == [[0, 1, 2, 0, 0, 1, 2, 3, 4, 5]]
    ours = pool_packed(hidden[mask], inputs, pooling)
    torch.testing.assert_close(ours, pool(hidden, mask.long(), pooling), rtol=0, atol=1e-6)


@given(lengths=st.lists(st.integers(1, 50), max_size=60), budget=st.integers(1, 200))
def test_packed_batches_are_full_and_hold_each_row_once(lengths, budget):
    lengths = np.asarray(lengths, np.int64)
    batches = list(packed_batches(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch, following in zip(batches, [*batches[1:], None]):
        assert len(batch) == 1 or lengths[batch].sum() <= budget
        if following is not None:
            assert lengths[batch].sum() + lengths[following[0]] > budget


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "qwen3"])
def test_the_mask_made_here_is_what_transformers_makes(families, family):
    model = BiEncoder.load(families / family, device="cpu")
    assert model._wide_mask
    inputs = model.pad(model.tokenize(zoo.TEXTS, "document"))
    expected = model(inputs, "document")
    mask = inputs["attention_mask"]
    wide = wide_mask(mask, family == "qwen3")
    extra = {}
    if model._give_positions:
        extra["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    hidden = model._hidden("document", input_ids=inputs["input_ids"], attention_mask=wide, **extra)
    ours = pool(hidden, mask, model.contract.pooling)
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-6)


def test_windows_and_heads_reach_torch_s_own_attention(monkeypatch):
    """What a GPU would be asked: torch's signature, with as many heads of keys as of queries."""
    calls = []

    def varlen_attn(query, key, value, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=None):
        calls.append((key.shape[1], max_q, window_size, scale, cu_q.tolist(), query.dtype))
        return query

    import torch.nn.attention.varlen as module

    monkeypatch.setattr(module, "varlen_attn", varlen_attn)
    q, k = torch.zeros(5, 4, 8, dtype=torch.bfloat16), torch.zeros(5, 2, 8, dtype=torch.bfloat16)
    edges = Edges(torch.tensor([0, 2, 5], dtype=torch.int32), 3)
    out = packed_attention._on_cuda(q, k, k, edges, edges, (-1, 0), 0.5)
    assert out.shape == q.shape
    assert calls == [(4, 3, (-1, 0), 0.5, [0, 2, 5], torch.bfloat16)]
    with pytest.raises(ConfigError, match="half precision"):
        packed_attention._on_cuda(q.float(), k.float(), k.float(), edges, edges, (-1, -1), None)


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({}, [2]),
        ({"query_instruction": "find: "}, [4]),  # queries, and documents with answers
        ({"towers": 2}, [2, 2]),
    ],
)
def test_roles_whose_texts_are_the_same_to_a_tower_are_tried_once(families, options, calls):
    """Each once padded and once packed."""
    model = BiEncoder.load(families / "bert", device="cpu", **options)
    counts = [0] * len(model.towers)

    def count(number: int) -> None:
        counts[number] += 1

    for number, tower in enumerate(model.towers):
        tower.register_forward_pre_hook(lambda *_, number=number: count(number))
    speed_up(model)
    assert counts == calls and model.packs
