"""Three raylets that share no folder work through an object store, and one of them dies."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch

from raydist import storage
from raydist.cli import main
from raydist.data import docstrings
from raydist.stores.objects import Objects
from tests.cluster.test_nodes import cluster
from tests.outputs import results
from tests.training.jobs import lines as steps
from tests.training.jobs import record, weights
from tests.training.small import checkpoint, samples

PROGRAM = """
import sys
import raydist.bow.build.merge as merge
from raydist.cli import main

merge._WORTH_SHARING = 0  # the few postings of the test are merged by actors too
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root may hide folders from processes")
def test_nodes_without_a_shared_folder_build_the_same_bytes(
    s3: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    corpus = docstrings.write(tmp_path / "docstrings") / "corpus.jsonl"
    words = ["index", "split_bytes=8kB"]
    assert main([*words, f"corpus={corpus}", f"out={tmp_path}/alone"]) == 0
    Objects(s3).upload({"corpus/corpus.jsonl": corpus})
    words += [f"corpus={s3}/corpus/", f"out={s3}/idx", "workers=3"]
    command = [sys.executable, "-c", PROGRAM, *words]
    bucket, running = Objects(s3), cluster(f"hidden={tmp_path}")
    nodes = next(running)

    def done() -> int:
        return sum(name.endswith(".done") for name in bucket.names(".idx.work"))

    try:
        with nodes.start(*command) as program:  # a driver that dies, and whose disk is lost
            while done() < 3:
                assert program.poll() is None, "it ended too soon"
                time.sleep(0.01)
            program.kill()
        shutil.rmtree(tmp_path / "cache")
        before = done()
        capfd.readouterr()
        with nodes.start(*command) as program:
            nodes.kill_once(program, lambda: done() >= before + 2, "MapWorker")
            assert program.wait(300) == 0
    finally:
        next(running, None)
    progress = [line for line in capfd.readouterr().err.splitlines() if "indexing:" in line]
    indexed = int(re.findall(r"indexing: ([\d,]+) documents", progress[-1])[0].replace(",", ""))
    total = len(corpus.read_text().splitlines())
    assert 0 < indexed < total, "the second driver began anew"
    assert results(storage.local(f"{s3}/idx")) == results(tmp_path / "alone")
    assert not bucket.names(".idx.work")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root may hide folders from processes")
def test_nodes_without_a_shared_folder_embed_and_index_vectors(
    s3: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    corpus = docstrings.write(tmp_path / "docstrings") / "corpus.jsonl"
    model = checkpoint(tmp_path_factory.mktemp("model") / "model")  # each node has it
    words = ["embed", f"model={model}", "model.pooling=mean", "split_bytes=64kB"]
    words += ["model.document_max_length=16", "ann=hnsw", "ann.rows_per_part=700"]
    assert main([*words, f"corpus={corpus}", f"out={tmp_path}/alone"]) == 0
    bucket, running = Objects(s3), cluster(f"hidden={tmp_path}")
    bucket.upload({"corpus.jsonl": corpus})
    words += [f"corpus={s3}/corpus.jsonl", f"out={s3}/vectors", "workers=2"]
    nodes = next(running)
    try:
        with nodes.start(sys.executable, "-m", "raydist", *words) as program:
            assert program.wait(300) == 0
    finally:
        next(running, None)
    assert results(storage.local(f"{s3}/vectors")) == results(tmp_path / "alone")
    assert not bucket.names(".vectors.work")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root may hide folders from processes")
def test_nodes_without_a_shared_folder_rerank_and_score(s3: str, tmp_path: Path) -> None:
    made = docstrings.write(tmp_path / "docstrings")
    corpus, queries = made / "corpus.jsonl", made / "test/queries.jsonl"
    assert main(["index", f"corpus={corpus}", f"out={s3}/idx"]) == 0
    bucket, run = Objects(s3), tmp_path / "run.txt"
    bucket.upload({"corpus.jsonl": corpus})
    searched = ["search", f"index={s3}/idx", f"queries={queries}", "k=20", f"out={run}"]
    assert main(searched) == 0
    common = [f"run={run}", f"queries={queries}", "split_pairs=50"]
    alone = [f"corpus={corpus}", f"out={tmp_path}/alone.run"]
    assert main(["rerank", *common, "reranker=bm25", *alone]) == 0
    statistics = f"reranker={{kind: bm25, index: {s3}/idx}}"
    assert main(["rerank", *common, statistics, f"corpus={corpus}", f"out={tmp_path}/idf.run"]) == 0
    alone = [f"corpus={corpus}", f"out={tmp_path}/alone.jsonl"]
    assert main(["score", *common, "teacher=bm25", *alone]) == 0
    running = cluster(f"hidden={tmp_path}")
    nodes = next(running)
    try:
        for out, words in {
            "alone.run": ["rerank", "reranker=bm25", f"index={s3}/idx"],
            "idf.run": ["rerank", statistics, f"index={s3}/idx"],
            "alone.jsonl": ["score", "teacher=bm25", f"corpus={s3}/corpus.jsonl"],
        }.items():
            command = [*words, *common, f"out={s3}/{out}", "workers=2"]
            with nodes.start(sys.executable, "-m", "raydist", *command) as program:
                assert program.wait(300) == 0
            stored = bucket.read(out)
            assert stored is not None and stored[0] == (tmp_path / out).read_bytes()
            assert not bucket.names(f".{out}.work")
    finally:
        next(running, None)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root may hide folders from processes")
def test_training_without_a_shared_folder_survives_the_loss_of_its_driver_and_all_disks(
    s3: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = checkpoint(tmp_path_factory.mktemp("model") / "model")  # each node has it
    bucket, running = Objects(s3), cluster(f"hidden={tmp_path}")
    lines = "".join(json.dumps(record(sample)) + "\n" for sample in samples(scores=True))
    (tmp_path / "train.jsonl").write_text(lines)
    bucket.upload({"train.jsonl": tmp_path / "train.jsonl"})
    words = ["train", f"data={s3}/train.jsonl", f"model={model}", "model.pooling=mean", "steps=40"]
    words += ["batch_size=8", "workers=2", "checkpoint.every=2", "tracking=none", "log_every=1"]
    command = [sys.executable, "-m", "raydist", *words, f"out={s3}/run"]
    nodes = next(running)

    def states() -> list[str]:
        return [name for name in bucket.names(".run.work") if name.endswith("loop.json")]

    try:
        with nodes.start(*command) as program:
            while not states():
                assert program.poll() is None, "it ended too soon"
                time.sleep(0.01)
            program.kill()
        shutil.rmtree(tmp_path / "cache")
        with nodes.start(*command) as program:
            assert program.wait(300) == 2, "an interrupted run needs --resume"
        with nodes.start(*command, "--resume") as program:
            assert program.wait(300) == 0
    finally:
        next(running, None)
    folder = storage.local(f"{s3}/run")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["outcome"]["step"] == 40 and manifest["outcome"]["resumed_at"] >= 2
    assert [line["step"] for line in steps(folder)] == list(range(1, 41))
    assert not bucket.names(".run.work")
    assert main([*words, "workers=2", f"out={tmp_path}/alone"]) == 0
    for ours, expected in zip(steps(folder), steps(tmp_path / "alone"), strict=True):
        assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    for name, tensor in weights(tmp_path / "alone").items():
        torch.testing.assert_close(weights(folder)[name], tensor, rtol=0, atol=1e-6)
