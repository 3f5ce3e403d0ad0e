"""The verbs take a model for what its folder says it is: here sparse and multi-vector ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from raydist.build import open_searcher
from raydist.cli import main
from raydist.config.load import load
from raydist.config.serve import ServeConfig
from raydist.config.training import DistillConfig
from raydist.data.readers import read_run
from raydist.models.biencoder import BiEncoder
from raydist.models.folders.kinds import recorded_kind
from raydist.serving.backend import SearchCall

SOURCES = {"corpus": "corpus.jsonl", "queries": "queries.jsonl"}
STAGES = {
    "train": {"data": "train.jsonl", "out": "{out}/train", "distill": "none"},
    "distill": {"data": "distill.jsonl", **SOURCES, "model": "{out}/train", "out": "{out}/student"},
    "embed": {"corpus": "corpus.jsonl", "model": "{out}/student", "out": "{out}/index"},
    "search": {"index": "{out}/index", "queries": "queries.jsonl", "k": 5, "out": "{out}/run.txt"},
    "mine": {"index": "{out}/index", **SOURCES, "qrels": "qrels.txt", "out": "{out}/mined.jsonl"},
    "rerank": {
        "run": "{out}/run.txt",
        **SOURCES,
        "reranker": "{out}/student",
        "out": "{out}/new.txt",
    },
    "export": {"checkpoint": "{out}/student", "out": "{out}/folder"},
}


@pytest.mark.parametrize("kind", ["sparse", "multivector"])
def test_a_pipeline_names_a_kind_once_and_every_later_stage_knows_it(
    files: Path, tiny_mlm: Path, kind: str
) -> None:
    stages = json.loads(json.dumps(STAGES))
    stages["train"]["model"] = {"path": str(tiny_mlm), "kind": kind}
    for name in ("train", "distill"):
        stages[name] |= {"steps": 2, "batch_size": 4, "log_every": 1}
    plan = {"out": "P", "tracking": "none", "stages": stages}
    Path("pipeline.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    assert main(["pipeline", "pipeline.yaml"]) == 0
    for folder in ("P/train/checkpoint-final", "P/student/checkpoint-final", "P/folder"):
        assert recorded_kind(Path(folder)) == kind, folder
    mined = [json.loads(line) for line in Path("P/mined.jsonl").read_text().splitlines()]
    assert len(mined) == 8 and all(each["neg"] for each in mined)
    first, new = (read_run(f"P/{name}.txt").as_dict() for name in ("run", "new"))
    for query, ranking in first.items():  # exact search and reranking compute the same scores
        assert set(ranking) == set(new[query])
        rounded = pytest.approx(list(ranking.values()), rel=0.02, abs=0.05)
        assert sorted(new[query].values(), reverse=True) == rounded
    searcher = open_searcher(load(ServeConfig, (), ["index=P/index"]))
    query = json.loads(Path("queries.jsonl").read_text().splitlines()[0])
    answer = searcher.search(SearchCall(query=query["text"], depth=3))
    assert [hit.doc_id for hit in answer.hits] == list(first["q0"])[:3]
    assert main(["index", "corpus=corpus.jsonl", "out=IDX"]) == 0  # has the texts
    command = ["mine", "index=P/index,IDX", "queries=queries.jsonl", "qrels=qrels.txt"]
    assert main([*command, "fusion=rrf", "out=fused.jsonl"]) == 0


def test_a_student_is_what_its_folder_says_unless_it_is_a_start(
    files: Path, model: Path, sparse_model: Path
) -> None:
    def kind(path: Path) -> str | None:
        words = ["data=x.jsonl", "out=x", f"model={path}"]
        return load(DistillConfig, (), words).model.kind

    BiEncoder.load(model, device="cpu").save(files / "dense")
    assert kind(files / "dense") == "biencoder"
    (files / "dense" / "raydist.json").unlink()  # as sentence-transformers writes it
    assert kind(files / "dense") == kind(model) == kind(files / "absent") == "crossencoder"
    assert kind(sparse_model) == "sparse"
