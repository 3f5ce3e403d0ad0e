from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from raydist.cli import main
from raydist.config.load import load
from raydist.config.rerank import RerankConfig
from raydist.data.readers import read_run
from raydist.errors import ConfigError
from raydist.records import Run
from raydist.reranking.bm25 import BM25Reranker
from raydist.reranking.spec import CrossEncoderSpec, reranker_from_text
from tests.reranking import small_qwen3

TEXTS = {"a": "heart disease", "b": "lung cancer", "c": "heart heart", "d": "skin"}
QUERIES = {"q1": "heart", "q2": "lung cancer"}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": i, "title": "", "text": t} for i, t in TEXTS.items()]
    Path("corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"id": i, "text": t} for i, t in QUERIES.items()]
    Path("queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lists = [("q1", ["a", "b", "c", "gone"], [4, 3, 2, 1]), ("q2", ["d", "b"], [2, 1])]
    Run.from_lists(lists).write("run.txt")
    return tmp_path


COMMON = ["run=run.txt", "corpus=corpus.jsonl", "queries=queries.jsonl"]
LINE = ["rerank", *COMMON, "reranker=bm25", "depth=3", "out=new.txt"]


def test_the_line_of_the_handbook_reranks_with_bm25(files: Path) -> None:
    assert main(LINE) == 0
    reranked = {query: docs for query, docs, _ in read_run("new.txt")}
    lists = [("heart", [TEXTS[d] for d in "abc"]), ("lung cancer", [TEXTS[d] for d in "db"])]
    for docs, (name, (_, texts)) in zip(["abc", "db"], zip(["q1", "q2"], lists)):
        scores = BM25Reranker().score([lists[0] if name == "q1" else lists[1]])[0]
        assert reranked[name] == [docs[i] for i in np.argsort(-np.array(scores), kind="stable")]
        assert len(texts) == len(docs)
    manifest = json.loads(Path("new.txt.raydist/manifest.json").read_text())
    assert manifest["kind"] == "reranked-run" and manifest["pairs"] == 5
    assert sorted(path.name for path in Path("new.txt.raydist").iterdir()) == [
        "config.json",
        "manifest.json",
    ]


def test_the_same_command_again_does_nothing(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(LINE) == 0
    before = Path("new.txt").stat().st_mtime_ns
    assert main(LINE) == 0
    assert Path("new.txt").stat().st_mtime_ns == before
    assert "already built" in capsys.readouterr().err
    assert main([*LINE, "reranker.k1=1"]) == 2
    assert "reranker.k1: 1.5 -> 1.0" in capsys.readouterr().err


def test_no_file_is_replaced_that_another_command_wrote_or_this_one_reads(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, corpus = Path("run.txt").read_bytes(), Path("corpus.jsonl").read_bytes()
    assert main([*LINE[:-1], "out=run.txt"]) == 2
    assert "out = run.txt: is what run = run.txt reads" in capsys.readouterr().err
    score = ["score", *COMMON, "teacher=bm25", "missing=drop"]
    assert main([*score, "out=corpus.jsonl"]) == 2
    Path("other.txt").write_text("somebody's")
    assert main([*LINE[:-1], "out=other.txt"]) == 2
    assert "out = other.txt: exists, and no other.txt.raydist" in capsys.readouterr().err
    assert (Path("run.txt").read_bytes(), Path("corpus.jsonl").read_bytes()) == (run, corpus)
    assert Path("other.txt").read_text() == "somebody's"
    assert not list(files.glob("*.raydist"))


def test_bm25_with_another_collections_statistics_is_another_command(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*LINE, "reranker.index=idx"]
    assert main(["index", "corpus=corpus.jsonl", "out=idx"]) == 0
    assert main(line) == 0
    shutil.rmtree("idx")
    Path("more.jsonl").write_text('{"id": "e", "title": "", "text": "heart"}\n')
    assert main(["index", "corpus=corpus.jsonl,more.jsonl", "out=idx"]) == 0
    capsys.readouterr()
    assert main(line) == 2
    assert "content of reranker.index" in capsys.readouterr().err


def test_its_config_file_repeats_it(files: Path) -> None:
    assert main(LINE) == 0
    assert main(["rerank", "new.txt.raydist/config.json", "out=again.txt"]) == 0
    assert Path("again.txt").read_bytes() == Path("new.txt").read_bytes()


def test_a_failed_command_can_be_mended(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["rerank", *COMMON, "reranker=bm25", "out=new.txt"]
    assert main(line) == 2
    assert "document 'gone' has no text" in capsys.readouterr().err
    assert not Path("new.txt.raydist").exists()
    assert main([*line, "missing=keep"]) == 0
    assert next(iter(read_run("new.txt")))[1][-1] == "gone"


def test_dry_run_writes_nothing(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(files.iterdir())
    assert main([*LINE, "--dry-run"]) == 0
    assert sorted(files.iterdir()) == before
    assert "would score 6 documents of 2 queries with bm25" in capsys.readouterr().err


def test_a_query_without_text_is_named(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("queries.jsonl").write_text('{"id": "q1", "text": "heart"}\n')
    assert main(LINE) == 2
    assert "query 'q2' has no text in queries.jsonl (1 of 2 queries)" in capsys.readouterr().err


def test_a_parquet_run_goes_in_and_out(files: Path) -> None:
    assert main([*LINE[:-1], "out=new.parquet"]) == 0
    assert main([*LINE[:-1], "out=new.txt"]) == 0
    assert read_run("new.parquet").table.equals(read_run("new.txt").table)


def test_score_writes_a_teachers_lists(files: Path) -> None:
    line = ["score", *COMMON, "teacher=bm25", "missing=drop", "out=teacher.jsonl"]
    assert main(line) == 0
    lines = [json.loads(line) for line in Path("teacher.jsonl").read_text().splitlines()]
    assert [(row["query_id"], row["query"]) for row in lines] == list(QUERIES.items())
    assert {c["id"] for c in lines[0]["candidates"]} == {"a", "b", "c"}
    for row in lines:
        scores = [c["score"] for c in row["candidates"]]
        assert scores == sorted(scores, reverse=True)


def test_score_writes_logits_on_request(files: Path, tmp_path: Path) -> None:
    model = str(small_qwen3.write(tmp_path / "qwen3"))
    for out, words in (("p.jsonl", []), ("raw.jsonl", ["raw=true"])):
        assert (
            main(["score", *COMMON, "missing=drop", f"teacher={model}", f"out={out}", *words]) == 0
        )
    lists = [
        {
            c["id"]: c["score"]
            for line in Path(out).read_text().splitlines()
            for c in json.loads(line)["candidates"]
        }
        for out in ("p.jsonl", "raw.jsonl")
    ]
    for doc_id, logit in lists[1].items():
        assert lists[0][doc_id] == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)


def test_one_source_of_texts_is_required(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word for word in LINE if not word.startswith("corpus=")]) == 2
    assert "one of corpus and index is required" in capsys.readouterr().err


def test_a_scalar_is_a_kind_a_released_name_or_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(name: str, **config: object) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        return str(tmp_path / name)

    causal = folder("causal", architectures=["Qwen3ForCausalLM"])
    head = folder("head", architectures=["BertForSequenceClassification"])
    plain = folder("plain", architectures=["BertModel"])
    folder("run", reranker="not a model's")
    trained = folder("run/checkpoint-final", architectures=["BertForSequenceClassification"])
    assert trained.endswith("checkpoint-final")
    cases = {
        "bm25": {"kind": "bm25"},
        "Qwen/Qwen3-Reranker-4B": {"kind": "qwen3", "model": "Qwen/Qwen3-Reranker-4B"},
        causal: {"kind": "qwen3", "model": causal},
        head: {"kind": "cross_encoder", "model": head},
        plain: {"kind": "biencoder", "model": plain},
        str(tmp_path / "run"): {"kind": "cross_encoder", "model": str(tmp_path / "run")},
    }
    for text, wanted in cases.items():
        assert reranker_from_text(text) == wanted
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "some_models").mkdir()
    (tmp_path / "some_models" / "__init__.py").touch()
    folder("some_models/plain", architectures=["BertModel"])
    packaged = {"kind": "biencoder", "model": "package:some_models/plain"}
    assert reranker_from_text("package:some_models/plain") == packaged
    config = load(
        RerankConfig, (), [*LINE[1:4], f"reranker={head}", "reranker.max_length=64", "out=o"]
    )
    assert isinstance(config.reranker, CrossEncoderSpec)
    assert (config.reranker.model, config.reranker.max_length) == (head, 64)


def test_the_type_of_a_rerankers_weights_may_be_auto(tmp_path: Path) -> None:
    words = ["run=r", "queries=q", "corpus=c", "out=o", "reranker=org/name", "reranker.dtype=auto"]
    assert load(RerankConfig, [], words).reranker == CrossEncoderSpec(model="org/name")


def test_another_qwen_name_is_refused_with_the_three() -> None:
    with pytest.raises(ConfigError, match=r"0\.6B, .*4B, .*8B"):
        load(RerankConfig, (), [*LINE[1:4], "reranker=Qwen/Qwen3-Reranker-7B", "out=o"])


@pytest.mark.ray
def test_workers_give_the_same_run(files: Path) -> None:
    assert main(LINE) == 0
    assert main([*LINE[:-1], "out=ray.txt", "workers=1", "split_pairs=1"]) == 0
    assert Path("ray.txt").read_bytes() == Path("new.txt").read_bytes()


def test_ids_that_no_trec_line_carries_are_refused_before_the_work(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("corpus.jsonl").write_text('{"id": "a b", "text": "heart"}\n')
    Run.from_lists([("q1", ["a b"], [1])]).write("run.parquet")
    words = ["rerank", "run=run.parquet", *COMMON[1:], "reranker=bm25"]
    assert main([*words, "out=new.txt"]) == 2
    assert "doc_id 'a b': TREC run lines cannot carry blanks" in capsys.readouterr().err
    assert not Path("new.txt.raydist").exists()
    assert main([*words, "out=new.parquet"]) == 0
    assert read_run("new.parquet").table["doc_id"].to_pylist() == ["a b"]
