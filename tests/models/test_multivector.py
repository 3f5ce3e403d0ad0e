"""Multi-vector models against sentence-transformers' MultiVectorEncoder."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

from raydist.errors import ArtifactError, ConfigError
from raydist.models.biencoder import BiEncoder
from raydist.models.folders.sentence_transformers import CONFIG, TOWER
from tests.models.pylate_weights import DOCUMENTS as DOCUMENTS_OF_PYLATE
from tests.models.pylate_weights import QUERIES as QUERIES_OF_PYLATE
from tests.models.pylate_weights import RECORDED, restored

DEFAULTS = ("use_residual", "__version__")
QUERIES = ["the model of a query", "vector", "an answer, a score and the index of a corpus " * 3]
DOCUMENTS = ["a passage, said the index.", "corpus", "the document of a vector is not " * 9]


def other(folder: Path) -> MultiVectorEncoder:
    return MultiVectorEncoder(str(folder), device="cpu")


def assert_same(model: BiEncoder, reference: MultiVectorEncoder) -> None:
    pairs = [
        (model.encode_queries(QUERIES), reference.encode_query(QUERIES)),
        (model.encode_documents(DOCUMENTS), reference.encode_document(DOCUMENTS)),
    ]
    for own, expected in pairs:
        assert [len(each) for each in own] == [len(each) for each in expected]
        for a, b in zip(own, expected):
            np.testing.assert_allclose(a, np.asarray(b), atol=2e-6)


def fresh(base: Path, **settings: Any) -> BiEncoder:
    return BiEncoder.load(base, kind="multivector", device="cpu", **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"expansion_attends": True},
        {"expansion": 0, "skip": "nothing", "projection": 16, "query_max_length": 20},
        {"expansion": 8, "query_max_length": 40, "query_instruction": "query: "},
        {"token_pooling": 2.0, "document_instruction": "the "},
    ],
)
def test_a_saved_model_gives_the_same_vectors_there_and_here(
    tiny_bert: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    model = fresh(tiny_bert, **settings)
    assert model.dimension == settings.get("projection", 128)
    model.save(tmp_path / "m")
    reference = other(tmp_path / "m")
    assert_same(model, reference)
    again = BiEncoder.load(tmp_path / "m", device="cpu")
    assert again.contract == model.contract
    assert_same(again, reference)


@pytest.mark.parametrize("strategy", ["fixed", "min", None])
def test_a_folder_from_there_is_read_to_the_same_vectors(
    tiny_bert: Path, tmp_path: Path, strategy: str | None
) -> None:
    torch.manual_seed(0)
    reference = other(tiny_bert)
    if strategy:
        reference[0].query_expansion = {"strategy": strategy, "attend": False, "length": 12}
        reference[0].document_length = 30
        reference[2].skiplist_words = list(string.punctuation)
        reference[2].resolve_with_tokenizer(reference.tokenizer)
    if strategy == "min":
        reference.append(HierarchicalTokenPooling(1.5, num_protected_tokens=2))
        reference.prompts = {"query": "the ", "document": "a "}
    reference.save(str(tmp_path / "m"))
    assert_same(BiEncoder.load(tmp_path / "m", device="cpu"), other(tmp_path / "m"))


def test_punctuation_has_no_vector_in_documents_but_in_queries(tiny_bert: Path) -> None:
    model = fresh(tiny_bert, expansion=0)
    plain, marked = model.encode_documents(["the index said", "the, index, said"])
    assert len(plain) == len(marked)
    plain, marked = model.encode_queries(["the index said", "the, index, said"])
    assert len(marked) == len(plain) + 2
    for vectors in model.encode_documents(DOCUMENTS):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_a_bi_encoder_gives_its_transformer_and_a_fresh_projection(
    tiny_bert: Path, tmp_path: Path
) -> None:
    BiEncoder.load(tiny_bert, pooling="mean", normalize=True, device="cpu").save(tmp_path / "one")
    model = fresh(tmp_path / "one", seed=3)
    same = fresh(tmp_path / "one", seed=3)
    another = fresh(tmp_path / "one", seed=4)
    weights = [each.projections[0].linear.weight for each in (model, same, another)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert model.contract.kind == "multivector" and model.contract.normalize
    own = weights[0].detach()
    torch.testing.assert_close(own.T @ own, torch.eye(32))  # wider than its input: angles stay
    narrow = fresh(tmp_path / "one", projection=16).projections[0].linear.weight.detach()
    torch.testing.assert_close(narrow @ narrow.T, torch.eye(16))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "mean"}, "model.pooling=mean"),
        ({"towers": 2}, "model.towers=2"),
        ({"expansion": 40, "query_max_length": 10}, "model.expansion=40"),
        ({"document_max_length": 4000}, "model.document_max_length=4000"),
    ],
)
def test_what_does_not_fit_is_named(
    tiny_bert: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fresh(tiny_bert, **settings)


def test_options_of_multi_vector_models_are_refused_for_others(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.expansion=8: is for multi-vector models"):
        BiEncoder.load(tiny_bert, expansion=8, device="cpu")


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        ("config_sentence_transformers.json", {"similarity_fn_name": "meanmaxsim"}, "meanmaxsim"),
        ("2_MultiVectorMask/config.json", {"keep_only_token_ids": [5]}, "keep_only_token_ids"),
        ("2_MultiVectorMask/config.json", {"skiplist_tasks": ["query"]}, "skiplist_tasks"),
    ],
)
def test_settings_that_would_be_got_wrong_are_refused(
    tiny_bert: Path, tmp_path: Path, name: str, record: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "m"
    fresh(tiny_bert).save(folder)
    (folder / "raydist.json").unlink()
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | record))
    with pytest.raises(ArtifactError, match=message):
        BiEncoder.load(folder, device="cpu")


def test_a_folder_of_pylate_has_the_scores_that_pylate_gave(tmp_path: Path) -> None:
    folder = restored(tmp_path / "m")
    model = BiEncoder.load(folder, device="cpu")
    expected = json.loads((RECORDED / "scores.json").read_text())
    documents = model.encode_documents(DOCUMENTS_OF_PYLATE)
    for query, row in zip(model.encode_queries(QUERIES_OF_PYLATE), expected):
        scores = [float((query @ each.T).max(1).sum()) for each in documents]
        assert scores == pytest.approx(row, abs=1e-5)
    model.save(tmp_path / "again")
    reference = other(tmp_path / "again")
    scores = reference.similarity(
        reference.encode_query(list(QUERIES_OF_PYLATE)),
        reference.encode_document(list(DOCUMENTS_OF_PYLATE)),
    )
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_folder_for_pylate_is_as_pylate_writes_it(tmp_path: Path) -> None:
    model = BiEncoder.load(restored(tmp_path / "m"), device="cpu")
    model.save(tmp_path / "again", layout="pylate")
    for path in sorted(RECORDED.rglob("*.json")):
        name = str(path.relative_to(RECORDED))
        if name.rpartition("/")[2] in ("modules.json", TOWER, CONFIG) or "Dense" in name:
            expected = json.loads(path.read_text())
            if isinstance(expected, dict):
                expected = {k: v for k, v in expected.items() if k not in DEFAULTS}
            if "skiplist_words" in expected:  # PyLate reads unknown words as the unknown token
                known = set(json.loads((RECORDED / "tokenizer.json").read_text())["model"]["vocab"])
                words = [word for word in expected["skiplist_words"] if word in known]
                expected["skiplist_words"] = [*words, "[UNK]"]
            if name == TOWER:
                expected["max_seq_length"] = 20  # PyLate sets it with every batch
            assert json.loads((tmp_path / "again" / name).read_text()) == expected, name
    (tmp_path / "again/raydist.json").unlink()
    again = BiEncoder.load(tmp_path / "again", device="cpu")
    for own, same in zip(
        model.encode_documents(DOCUMENTS_OF_PYLATE), again.encode_documents(DOCUMENTS_OF_PYLATE)
    ):
        np.testing.assert_array_equal(own, same)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"expansion": 8}, "model.expansion=8 is neither 0 nor query_max_length=32"),
        ({"query_instruction": "query: "}, "model.query_instruction='query: ' is not one token"),
        ({"token_pooling": 2.0}, "model.token_pooling=2 is an argument there"),
    ],
)
def test_what_pylate_cannot_load_is_named(
    tiny_bert: Path, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    model = fresh(tiny_bert, **({"query_max_length": 32} | settings))
    with pytest.raises(ConfigError, match=f"layout=pylate: .*{re.escape(reason)}"):
        model.save(tmp_path / "m", layout="pylate")
