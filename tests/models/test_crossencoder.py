"""Cross-encoders against sentence-transformers' CrossEncoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from raydist.errors import ArtifactError, ConfigError
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.spec import Lora

QUERIES = ["the query", "a model", "", "a score of the index " * 30]
DOCUMENTS = ["document " * 90, "", "the passage", "the corpus of an answer " * 30]


def logits(model: CrossEncoderModel) -> np.ndarray:
    with torch.no_grad():
        return model(model.pad(model.tokenize(QUERIES, DOCUMENTS))).numpy()


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_qwen"])
def test_a_saved_folder_gives_equal_scores_there_and_here(request, tmp_path, kind):
    start = request.getfixturevalue(kind)
    model = CrossEncoderModel.load(start, fresh_head=True, max_length=40, device="cpu")
    assert model.contract.padding_side == {"tiny_bert": "right", "tiny_qwen": "left"}[kind]
    model.save(tmp_path / "ce")
    again = CrossEncoderModel.load(tmp_path / "ce", device="cpu")
    assert again.contract == model.contract and again.contract.activation == "identity"
    reference = CrossEncoder(str(tmp_path / "ce"), device="cpu")
    scores = reference.predict(list(zip(QUERIES, DOCUMENTS)))
    assert np.array_equal(logits(again), logits(model))
    assert np.abs(scores - logits(again)).max() < 1e-5


def test_a_folder_of_sentence_transformers_scores_alike(tiny_bert, tmp_path):
    reference = CrossEncoder(str(tiny_bert), num_labels=1, device="cpu")
    reference.save(str(tmp_path / "st"))
    model = CrossEncoderModel.load(tmp_path / "st", device="cpu")
    assert model.contract.activation == "sigmoid"
    scores = reference.predict(list(zip(QUERIES, DOCUMENTS)))
    assert np.abs(scores - 1 / (1 + np.exp(-logits(model)))).max() < 1e-5


def test_the_query_cap_leaves_room_for_the_document(tiny_bert):
    model = CrossEncoderModel.load(
        tiny_bert, fresh_head=True, max_length=24, query_max_length=5, device="cpu"
    )
    pair = model.tokenize([QUERIES[3]], [DOCUMENTS[3]])[0]
    assert len(pair) == 24
    assert pair.boundary == 1 + 5 + 1  # [CLS] query [SEP]
    plain = CrossEncoderModel.load(tiny_bert, fresh_head=True, max_length=24, device="cpu")
    short = plain.tokenize(["the query"], [DOCUMENTS[3]])
    assert model.tokenize(["the query"], [DOCUMENTS[3]]) == short


def test_a_random_head_is_drawn_only_on_request_and_from_its_seed(tiny_bert):
    with pytest.raises(ArtifactError, match="has no scoring head"):
        CrossEncoderModel.load(tiny_bert)
    first, same, other = (
        CrossEncoderModel.load(tiny_bert, fresh_head=True, seed=seed, device="cpu")
        for seed in (1, 1, 2)
    )
    assert np.array_equal(logits(first), logits(same))
    assert not np.allclose(logits(first), logits(other))


def test_a_contradiction_is_refused(tiny_bert, tmp_path):
    CrossEncoderModel.load(tiny_bert, fresh_head=True, max_length=40, device="cpu").save(tmp_path)
    with pytest.raises(ConfigError, match=r"document_max_length=48 but 40 in the checkpoint"):
        CrossEncoderModel.load(tmp_path, max_length=48)
    with pytest.raises(ConfigError, match=r"model\.max_length=65: expected 5 to 64"):
        CrossEncoderModel.load(tmp_path, max_length=65, replace_contract=True)
    with pytest.raises(ArtifactError, match="holds a crossencoder"):
        BiEncoder.load(tmp_path)


def test_an_encoder_is_not_padded_where_its_head_reads(tiny_bert):
    with pytest.raises(ConfigError, match="padding_side=left: expected right for bert"):
        CrossEncoderModel.load(tiny_bert, fresh_head=True, padding_side="left")


def test_a_bi_encoder_is_a_starting_point(tiny_bert, tmp_path):
    BiEncoder.load(tiny_bert, pooling="mean", device="cpu").save(tmp_path)
    assert CrossEncoderModel.load(tmp_path, fresh_head=True).contract.kind == "crossencoder"


def test_lora_trains_the_head_and_saves_merged(tiny_bert, tmp_path):
    model = CrossEncoderModel.load(tiny_bert, fresh_head=True, lora=Lora(r=4), device="cpu")
    assert any("classifier" in n for n, p in model.named_parameters() if p.requires_grad)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.save(tmp_path)
    merged = CrossEncoderModel.load(tmp_path, device="cpu")
    assert np.abs(logits(merged) - logits(model)).max() < 1e-5
