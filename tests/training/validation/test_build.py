"""Listeners made of plain values, on real small models and files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource, RunSource
from raydist.errors import ConfigError, DataError
from raydist.evaluation.mirror import Mirror
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.records import Document, Run
from raydist.training.run import run
from raydist.training.spec import Aggregate, DenseRetriever, Listener, RunReranker
from raydist.training.validation.build import check_listeners, evaluate_checkpoint, make_listeners
from raydist.training.worker import Place
from tests.training.jobs import tiny_job

WORDS = ["retrieval", "index", "query", "document", "vector", "corpus", "answer", "model"]


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    docs = [{"_id": f"d{i}", "title": w, "text": f"the {w} of a {v}"} for i, (w, v) in
            enumerate((w, v) for w in WORDS for v in WORDS if w != v)]  # fmt: skip
    (folder / "corpus.jsonl").write_text("".join(json.dumps(d) + "\n" for d in docs))
    queries = [{"_id": f"q{i}", "text": f"{w} of {WORDS[i - 1]}"} for i, w in enumerate(WORDS)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in queries))
    (folder / "qrels.txt").write_text("".join(f"q{i} 0 d{i * 7} 1\n" for i in range(len(WORDS))))
    rankings = [(f"q{i}", [f"d{i * 7 + j}" for j in range(5)], [5, 4, 3, 2, 1]) for i in range(6)]
    Run.from_lists(rankings).write(folder / "run.txt")
    return folder


def spec(files, **options):
    return Listener(
        corpus=CorpusSource(path=(str(files / "corpus.jsonl"),)),
        queries=QueriesSource(path=(str(files / "queries.jsonl"),)),
        qrels=QrelsSource(path=(str(files / "qrels.txt"),)),
        **{"interval": 1, "metrics": {"nDCG@10": True, "R@20": False}, **options},
    )


def reranking(file, **options):
    return RunReranker(run=RunSource(path=str(file)), **options)


def documents(files):
    lines = [json.loads(line) for line in (files / "corpus.jsonl").read_text().splitlines()]
    return [Document(line["_id"], line["text"], line["title"]) for line in lines]


def shift(model):
    """Changes the weights, as training would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def test_a_bi_encoder_is_evaluated_and_its_best_checkpoint_gives_the_same_values(
    files, tmp_path, tiny_bert
):
    model = BiEncoder.load(tiny_bert, pooling="mean")
    arguments = spec(files)
    listeners = make_listeners(
        {"dev": arguments}, folder=tmp_path / "out", mirror=Mirror(tmp_path / "record"), steps=2
    )
    model.train()
    for step in range(3):
        listeners.after_step(step, model)
        shift(model)
    assert model.training
    info = json.loads((tmp_path / "out/dev/info.json").read_text())
    again = evaluate_checkpoint(arguments, tmp_path / "out/dev/best/nDCG@10")
    assert again.means["nDCG@10"] == pytest.approx(info["nDCG@10"]["value"], abs=1e-9)
    settings = json.loads((tmp_path / "out/dev/best/nDCG@10/settings.json").read_text())
    assert settings["listener"] == "dev" and set(settings["data"]) == {"corpus", "queries", "qrels"}
    contract = json.loads((tmp_path / "out/dev/best/nDCG@10/raydist.json").read_text())
    assert contract["settings"]["listener"] == "dev"


def test_a_cross_encoder_reranks_a_fixed_run(files, tmp_path, tiny_bert):
    model = CrossEncoderModel.load(tiny_bert, fresh_head=True)
    arguments = spec(files, retriever=reranking(files / "run.txt", depth=4))
    listeners = make_listeners({"dev": arguments}, folder=tmp_path / "out", steps=1)
    for step in range(2):
        listeners.after_step(step, model)
        shift(model)
    lines = (tmp_path / "out/dev/history.jsonl").read_text().splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first["R@20"] == second["R@20"] == 6 / 8  # two queries are not in the run
    best = json.loads((tmp_path / "out/dev/info.json").read_text())["nDCG@10"]
    again = evaluate_checkpoint(arguments, tmp_path / "out/dev/best/nDCG@10")
    assert again.means["nDCG@10"] == pytest.approx(best["value"], abs=1e-9)
    settings = json.loads((tmp_path / "out/dev/best/nDCG@10/settings.json").read_text())
    assert set(settings["data"]) == {"corpus", "queries", "qrels", "run"}


def test_a_bi_encoder_reranks_a_fixed_run_by_its_dot_products(files, tmp_path, tiny_bert):
    model = BiEncoder.load(tiny_bert, pooling="mean")
    arguments = spec(files, retriever=reranking(files / "run.txt", depth=5))
    listeners = make_listeners({"dev": arguments}, folder=tmp_path / "out", steps=0)
    listeners.after_step(0, model)
    best = json.loads((tmp_path / "out/dev/info.json").read_text())["nDCG@10"]["value"]
    again = evaluate_checkpoint(arguments, tmp_path / "out/dev/best/nDCG@10")
    assert again.means["nDCG@10"] == pytest.approx(best, abs=1e-9)
    texts = {d.doc_id: d.contents for d in documents(files)}
    total = 0.0
    for i in range(6):
        names = [f"d{i * 7 + j}" for j in range(5)]
        query = model.encode_queries([f"{WORDS[i]} of {WORDS[i - 1]}"])[0]
        scores = model.encode_documents([texts[name] for name in names]) @ query
        total += 1 / np.log2(2 + int((scores > scores[0]).sum()))  # the first one is relevant
    assert best == pytest.approx(total / 8, abs=1e-6)  # two queries are not in the run


@pytest.mark.parametrize("retriever", ["dense", "rerank"])
@pytest.mark.parametrize("kind", ["biencoder", "crossencoder"])
def test_what_a_kind_of_model_cannot_do_is_refused_before_anything_is_read(files, kind, retriever):
    dense = retriever == "dense"
    retriever_spec = DenseRetriever() if dense else reranking(files / "run.txt")
    specs = {"dev": spec(files, retriever=retriever_spec)}
    if (kind, retriever) == ("crossencoder", "dense"):
        with pytest.raises(ConfigError, match=r"validation\.dev\.retriever = dense: a cross-enc"):
            check_listeners(specs, kind)
    else:
        check_listeners(specs, kind)


def test_aggregates_are_put_together_by_the_listeners_ids(files, tmp_path, tiny_bert):
    specs = {
        "mean": Aggregate(listeners=["a", "b"]),
        "a": spec(files),
        "b": spec(files, retriever=DenseRetriever(k=5)),
    }
    listeners = make_listeners(specs, folder=tmp_path)
    listeners.after_step(0, BiEncoder.load(tiny_bert))
    values = {
        id: json.loads((tmp_path / id / "history.jsonl").read_text())["R@20"]
        for id in ("a", "b", "mean")
    }
    assert values["mean"] == pytest.approx((values["a"] + values["b"]) / 2)
    assert values["a"] > values["b"]
    settings = json.loads((tmp_path / "mean/best/nDCG@10/settings.json").read_text())
    assert set(settings["data"]) == {"a", "b"} and set(settings["data"]["a"]) == {
        "corpus", "queries", "qrels"
    }  # fmt: skip
    specs["mean"] = Aggregate(listeners=["a", "c"])
    with pytest.raises(ConfigError, match=r"validation.mean.listeners: c: no such listener"):
        make_listeners(specs, folder=tmp_path)


def test_inputs_that_do_not_fit_are_named_before_training(files, tmp_path):
    (files / "other.txt").write_text("x1 0 d1 1\n")
    with pytest.raises(DataError, match="none of the 8 queries is judged"):
        other = QrelsSource(path=(str(files / "other.txt"),))
        make_listeners({"dev": replace(spec(files), qrels=other)}, folder=tmp_path)
    Run.from_lists([("q1", ["nowhere"], [1.0])]).write(files / "odd.txt")
    retriever = reranking(files / "odd.txt")
    with pytest.raises(DataError, match="no document 'nowhere'"):
        make_listeners({"dev": spec(files, retriever=retriever)}, folder=tmp_path)


@pytest.mark.ray
def test_an_evaluation_beside_training_is_a_ray_task_with_the_same_scores_in_bfloat16(
    files, tmp_path, ray_cluster
):
    job = tiny_job(tmp_path / "run", steps=2)
    listeners = {"sync": spec(files), "async": replace(spec(files), async_=True)}
    job = replace(job, model=replace(job.model, autocast="bfloat16"), validation=listeners)
    run(job, Place(0, 1, torch.device("cpu")))
    folders = [tmp_path / "run/listeners" / name for name in listeners]
    lines = [[json.loads(line) for line in (f / "history.jsonl").open()] for f in folders]
    assert lines[0] == lines[1] and len(lines[0]) == 3
    runs = [pq.read_table(f / "runs/end.parquet") for f in folders]
    assert runs[0] == runs[1]  # float32 would give other scores
    exact = evaluate_checkpoint(spec(files), tmp_path / "run/checkpoint-final")
    assert exact.run.table != runs[0]


def test_a_job_in_python_takes_hooks(files, tmp_path):
    seen = []

    def before(step, model, results):
        assert results is None
        seen.append(step)

    def after(step, model, results):
        seen.append(results.means["nDCG@10"])

    hooks = {"dev": [(before, None), (None, after)]}
    job = tiny_job(tmp_path / "run", steps=2, validation={"dev": spec(files)}, hooks=hooks)
    run(job, Place(0, 1, torch.device("cpu")))
    lines = (tmp_path / "run/listeners/dev/history.jsonl").read_text().splitlines()
    values = [json.loads(line)["nDCG@10"] for line in lines]
    assert seen == [0, values[0], 1, values[1], 2, values[2]]
    with pytest.raises(ConfigError, match="hooks: other: no such listener; there are dev"):
        make_listeners({"dev": spec(files)}, folder=tmp_path, hooks={"other": hooks["dev"]})
