"""What else a folder may hold: equal to transformers written out, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from raydist.errors import ConfigError
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.spec import Lora
from tests.models.further_zoo import build_further
from tests.models.zoo import TEXTS, transformer, vectors

NAMES = (
    *("bert_decoder", "canine", "clip_text", "ctrl", "funnel", "jamba", "mobilebert", "nemotron"),
    *("opt", "perceiver", "phimoe", "recurrent_gemma"),
)


@pytest.fixture(scope="module")
def families(families: Path) -> Path:
    return build_further(NAMES, families)


def worst(a, b) -> float:
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("canine", "canine does not take a short text"),
        ("funnel", "funnel gives a text another output in another batch"),
        ("perceiver", "the configuration of perceiver has no hidden_size"),
        ("recurrent_gemma", "recurrent_gemma keeps recurrent_states of a text for the next one"),
    ],
)
def test_models_that_a_trial_shows_to_be_of_no_use_are_refused(families, family, message):
    with pytest.raises(ConfigError, match=message):
        BiEncoder.load(families / family, device="cpu")


def test_a_model_of_anything_is_no_reranker(families):
    with pytest.raises(ConfigError, match="the configuration of perceiver has no hidden_size"):
        CrossEncoderModel.load(families / "perceiver", fresh_head=True, device="cpu")


def test_a_head_on_the_first_token_of_a_causal_model_is_refused(families):
    with pytest.raises(ConfigError, match="bert gives different texts one output"):
        CrossEncoderModel.load(families / "bert_decoder", fresh_head=True, device="cpu")


def test_a_padding_row_that_is_read_stays_0_and_gets_no_gradient(families):
    """MobileBERT reads each token's neighbours: the last one's is padding."""
    model = BiEncoder.load(families / "mobilebert", dropout=0.0, device="cpu").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    inputs = model.pad(model.tokenize(TEXTS, "document"))
    (model(inputs, "document") @ torch.linspace(-1, 1, 32)).sum().backward()
    table = model.towers[0].embeddings.word_embeddings
    assert not table.weight.grad[0].any() and table.weight.grad[1:].any()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        together = model(inputs, "document")
        alone = [model(model.pad(model.tokenize([text], "document")), "document") for text in TEXTS]
    assert worst(together, torch.cat(alone)) < 1e-6
    bert = BiEncoder.load(families / "bert", device="cpu")
    assert bert.towers[0].embeddings.word_embeddings.padding_idx is None


def test_clip_s_model_of_texts_is_causal(families):
    folder = families / "clip_text"
    assert BiEncoder.load(folder, device="cpu").contract.pooling == "last_token"
    with pytest.raises(ConfigError, match=r"model\.pooling=cls: the first token of clip_text_mode"):
        BiEncoder.load(folder, pooling="cls")


def test_a_base_becomes_a_reranker_whatever_its_tensors_are_below(families):
    model = CrossEncoderModel.load(families / "opt", fresh_head=True, device="cpu")
    expected = transformer(families / "opt").decoder.embed_tokens.weight
    assert torch.equal(model.transformer.model.decoder.embed_tokens.weight, expected)


@pytest.mark.parametrize("family", ["phimoe", "jamba", "clip_text"])
def test_adapters_that_are_merged_do_what_they_did(families, tmp_path, family):
    model = BiEncoder.load(families / family, lora=Lora(r=2), device="cpu")
    before = model.encode_documents(TEXTS)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    after = model.encode_documents(TEXTS)
    model.merged().save(tmp_path)
    assert worst(before, after) > 0.1
    assert worst(BiEncoder.load(tmp_path, device="cpu").encode_documents(TEXTS), after) < 1e-5


def test_positions_that_follow_from_padding_are_not_left_to_others(families, tmp_path):
    model = BiEncoder.load(families / "ctrl", device="cpu")  # has sines, not a table
    model.save(tmp_path)
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(list(TEXTS))
    assert worst(theirs, model.encode_documents(TEXTS)) < 2e-6


def test_a_batch_changes_a_vector_by_rounding_alone(families):
    folder = families / "nemotron"  # squares its activations, so its vectors are large
    for dtype, bound in (("float32", 5e-6), ("float64", 1e-12)):
        model = BiEncoder.load(folder, dtype=dtype, device="cpu")
        plain = transformer(folder).to(getattr(torch, dtype))
        with torch.no_grad():
            expected = vectors(plain, folder, TEXTS, "last_token")
            rows = model.tokenize(TEXTS, "document")
            alone = torch.cat([model(model.pad([row]), "document") for row in rows])
            assert worst(alone, expected) == 0
            assert worst(model(model.pad(rows), "document"), expected) < bound
