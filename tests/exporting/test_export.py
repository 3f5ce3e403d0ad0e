"""Exported folders load elsewhere with equal answers; the card says no more than is known."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer

from raydist.commands import export as command
from raydist.config.base import Flags
from raydist.config.load import load
from raydist.errors import ConfigError
from raydist.evaluation.mirror import Mirror
from raydist.evaluation.spec import Tracking
from raydist.evaluation.tracking import Tracker
from raydist.exporting.hub import export_model
from raydist.exporting.model_card import model_card
from raydist.exporting.provenance import Provenance, Table, find_provenance
from raydist.fingerprints import model_fingerprint
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.folders.contract import Contract
from raydist.reranking.cross_encoder import CrossEncoder as Reranker
from raydist.reranking.spec import CrossEncoderSpec

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
    exported = SentenceTransformer(str(out), device="cpu")
    assert np.abs(exported.encode_query(TEXTS) - ours.encode_queries(TEXTS)).max() < 1e-5
    assert np.abs(exported.encode_document(TEXTS) - ours.encode_documents(TEXTS)).max() < 1e-5
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
    exported = CrossEncoder(str(tmp_path / "hf"), device="cpu")
    again = CrossEncoderModel.load(tmp_path / "hf", device="cpu")
    inputs = again.pad(again.tokenize(["query"] * 3, TEXTS))
    scores = exported.predict([("query", text) for text in TEXTS])
    assert np.abs(scores - again(inputs).detach().numpy()).max() < 1e-5
    card = (tmp_path / "hf/README.md").read_text()
    assert "pipeline_tag: text-ranking" in card and "CrossEncoder('hf')" in card


def test_a_cap_on_queries_that_sentence_transformers_does_not_know_is_reported(
    tiny_bert, tmp_path, capsys
):
    model = CrossEncoderModel.load(
        tiny_bert, fresh_head=True, max_length=40, query_max_length=3, device="cpu"
    )
    model.save(tmp_path / "ce")
    export(f"checkpoint={tmp_path / 'ce'}", f"out={tmp_path / 'hf'}")
    exported = CrossEncoder(str(tmp_path / "hf"), device="cpu")
    reranker = Reranker(CrossEncoderSpec(model=str(tmp_path / "hf"), device="cpu"))
    differences = {
        query: reranker.score([(query, TEXTS)])[0]
        - exported.predict([(query, text) for text in TEXTS])
        for query in ("a query", "the model of a long query to a document")
    }
    short, long = (np.abs(difference).max() for difference in differences.values())
    assert short < 1e-5 < long
    assert "queries of more than 3 tokens" in capsys.readouterr().err
    assert "cuts queries to 3 tokens" in (tmp_path / "hf/README.md").read_text()


def test_a_sentence_transformers_folder_can_be_exported(minilm, tmp_path):
    assert find_provenance(minilm).run is None
    export_model(minilm, tmp_path / "hf", name="mini")
    exported = SentenceTransformer(str(tmp_path / "hf"), device="cpu")
    ours = BiEncoder.load(minilm, device="cpu").encode_documents(TEXTS)
    assert np.abs(exported.encode(TEXTS) - ours).max() < 1e-5


def test_the_same_export_again_does_nothing_and_a_dry_run_writes_nothing(trained, tmp_path, capsys):
    words = [f"checkpoint={trained}", f"out={tmp_path / 'hf'}"]
    export(*words, dry_run=True)
    assert not (tmp_path / "hf").exists()
    export(*words)
    export(*words)
    assert "already built" in capsys.readouterr().err


def test_a_push_that_cannot_succeed_is_refused_before_anything_is_written(
    trained, tmp_path, monkeypatch
):
    words = [f"checkpoint={trained}", f"out={tmp_path / 'hf'}", "push=true"]
    monkeypatch.setattr("raydist.exporting.hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        export(*words, "name=org/ours")
    monkeypatch.setattr("raydist.exporting.hub.constants.HF_HUB_OFFLINE", False)
    for name in ("", "ours", "org/our model"):
        with pytest.raises(ConfigError, match="expected owner/name"):
            export(*words, f"name={name}")
    assert not (tmp_path / "hf").exists()


def test_an_alias_needs_a_checkpoint_that_was_chosen(trained, tmp_path):
    with pytest.raises(ConfigError, match="not chosen by a validation listener"):
        export(f"checkpoint={trained}", f"out={tmp_path / 'hf'}", "alias=champion")


def measured(run: Path, listener: str, step: int, values: dict[str, list[float]]) -> None:
    """Writes the table of an evaluation as a listener does."""
    place = run / "listeners" / listener / "per_query" / f"step-{step:08}.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    ids = [f"q{i}" for i in range(len(next(iter(values.values()))))]
    pq.write_table(pa.table({"query_id": ids, **values}), place)


def test_an_alias_registers_the_model_with_its_run_and_its_logged_model(
    trained, tmp_path, database, capsys
):
    from mlflow import MlflowClient

    best = trained / "listeners/dev/best/nDCG@10"
    measured(trained, "dev", 20, {"nDCG@10": [0.5, 0.52], "AP": [0.1, 0.2]})
    with Tracker.start(trained, Tracking(uri=database), follow=False) as tracker:
        Mirror(trained).model("dev/nDCG@10", 20, best, {"dev/nDCG@10": 0.51}, {})
    words = [f"checkpoint={best}", f"out={tmp_path / 'hf'}", "name=org/ours", "alias=champion"]
    export(*words, f"tracking={database}")
    assert "org-ours had no champion" in capsys.readouterr().err
    export(*words, f"tracking={database}")
    assert (
        "version 1 of org-ours; champion: version 1 is champion already" in capsys.readouterr().err
    )
    version = MlflowClient(database).get_model_version_by_alias("org-ours", "champion")
    assert version.run_id == tracker.run_id and version.source == (tmp_path / "hf").as_uri()
    assert version.tags["model_id"] == tracker.follower.state.models["dev/nDCG@10"]["20"]
    assert version.tags["per_query.nDCG_at_10"].startswith(f"runs:/{tracker.run_id}/")


def test_a_checkpoint_that_an_aggregate_chose_has_the_mean_of_each_query(
    trained, tmp_path, database
):
    from mlflow import MlflowClient

    config = json.loads((trained / "config.json").read_text())
    config["validation"] = {"mean": {"kind": "aggregate", "listeners": ["dev", "other"]}}
    (trained / "config.json").write_text(json.dumps(config))
    measured(trained, "dev", 20, {"AP": [0.2, 0.4]})
    measured(trained, "other", 20, {"AP": [0.4, 0.8, 0.9]})
    chosen = trained / "listeners/mean/best/AP"
    shutil.copytree(trained / "listeners/dev/best/nDCG@10", chosen)
    settings = {"listener": "mean", "key": "AP", "value": 0.5, "step": 20}
    (chosen / "settings.json").write_text(json.dumps(settings))
    out = tmp_path / "hf"
    export(f"checkpoint={chosen}", f"out={out}", "alias=champion", f"tracking={database}")
    version = MlflowClient(database).get_model_version_by_alias("hf", "champion")
    place = version.tags["per_query.AP"].removeprefix("runs:/").split("/", 1)
    stored = json.loads(Path(MlflowClient(database).download_artifacts(*place)).read_text())
    assert stored == pytest.approx({"q0": 0.3, "q1": 0.6, "q2": 0.9})


def test_the_fingerprint_in_an_exports_manifest_is_that_of_its_folder(trained, tmp_path):
    export(f"checkpoint={trained}", f"out={tmp_path / 'hf'}")
    written = json.loads((tmp_path / "hf/manifest.json").read_text())
    assert written["fingerprint"] == model_fingerprint(tmp_path / "hf")


@pytest.mark.parametrize("kind", ["biencoder", "crossencoder"])
def test_the_card_of_a_model(golden, kind):
    about = Provenance(
        Path("model"),
        kind,
        Path("run"),
        {
            "data": {"path": ["/data/train.jsonl", "s3://me:s3cret@bucket/more.jsonl?key=s3cret"]},
            "corpus": {"path": ["file:///home/s3cret/corpus.jsonl"]},
            "model": {"path": "org/base", "lora": None},
            "out": "s3cret",
            "storage": "s3://s3cret",
            "tracking": {"uri": "https://me:s3cret@mlflow.example"},
        },
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
    assert "s3cret" not in card
    golden(f"model-card-{kind}.md", card)


def test_a_registered_model_ranks_texts_in_a_fresh_process(trained, tmp_path, database):
    from mlflow import MlflowClient

    out = tmp_path / "hf"
    export(f"checkpoint={trained}", f"out={out}", "register=ranker", f"tracking={database}")
    version = MlflowClient(database).get_model_version("ranker", "1")
    assert version.source == out.as_uri() and version.tags["fingerprint"]
    assert version.description.startswith("# hf") and "## Usage" in version.description
    assert not [path for path in out.rglob("*") if path.suffix in (".pkl", ".pickle", ".bin")]
    code = """
import json, sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/ranker/1")
rows = pandas.DataFrame({"query": ["heron", "boat"], "texts": [["a bird", "fish"], ["a canal"]]})
vectors = model.predict(rows, params={"output": "embeddings"})
print(json.dumps([model.predict(rows)["scores"].tolist(), vectors.to_dict("list")]))
print(model.metadata.get_input_schema().input_names())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, database],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        check=True,
    )
    lines = done.stdout.splitlines()
    scores, vectors = json.loads(lines[0])
    ours = BiEncoder.load(trained, device="cpu")
    queries, texts = ours.encode_queries(["heron", "boat"]), [["a bird", "fish"], ["a canal"]]
    for row, query in enumerate(queries):
        documents = ours.encode_documents(texts[row])
        assert scores[row] == pytest.approx((documents @ query).tolist(), abs=1e-5)
        assert np.allclose(vectors["texts"][row], documents, atol=1e-5)
        assert np.allclose(vectors["query"][row], query, atol=1e-5)
    assert lines[1] == "['query', 'texts']"


@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
def test_a_registered_reranker_scores_as_sentence_transformers_does(
    activation, tiny_bert, tmp_path, database, monkeypatch
):
    import mlflow
    import pandas

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what MLflow's module of pyfuncs imports
        import mlflow.pyfunc

    model = CrossEncoderModel.load(
        tiny_bert, fresh_head=True, max_length=40, activation=activation, device="cpu"
    )
    model.save(tmp_path / "ce")
    out = tmp_path / "hf"
    export(f"checkpoint={tmp_path / 'ce'}", f"out={out}", "register=judge", f"tracking={database}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    ranker = mlflow.pyfunc.load_model("models:/judge/1")
    rows = pandas.DataFrame({"query": ["vector", "an index"], "texts": [TEXTS, TEXTS[2:]]})
    oracle = CrossEncoder(str(out), device="cpu")
    for query, texts, scores in zip(rows["query"], rows["texts"], ranker.predict(rows)["scores"]):
        expected = oracle.predict([(query, text) for text in texts])
        assert scores == pytest.approx(expected.tolist(), abs=1e-5)
    assert ranker.metadata.get_output_schema().input_names() == ["scores"]
    assert ranker.metadata.get_params_schema() is None  # a cross-encoder has no vectors
    card = mlflow.MlflowClient().get_model_version("judge", "1").description
    assert "CrossEncoder('hf')" in card
