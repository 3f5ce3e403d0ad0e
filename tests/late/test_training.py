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


def train(data: Path, model: Path, out: Path, *more: str, verb: str = "train") -> int:
    words = [f"data={data}", f"model={model}", "model.kind=multivector", "steps=3", "batch_size=4"]
    words += [
        "deepspeed.zero=0",
        "model.projection=16",
        "tracking=none",
        "model.query_max_length=16",
        "workers=0",
        "gpus_per_worker=0",
    ]
    return main([verb, *words, "model.expansion=8", f"out={out}", *more])


def test_a_trained_model_is_exported_and_loaded_by_sentence_transformers(
    data: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tiny_bert, tmp_path / "run", "cache.chunk_size=3") == 0
    assert main(["export", f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'hf'}"]) == 0
    command = ["export", f"checkpoint={tmp_path / 'run'}", "layout=pylate"]
    assert main([*command, f"out={tmp_path / 'no'}"]) == 2  # PyLate fills queries up, or does not
    assert "model.expansion=8 is neither 0 nor query_max_length=16" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
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


@pytest.fixture
def validation(small_corpus: Path, tmp_path: Path) -> list[str]:
    """The keys of a listener that retrieves from a corpus and stops early."""
    (tmp_path / "queries.jsonl").write_text(
        "".join(json.dumps({"id": f"q{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS))
    )
    (tmp_path / "qrels.txt").write_text("".join(f"q{i} 0 d{7 * i} 1\n" for i in range(3)))
    words = [f"validation.dev.corpus={small_corpus}", "validation.dev.interval=2"]
    words += [f"validation.dev.queries={tmp_path}/queries.jsonl"]
    words += [f"validation.dev.qrels={tmp_path}/qrels.txt"]
    # It learns nothing, so it stops.
    words += ["validation.dev.metrics={RR: true}", "validation.dev.early_stop=2", "steps=8"]
    return [*words, "optim.lr=1e-12"]


def check_listener(run: Path, corpus: Path) -> None:
    """Compares what a listener measured with MaxSim of all documents by the model as it is."""
    history = (run / "listeners/dev/history.jsonl").read_text().splitlines()
    values = [json.loads(line)["RR"] for line in history]
    assert len(values) == 2 and values[0] == values[1]
    model = BiEncoder.load(run, device="cpu")
    assert model.contract.kind == "multivector"
    lines = [json.loads(line) for line in corpus.read_text().splitlines()]
    contents = [f"{each['title']}\n{each['text']}".strip("\n") for each in lines]
    documents = model.encode_documents(contents)
    reciprocal = []
    for i, query in enumerate(model.encode_queries(TEXTS)):
        scores = np.array([(query @ each.T).max(axis=1).sum() for each in documents])
        reciprocal.append(1 / (1 + (scores > scores[7 * i]).sum()))
    assert values[0] == pytest.approx(np.mean(reciprocal), abs=1e-6)


def test_a_listener_retrieves_from_a_corpus_with_the_model_as_it_is(
    data: Path, tiny_bert: Path, small_corpus: Path, validation: list[str], tmp_path: Path
) -> None:
    assert train(data, tiny_bert, tmp_path / "run", *validation) == 0
    check_listener(tmp_path / "run", small_corpus)


def test_a_listener_stops_the_distillation_of_a_multi_vector_student(
    tiny_bert: Path, small_corpus: Path, validation: list[str], tmp_path: Path
) -> None:
    ids = [f"d{i}" for i in range(12)]
    rows = [
        {
            "query_id": f"q{i}",
            "candidates": [{"id": name, "score": (i + j) % 5} for j, name in enumerate(ids)],
        }
        for i in range(3)
    ]
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"corpus={small_corpus}", f"queries={tmp_path}/queries.jsonl", *validation]
    data, run = tmp_path / "lists.jsonl", tmp_path / "run"
    assert train(data, tiny_bert, run, *words, verb="distill") == 0
    check_listener(tmp_path / "run", small_corpus)


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_with_documents_of_all_ranks(
    data: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    words = ("loss.scope=cross_device", "workers=2")
    assert train(data, tiny_bert, tmp_path / "run", *words) == 0
