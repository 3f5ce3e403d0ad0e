"""Exported folders load elsewhere with equal answers; the card says what is known, no more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer

from raydist.commands import export as command
from raydist.config.base import Flags
from raydist.config.load import load
from raydist.errors import ConfigError
from raydist.export.hub import export_model
from raydist.export.model_card import model_card
from raydist.export.provenance import Provenance, Table, find_provenance
from raydist.models.biencoder import BiEncoder
from raydist.models.contract import Contract
from raydist.models.crossencoder import CrossEncoderModel

TEXTS = ["the model of a query", "", "an answer to a document " * 20]
BIBTEX = "@misc{us, title={A model}}"


def export(*words, **flags):
    command.run(load(command.Config, [], list(words)), Flags(**flags))


@pytest.fixture
def trained(tiny_bert, tmp_path) -> Path:
    """The folder of a training run, as the loop and its listener leave it."""
    run = tmp_path / "run"
    model = BiEncoder.load(
        tiny_bert, pooling="mean", normalize=True, query_instruction="query: ", device="cpu"
    )
    model.save(run / "checkpoint-final", settings={"step": 30})
    best = run / "listeners/dev/best/nDCG@10"
    model.save(best, settings={"step": 20})
    chosen = {"listener": "dev", "key": "nDCG@10", "value": 0.51, "step": 20}
    (best / "settings.json").write_text(json.dumps(chosen))
    history = [
        {"step": 0, "nDCG@10": 0.2, "AP": 0.1, "new_best": [], "stop": False},
        {"step": 20, "nDCG@10": 0.51, "AP": 0.3, "new_best": ["nDCG@10"], "stop": False},
        {"step": 30, "nDCG@10": 0.5, "AP": 0.31, "new_best": [], "stop": False},
    ]
    lines = "".join(json.dumps(line) + "\n" for line in history)
    (run / "listeners/dev/history.jsonl").write_text(lines)
    config = {"data": {"path": ["/secret/place/train.jsonl"]}, "model": {"path": "org/base"}}
    (run / "config.json").write_text(json.dumps(config))
    (run / "metrics.jsonl").write_text("")
    manifest = {"inputs": {"train.path": "abc123"}, "versions": {"raydist": "0"}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


def test_an_exported_bi_encoder_gives_equal_vectors_in_sentence_transformers(trained, tmp_path):
    out = tmp_path / "hf"
    export(f"checkpoint={trained}", f"out={out}", "name=org/ours", f"bibtex={BIBTEX}")
    ours = BiEncoder.load(trained, device="cpu")
    theirs = SentenceTransformer(str(out), device="cpu")
    assert np.abs(theirs.encode_query(TEXTS) - ours.encode_queries(TEXTS)).max() < 1e-5
    assert np.abs(theirs.encode_document(TEXTS) - ours.encode_documents(TEXTS)).max() < 1e-5
    assert (out / "model.safetensors").is_file() and not list(out.rglob("*.bin"))
    card = (out / "README.md").read_text()
    assert "| nDCG@10 | 0.2000 | 0.5000 |" in card and BIBTEX in card
    assert "train.jsonl" in card and "/secret" not in card and "base_model: org/base" in card


def test_a_kept_checkpoint_says_which_listener_chose_it(trained, tmp_path):
    best = trained / "listeners/dev/best/nDCG@10"
    about = export_model(best, tmp_path / "hf")
    assert about.tables[0] == Table(
        "dev", "nDCG@10", 20, {"nDCG@10": 0.51, "AP": 0.3}, {"nDCG@10": 0.2, "AP": 0.1}
    )
    card = (tmp_path / "hf/README.md").read_text()
    assert "Validation `dev`, step 20, chosen by nDCG@10:" in card
    assert json.loads((tmp_path / "hf/raydist.json").read_text())["settings"]["key"] == "nDCG@10"


def test_an_exported_reranker_gives_equal_scores_in_sentence_transformers(tiny_bert, tmp_path):
    model = CrossEncoderModel.load(tiny_bert, fresh_head=True, max_length=40, device="cpu")
    model.save(tmp_path / "ce")
    export(f"checkpoint={tmp_path / 'ce'}", f"out={tmp_path / 'hf'}")
    theirs = CrossEncoder(str(tmp_path / "hf"), device="cpu")
    again = CrossEncoderModel.load(tmp_path / "hf", device="cpu")
    inputs = again.pad(again.tokenize(["query"] * 3, TEXTS))
    scores = theirs.predict([("query", text) for text in TEXTS])
    assert np.abs(scores - again(inputs).detach().numpy()).max() < 1e-5
    card = (tmp_path / "hf/README.md").read_text()
    assert "pipeline_tag: text-ranking" in card and "CrossEncoder('hf')" in card


def test_a_sentence_transformers_folder_can_be_exported(minilm, tmp_path):
    assert find_provenance(minilm).run is None
    export_model(minilm, tmp_path / "hf", name="mini")
    theirs = SentenceTransformer(str(tmp_path / "hf"), device="cpu")
    ours = BiEncoder.load(minilm, device="cpu").encode_documents(TEXTS)
    assert np.abs(theirs.encode(TEXTS) - ours).max() < 1e-5


def test_the_same_export_again_does_nothing_and_a_dry_run_writes_nothing(trained, tmp_path, capsys):
    words = [f"checkpoint={trained}", f"out={tmp_path / 'hf'}"]
    export(*words, dry_run=True)
    assert not (tmp_path / "hf").exists()
    export(*words)
    export(*words)
    assert "already exported" in capsys.readouterr().err


def test_a_push_that_cannot_succeed_is_refused_before_anything_is_written(
    trained, tmp_path, monkeypatch
):
    words = [f"checkpoint={trained}", f"out={tmp_path / 'hf'}", "push=true"]
    monkeypatch.setattr("raydist.export.hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        export(*words, "name=org/ours")
    monkeypatch.setattr("raydist.export.hub.constants.HF_HUB_OFFLINE", False)
    for name in ("", "ours", "org/our model"):
        with pytest.raises(ConfigError, match="expected owner/name"):
            export(*words, f"name={name}")
    assert not (tmp_path / "hf").exists()


def test_an_alias_needs_a_checkpoint_that_was_chosen(trained, tmp_path):
    with pytest.raises(ConfigError, match="not chosen by a validation listener"):
        export(f"checkpoint={trained}", f"out={tmp_path / 'hf'}", "alias=champion")


@pytest.mark.parametrize("kind", ["biencoder", "crossencoder"])
def test_the_card_of_a_model(golden, kind):
    about = Provenance(
        Path("model"),
        kind,
        Path("run"),
        {"data": {"path": ["/data/train.jsonl"]}, "model": {"path": "org/base", "lora": None}},
        {"data.path": "d1", "model": "m1"},
        {"raydist": "0.1.0", "torch": "2.9"},
        {"listener": "dev", "key": "nDCG@10", "value": 0.5123, "step": 1200, "other": 1},
        [Table("dev", "nDCG@10", 1200, {"nDCG@10": 0.5123, "R@100": 0.9}, {"nDCG@10": 0.4})],
    )
    contract = Contract(
        kind,
        "mean",
        True,
        query_instruction="query: ",
        query_max_length=64,
        document_max_length=256,
        dimensions=(64, 128),
    )
    card = model_card(
        about,
        contract,
        name="org/ours",
        dimension=128,
        doc="Finds passages that answer questions.",
        bibtex=BIBTEX,
        base_model="org/base",
    )
    golden(f"model-card-{kind}.md", card)
