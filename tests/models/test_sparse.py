"""Weights of terms: those of sentence-transformers' SparseEncoder, read, written and computed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch.nn import functional as F
from transformers import AutoModel

from raydist.errors import ArtifactError, ConfigError
from raydist.models import term_pooling
from raydist.models.biencoder import BiEncoder
from raydist.models.encode import encode_terms
from raydist.models.inference import load_encoder
from raydist.models.sparse_rows import SparseRows
from raydist.models.spec import EncoderSource
from raydist.models.term_pooling import TermDecoder, TermPooling
from tests.models.zoo import build

TEXTS = ["the vector of a query", "an index", "retrieval of documents by a model " * 9, "a", ""]


def their_vectors(model: SparseEncoder, role: str) -> np.ndarray:
    encode = model.encode_query if role == "query" else model.encode_document
    return encode(TEXTS).to_dense().numpy()


def our_vectors(model: BiEncoder, role: str) -> np.ndarray:
    return encode_terms(model, TEXTS, role).dense()


def assert_equal_both_ways(theirs: SparseEncoder, folder: Path, tmp_path: Path) -> BiEncoder:
    """Checks our vectors of their folder, and theirs of ours; returns the model read again."""
    theirs.save_pretrained(str(folder))
    ours = BiEncoder.load(folder, device="cpu")
    ours.save(tmp_path / "ours")
    again = BiEncoder.load(tmp_path / "ours", device="cpu")
    of_ours = SparseEncoder(str(tmp_path / "ours"), device="cpu")
    for role in ("query", "document"):
        expected = their_vectors(theirs, role)
        assert (expected > 0).any()
        for vectors in (
            our_vectors(ours, role),
            our_vectors(again, role),
            their_vectors(of_ours, role),
        ):
            np.testing.assert_allclose(vectors, expected, atol=2e-6)
    assert again.contract == ours.contract
    return again


@pytest.mark.parametrize(
    ("pooling", "activation"), [("max", "relu"), ("sum", "relu"), ("max", "log1p_relu")]
)
def test_vectors_are_sentence_transformers_both_ways(tiny_mlm, tmp_path, pooling, activation):
    transformer = Transformer(str(tiny_mlm), transformer_task="fill-mask")
    modules = [transformer, SpladePooling(pooling, activation_function=activation)]
    theirs = SparseEncoder(modules=modules, device="cpu")
    model = assert_equal_both_ways(theirs, tmp_path / "st", tmp_path)
    assert (model.contract.kind, model.contract.pooling) == ("sparse", pooling)
    assert model.head.blocks


@pytest.mark.parametrize("frozen", [False, True])
def test_a_table_of_queries_weights_is_read_and_written(tiny_mlm, tmp_path, frozen):
    transformer = Transformer(str(tiny_mlm), transformer_task="fill-mask", max_seq_length=20)
    weight = torch.rand(len(transformer.tokenizer.get_vocab()))
    table = SparseStaticEmbedding(transformer.tokenizer, weight=weight, frozen=frozen)
    router = Router.for_query_document([table], [transformer, SpladePooling("max")])
    theirs = SparseEncoder(modules=[router], device="cpu")
    model = assert_equal_both_ways(theirs, tmp_path / "st", tmp_path)
    assert model.contract.query_encoder == ("fixed" if frozen else "table")
    assert model.table.weight.requires_grad is not frozen
    assert not our_vectors(model, "query")[-1].any()  # an empty query has no terms


def test_the_heaviest_terms_are_kept_of_a_text(tiny_mlm, tmp_path):
    modules = [Transformer(str(tiny_mlm), transformer_task="fill-mask"), SpladePooling("max")]
    theirs = SparseEncoder(modules=modules, device="cpu", max_active_dims=7)
    model = assert_equal_both_ways(theirs, tmp_path / "st", tmp_path)
    assert np.diff(encode_terms(model, TEXTS, "document").offsets).max() == 7
    fewer = BiEncoder.load(tmp_path / "st", device="cpu", query_terms=3)
    assert np.diff(encode_terms(fewer, TEXTS, "query").offsets).max() == 3
    assert np.diff(encode_terms(fewer, TEXTS, "document").offsets).max() == 7
    fewer.train()  # a term that is not among the heaviest would never learn
    assert (fewer(fewer.pad(fewer.tokenize(TEXTS, "query")), "query") > 0).sum(1).max() > 7


@pytest.mark.parametrize("family", ["distilbert", "roberta", "modernbert", "qwen3", "gemma2"])
def test_language_models_of_other_families_pool_their_logits(tmp_path, family):
    build((family,), tmp_path)
    model = BiEncoder.load(tmp_path / family, kind="sparse", fresh_head=True, device="cpu")
    assert model.head.blocks is (family != "gemma2")  # whose logits are capped
    model.save(tmp_path / "m")
    theirs = SparseEncoder(str(tmp_path / "m"), device="cpu")
    ours = load_encoder(EncoderSource(path=str(tmp_path / "m")), device="cpu")
    for role in ("query", "document"):
        expected = their_vectors(theirs, role)[:4]  # of an empty text a decoder reads nothing
        scale = max(1.0, float(expected.max()))
        np.testing.assert_allclose(our_vectors(model, role)[:4], expected, atol=2e-6 * scale)
        np.testing.assert_allclose(our_vectors(ours, role)[:4], expected, atol=2e-5 * scale)


@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("saturation", ["log1p", "log1p_twice"])
@pytest.mark.parametrize("bias", [True, False])
def test_blocks_of_logits_have_the_weights_and_gradients_of_all_of_them(
    monkeypatch, pooling, saturation, bias
):
    torch.manual_seed(0)
    decoder = torch.nn.Linear(8, 37, bias=bias, dtype=torch.float64)
    hidden = torch.randn(5, 6, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(6) < torch.tensor([6, 1, 3, 5, 2])[:, None]
    spec = TermPooling(pooling, saturation)
    gradient = torch.randn(5, 37, dtype=torch.float64)
    logits = decoder(hidden).clamp(min=0).log1p()
    weights = (logits.log1p() if saturation == "log1p_twice" else logits) * mask[:, :, None]
    expected = weights.max(1).values if pooling == "max" else weights.sum(1)
    inputs = (hidden, *decoder.parameters())
    wanted = torch.autograd.grad(expected, inputs, gradient)
    monkeypatch.setattr(term_pooling, "BLOCK_LOGITS", 5 * 6 * 10)  # ten terms at a time
    decoder.__class__ = TermDecoder
    values = decoder(hidden, spec, mask)
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)
    for own, theirs in zip(torch.autograd.grad(values, inputs, gradient), wanted, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        spec.of_logits(F.linear(hidden, *list(decoder.parameters())), mask), expected
    )


def test_a_gradient_is_the_same_without_sparse_matrices():
    torch.manual_seed(0)
    slope = torch.randn(4, 9).relu()
    at = torch.randint(0, 6, (4, 9), dtype=torch.int16)
    by_token, by_term = term_pooling._at_positions(slope, at, 6)
    dense = torch.zeros(4 * 6, 9)
    for row in range(4):
        for term in range(9):
            dense[row * 6 + at[row, term], term] = slope[row, term]
    torch.testing.assert_close(by_token.to_dense(), dense)
    torch.testing.assert_close(by_term.to_dense(), dense.T)
    on_device = term_pooling._dense_positions(slope, at.long() + 6 * torch.arange(4)[:, None], 24)
    torch.testing.assert_close(on_device, dense)


def test_rows_are_those_of_a_matrix_in_any_order():
    torch.manual_seed(0)
    matrix = torch.randn(6, 11).relu()
    matrix[2] = 0
    rows = SparseRows.of_dense(matrix)
    np.testing.assert_array_equal(rows.dense(), matrix)
    order = np.array([5, 2, 0])
    np.testing.assert_array_equal(rows.take(order).dense(), matrix[order])
    both = SparseRows.joined([rows.take(order), rows], 11)
    np.testing.assert_array_equal(both.dense(), np.concatenate([matrix[order], matrix]))
    assert [len(rows), len(rows[2][0])] == [6, 0]
    assert all((np.diff(rows[row][0]) > 0).all() for row in range(6))


def test_packed_texts_have_the_weights_of_padded_ones(tiny_mlm):
    padded = BiEncoder.load(tiny_mlm, kind="sparse", device="cpu")
    packed = BiEncoder.load(tiny_mlm, kind="sparse", attention="varlen", query_encoder="table")
    assert packed.packs
    np.testing.assert_allclose(
        our_vectors(packed, "document"), our_vectors(padded, "document"), atol=2e-6
    )
    table = BiEncoder.load(tiny_mlm, kind="sparse", query_encoder="table")
    np.testing.assert_array_equal(our_vectors(packed, "query"), our_vectors(table, "query"))


def test_a_new_table_starts_from_a_file_of_weights(tiny_mlm, tmp_path):
    (tmp_path / "idf.json").write_text(json.dumps({"query": 2.5, "index": 0.5}))
    file = str(tmp_path / "idf.json")
    model = BiEncoder.load(tiny_mlm, kind="sparse", query_encoder="fixed", query_weights=file)
    vocabulary = model.tokenizer.get_vocab()
    weights = our_vectors(model, "query")
    assert weights[0][vocabulary["query"]] == 2.5
    assert (weights[0] > 0).sum() == 1
    assert weights[1][vocabulary["index"]] == 0.5
    (tmp_path / "idf.json").write_text(json.dumps({"kein-wort": 1.0}))
    with pytest.raises(ConfigError, match="1 tokens that the model's vocabulary lacks"):
        BiEncoder.load(tiny_mlm, kind="sparse", query_encoder="fixed", query_weights=file)


def test_a_head_that_is_missing_is_drawn_only_to_be_trained(tiny_bert, capsys):
    with pytest.raises(ArtifactError, match=r"has no language-model head .*train one"):
        BiEncoder.load(tiny_bert, kind="sparse")
    BiEncoder.load(tiny_bert, kind="sparse", fresh_head=True, seed=1)
    message = capsys.readouterr().err
    assert "starts from likeness to the embeddings, to be trained: cls.predictions" in message


def test_a_fresh_head_weighs_the_terms_whose_embeddings_are_like_a_token_s_vector(tiny_bert):
    sparse = BiEncoder.load(tiny_bert, kind="sparse", fresh_head=True, document_max_length=40)
    tower, tokenizer = AutoModel.from_pretrained(tiny_bert).eval(), sparse.tokenizer
    embeddings_VH = tower.get_input_embeddings().weight.detach().double()
    with torch.inference_mode():
        hidden_TH = tower(**tokenizer(TEXTS[:1], return_tensors="pt")).last_hidden_state[0].double()
    inner_TH = F.layer_norm(F.gelu(hidden_TH), hidden_TH.shape[1:], eps=1e-12)
    logits_TV = inner_TH @ embeddings_VH.T
    quarter = 0.25 * hidden_TH.shape[1] ** 0.5 * embeddings_VH.norm(dim=1).mean()
    excess_V = (logits_TV.amax(0) - quarter).clamp(min=0)
    np.testing.assert_allclose(our_vectors(sparse, "document")[0], excess_V.log1p(), atol=1e-4)
    assert 0 < (excess_V > 0).sum() < len(excess_V)


def test_a_model_of_one_vector_becomes_one_of_terms_with_its_lengths(tiny_bert, tmp_path):
    dense = BiEncoder.load(tiny_bert, pooling="mean", normalize=True, document_max_length=40)
    dense.save(tmp_path / "m")
    with pytest.raises(ConfigError, match=r"model.kind='sparse' but 'biencoder'"):
        BiEncoder.load(tmp_path / "m", kind="sparse", fresh_head=True)
    (tmp_path / "m" / "raydist.json").unlink()
    sparse = BiEncoder.load(tmp_path / "m", kind="sparse", fresh_head=True)
    contract = sparse.contract
    assert (contract.pooling, contract.normalize, contract.document_max_length) == (
        "max",
        False,
        40,
    )


def test_what_does_not_go_with_weights_of_terms_is_named(tiny_mlm, tiny_bert, tmp_path):
    for options, message in [
        ({"pooling": "mean"}, "model.pooling=mean: weights of terms .* take max or sum"),
        ({"dimensions": (8,)}, "have no prefixes"),
        ({"truncate": 8}, "have no prefixes"),
        ({"query_encoder": "table", "towers": 2}, "there is one transformer"),
        ({"query_weights": "idf.json"}, "query_weights: a new table starts from them"),
    ]:
        with pytest.raises(ConfigError, match=message):
            BiEncoder.load(tiny_mlm, kind="sparse", **options)
    with pytest.raises(ConfigError, match="query_encoder: is for sparse models"):
        BiEncoder.load(tiny_bert, query_encoder="table")
    with pytest.raises(ConfigError, match="pooling=sum: adds weights of terms"):
        BiEncoder.load(tiny_bert, pooling="sum")


def test_vocabularies_that_differ_between_queries_and_documents_are_named(tiny_mlm, tmp_path):
    BiEncoder.load(tiny_mlm, kind="sparse", query_encoder="table").save(tmp_path / "m")
    place = tmp_path / "m" / "query_0_SparseStaticEmbedding" / "tokenizer.json"
    record = json.loads(place.read_text())
    vocabulary = record["model"]["vocab"]
    vocabulary["strange"] = vocabulary.pop(next(reversed(vocabulary)))
    place.write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="different tokenizers"):
        BiEncoder.load(tmp_path / "m")
