"""Folders that sentence-transformers writes: the same vectors and scores here, or a refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sentence_transformer.modules import Pooling

from raydist.errors import ArtifactError
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.reranking.cross_encoder import CrossEncoder as Reranker
from raydist.reranking.qwen3 import Qwen3Reranker
from raydist.reranking.spec import CrossEncoderSpec, Qwen3Spec

TEXTS = ["the vector of a query", "an index", "retrieval of documents by a model " * 9, "a"]


def written(folder: Path, *modules, **options) -> SentenceTransformer:
    torch.manual_seed(1)
    model = SentenceTransformer(modules=list(modules), device="cpu", **options)
    model.save(str(folder))
    return model


def worst(a, b) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


def rewrite(path: Path, **values: object) -> None:
    record = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(record | values))


@pytest.mark.parametrize("mode", ["max", "weightedmean", "mean_sqrt_len_tokens", "lasttoken"])
def test_a_pooling_is_honoured_and_saved(tiny_bert, tmp_path, mode):
    theirs = written(tmp_path / "st", Transformer(str(tiny_bert)), Pooling(32, mode))
    model = BiEncoder.load(tmp_path / "st", device="cpu")
    assert worst(model.encode_documents(TEXTS), theirs.encode(TEXTS)) < 2e-6
    model.save(tmp_path / "m")
    again = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    assert worst(again.encode(TEXTS), theirs.encode(TEXTS)) < 2e-6


def test_projections_and_their_dimensions_are_honoured_and_saved(tiny_bert, tmp_path):
    modules = (Dense(32, 48, activation_function=None), Dense(48, 8), Normalize())
    theirs = written(tmp_path / "st", Transformer(str(tiny_bert)), Pooling(32), *modules)
    model = BiEncoder.load(tmp_path / "st", device="cpu")
    assert model.dimension == 8
    assert worst(model.encode_documents(TEXTS), theirs.encode(TEXTS)) < 2e-6
    model.save(tmp_path / "m")
    again = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    assert worst(again.encode(TEXTS), theirs.encode(TEXTS)) < 2e-6
    assert worst(BiEncoder.load(tmp_path / "m").encode_queries(TEXTS), theirs.encode(TEXTS)) < 2e-6


def test_truncated_vectors_are_as_short_here(tiny_bert, tmp_path):
    parts = (Transformer(str(tiny_bert)), Pooling(32))
    theirs = written(tmp_path / "st", *parts, truncate_dim=8)
    model = BiEncoder.load(tmp_path / "st", device="cpu")
    assert worst(model.encode_documents(TEXTS), theirs.encode(TEXTS)) < 2e-6
    written(tmp_path / "unit", *parts, Normalize(), truncate_dim=8)
    with pytest.raises(ArtifactError, match="truncate_dim=8 after a Normalize module"):
        BiEncoder.load(tmp_path / "unit")


def test_a_passage_s_prompt_is_a_document_s(tiny_bert, tmp_path):
    prompts = {"query": "query: ", "passage": "passage: "}
    theirs = written(tmp_path, Transformer(str(tiny_bert)), Pooling(32), prompts=prompts)
    model = BiEncoder.load(tmp_path, device="cpu")
    expected = theirs.encode(TEXTS, prompt_name="passage")
    assert worst(model.encode_documents(TEXTS), expected) < 2e-6
    assert worst(model.encode_queries(TEXTS), theirs.encode_query(TEXTS)) < 2e-6


def test_a_router_s_normalisation_is_honoured(tiny_bert, tmp_path):
    def route(*more):
        return [Transformer(str(tiny_bert)), Pooling(32), *more]

    both = Router.for_query_document(
        query_modules=route(Normalize()), document_modules=route(Normalize())
    )
    theirs = written(tmp_path / "st", both)
    model = BiEncoder.load(tmp_path / "st", device="cpu")
    assert model.contract.normalize
    assert worst(model.encode_queries(TEXTS), theirs.encode_query(TEXTS)) < 2e-6
    one = Router.for_query_document(query_modules=route(), document_modules=route(Normalize()))
    written(tmp_path / "one", one)
    with pytest.raises(ArtifactError, match="differ in more than the transformer"):
        BiEncoder.load(tmp_path / "one")


def test_modules_at_another_place_and_other_kinds_of_model_are_refused(tiny_bert, tmp_path):
    parts = (Transformer(str(tiny_bert)), Pooling(32))
    written(tmp_path / "a", *parts, Normalize(), Dense(32, 8))
    with pytest.raises(ArtifactError, match="a module Dense is not supported at its place"):
        BiEncoder.load(tmp_path / "a")
    written(tmp_path / "b", *parts)
    rewrite(tmp_path / "b/config_sentence_transformers.json", model_type="MultiVectorEncoder")
    with pytest.raises(ArtifactError, match="modules Transformer, Pooling are not supported"):
        BiEncoder.load(tmp_path / "b")
    rewrite(tmp_path / "b/config_sentence_transformers.json", model_type="CrossEncoder")
    with pytest.raises(ArtifactError, match="is a CrossEncoder, expected one of"):
        BiEncoder.load(tmp_path / "b")
    written(tmp_path / "c", parts[0], Pooling(32, include_prompt=False))
    with pytest.raises(ArtifactError, match="include_prompt=false"):
        BiEncoder.load(tmp_path / "c")


def test_a_cross_encoder_s_prompt_is_put_before_queries(tiny_bert, tmp_path):
    theirs = CrossEncoder(
        str(tiny_bert),
        device="cpu",
        num_labels=1,
        max_length=40,
        prompts={"q": "retrieval query "},
        default_prompt_name="q",
    )
    torch.manual_seed(2)
    torch.nn.init.normal_(theirs[0].auto_model.classifier.weight)
    theirs.save(str(tmp_path / "st"))
    pairs = [(TEXTS[0], text) for text in TEXTS]
    expected = theirs.predict(pairs)
    reranker = Reranker(CrossEncoderSpec(model=str(tmp_path / "st"), max_length=40, device="cpu"))
    assert worst(reranker.score([(TEXTS[0], TEXTS)])[0], expected) < 2e-6
    CrossEncoderModel.load(tmp_path / "st", max_length=40, device="cpu").save(tmp_path / "m")
    again = CrossEncoder(str(tmp_path / "m"), device="cpu")
    assert worst(again.predict(pairs), expected) < 2e-6


def test_a_language_model_that_answers_another_prompt_is_refused_by_name(tiny_qwen, tmp_path):
    module = Transformer(str(tiny_qwen), transformer_task="text-generation")
    CrossEncoder(modules=[module, LogitScore(5, 6)], device="cpu").save(str(tmp_path))
    with pytest.raises(ArtifactError, match="without a chat template"):
        Qwen3Reranker(Qwen3Spec(model=str(tmp_path), max_length=100, device="cpu"))
    with pytest.raises(ArtifactError, match="a module LogitScore"):
        CrossEncoderModel.load(tmp_path)
    with pytest.raises(ArtifactError, match="is a CrossEncoder"):
        BiEncoder.load(tmp_path)
