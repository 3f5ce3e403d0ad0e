"""Sparse models: trained, validated, distilled and exported by the lines that any model takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SparseEncoder

from raydist.cli import main
from raydist.models.biencoder import BiEncoder
from tests.commands.training.runs import VALIDATION, metrics
from tests.training.small import texts

FLOPS = ["loss.flops.document=0.001", "loss.flops.query=0.005"]
REPLACE = ["model.replace_contract=true"]


def train(model: Path | str, out: str, *words: str) -> list[str]:
    command = ["train", "data=train.jsonl", f"model={model}", f"out={out}", "tracking=none"]
    return [*command, "log_every=1", "batch_size=4", "distill=none", *words]


def test_a_sparse_model_is_trained_validated_continued_and_exported(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model.kind=sparse", "steps=4", "cache=2", *FLOPS, *VALIDATION]
    assert main(train(model, "S", *words)) == 0
    assert "likeness to the embeddings, to be trained: cls.predictions" in capsys.readouterr().err
    lines = metrics("S")
    for name in ("terms_query", "terms_document", "loss/flops_query", "loss/flops_document"):
        assert all(line[name] > 0 for line in lines if "loss" in line)
    first = next(line for line in lines if "loss" in line)
    assert first["loss"] == pytest.approx(first["loss/infonce"])  # the ramp begins at 0
    assert json.loads(Path("S/config.json").read_text())["loss"]["temperature"] == 1
    assert main(["export", "checkpoint=S", "out=HFS"]) == 0
    ours = BiEncoder.load("S", device="cpu")
    theirs = SparseEncoder("HFS", device="cpu")
    assert ours.contract.kind == "sparse"
    for own, other in (
        (ours.encode_queries(texts()), theirs.encode_query(texts())),
        (ours.encode_documents(texts()), theirs.encode_document(texts())),
    ):
        np.testing.assert_allclose(own, other.to_dense().numpy(), atol=2e-6)
    assert "SparseEncoder('HFS')" in Path("HFS/README.md").read_text()
    # The folder says what it is; queries get a table.
    assert main(train("HFS", "T", "steps=2", "model.query_encoder=table", *REPLACE, *FLOPS)) == 0
    assert BiEncoder.load("T", device="cpu").table is not None
    assert main(["export", "checkpoint=T", "out=HFT"]) == 0
    ours, theirs = BiEncoder.load("HFT", device="cpu"), SparseEncoder("HFT", device="cpu")
    queries = theirs.encode_query(texts()).to_dense().numpy()
    np.testing.assert_allclose(ours.encode_queries(texts()), queries, atol=2e-6)


def test_what_is_for_sparse_models_is_named_before_work(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train(model, "V", "steps=1", *FLOPS)) == 2
    assert "loss.flops: is for sparse models; set model.kind=sparse" in capsys.readouterr().err
    assert main(train(model, "V", "steps=1", "model.query_terms=3")) == 2
    assert "model.query_terms: is for sparse models" in capsys.readouterr().err


def test_other_vocabularies_are_named_before_work(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of a file of weights, and of a folder whose two sides differ."""
    Path("foreign.json").write_text('{"no-such-token": 1.0}')
    table = ["model.kind=sparse", "model.query_encoder=table", "loss.temperature=1", "--dry-run"]
    assert main(train(model, "V", "steps=1", *table, "model.query_weights=foreign.json")) == 2
    assert "tokens that the model's vocabulary lacks" in capsys.readouterr().err
    BiEncoder.load(model, kind="sparse", query_encoder="table", fresh_head=True).save("two")
    place = Path("two/query_0_SparseStaticEmbedding/tokenizer.json")
    record = json.loads(place.read_text())
    vocabulary = record["model"]["vocab"]
    vocabulary["strange"] = vocabulary.pop(next(reversed(vocabulary)))
    place.write_text(json.dumps(record))
    assert main(train("two", "V", "steps=1", "--dry-run")) == 2
    assert "queries and documents would have other vocabularies" in capsys.readouterr().err
