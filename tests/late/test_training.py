"""Training by the verbs: what comes out is loaded here and by sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import MultiVectorEncoder

from raydist.cli import main
from raydist.models.biencoder import BiEncoder
from tests.training.small import WORDS, samples

TEXTS = [f"{WORDS[0]} {WORDS[1]}", "silver bridge, paper", "orange"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    with open(path, "w") as out:
        for sample in samples(16, 3):
            documents = list(sample.documents)
            row = {"query": sample.query, "pos": documents[:1], "neg": documents[1:]}
            out.write(json.dumps(row) + "\n")
    return path


def train(data: Path, model: Path, out: Path, *more: str) -> int:
    words = [f"data={data}", f"model={model}", "model.kind=multivector", "steps=3", "batch_size=4"]
    words += [
        "deepspeed.zero=0",
        "model.projection=16",
        "tracking=none",
        "model.query_max_length=16",
        "workers=0",
        "gpus_per_worker=0",
    ]
    return main(["train", *words, "model.expansion=8", f"out={out}", *more])


def test_a_trained_model_is_exported_and_loaded_by_sentence_transformers(
    data: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    assert train(data, tiny_bert, tmp_path / "run", "cache.chunk_size=3") == 0
    assert main(["export", f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'hf'}"]) == 0
    model = BiEncoder.load(tmp_path / "run", device="cpu")
    start = BiEncoder.load(
        tiny_bert, kind="multivector", projection=16, expansion=8, query_max_length=16, device="cpu"
    )
    assert model.contract.kind == "multivector"
    weights = [each.projections[0].linear.weight.detach().numpy() for each in (model, start)]
    assert not np.array_equal(*weights)
    reference = MultiVectorEncoder(str(tmp_path / "hf"), device="cpu")
    for own, expected in zip(model.encode_queries(TEXTS), reference.encode_query(TEXTS)):
        np.testing.assert_allclose(own, np.asarray(expected), atol=1e-5)
    for own, expected in zip(model.encode_documents(TEXTS), reference.encode_document(TEXTS)):
        np.testing.assert_allclose(own, np.asarray(expected), atol=1e-5)


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_with_documents_of_all_ranks(
    data: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    words = ("loss.scope=cross_device", "workers=2")
    assert train(data, tiny_bert, tmp_path / "run", *words) == 0
