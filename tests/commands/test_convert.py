from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydist.cli import main


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": f"text {i}"}) + "\n" for i in range(4))
    )
    (tmp_path / "q.tsv").write_text("1\tone\n")
    (tmp_path / "qrels.txt").write_text("1 0 d3 1\n")
    (tmp_path / "run.txt").write_text("1 Q0 d0 1 2.5 t\n1 Q0 d1 2 0.1 t\n")
    return tmp_path


def test_a_run_goes_to_parquet_and_back(data: Path) -> None:
    assert main(["convert", "in=run.txt", "out=run.parquet"]) == 0
    assert main(["convert", "in=run.parquet", "out=again.txt"]) == 0
    assert (data / "again.txt").read_text() == (data / "run.txt").read_text()


def test_a_run_becomes_candidates_and_samples(data: Path) -> None:
    texts = ["corpus=c.jsonl", "queries=q.tsv"]
    assert main(["convert", "in=run.txt", "out=lists.jsonl", *texts, "depth=1"]) == 0
    (line,) = map(json.loads, (data / "lists.jsonl").read_text().splitlines())
    assert line["candidates"] == [{"id": "d0", "text": "text 0", "score": 2.5}]
    assert main(["convert", "in=run.txt", "out=train.jsonl", *texts, "qrels=qrels.txt"]) == 0
    (line,) = map(json.loads, (data / "train.jsonl").read_text().splitlines())
    assert line["pos"] == ["text 3"] and line["neg"] == ["text 0", "text 1"]
    assert main(["convert", "in=train.jsonl", "out=t.jsonl", "to=tevatron"]) == 0
    (line,) = map(json.loads, (data / "t.jsonl").read_text().splitlines())
    assert [p["text"] for p in line["negative_passages"]] == ["text 0", "text 1"]


def test_ids_survive_and_samples_with_scores_become_lists_and_runs_again(data: Path) -> None:
    texts = ["corpus=c.jsonl", "queries=q.tsv"]
    assert main(["convert", "in=run.txt", "out=lists.jsonl", *texts]) == 0
    for name, source in (("train.jsonl", "lists.jsonl"), ("t.jsonl", "train.jsonl")):
        to = "tevatron" if name == "t.jsonl" else "flagembedding"
        assert main(["convert", f"in={source}", f"out={name}", f"to={to}"]) == 0
    (line,) = map(json.loads, (data / "t.jsonl").read_text().splitlines())
    passages = [*line["positive_passages"], *line["negative_passages"]]
    assert [(p["docid"], p["text"]) for p in passages] == [("d0", "text 0"), ("d1", "text 1")]
    for source in ("lists.jsonl", "train.jsonl"):
        assert main(["convert", f"in={source}", "out=again.txt", "to=trec"]) == 0
        rows = [line.split()[:5] for line in (data / "again.txt").read_text().splitlines()]
        assert rows == [line.split()[:5] for line in (data / "run.txt").read_text().splitlines()]
    assert main(["convert", "in=train.jsonl", "out=more.jsonl", "to=rerank"]) == 0
    assert (data / "more.jsonl").read_text() == (data / "lists.jsonl").read_text()
    assert main(["convert", "in=t.jsonl", "out=x.jsonl", "to=rerank"]) == 2  # it has no scores
    assert main(["convert", "in=t.jsonl", "out=back.jsonl", "to=flagembedding"]) == 0
    assert json.loads((data / "back.jsonl").read_text())["pos_id"] == ["d0"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in=run.txt", "out=x.jsonl", "to=rerank"], "corpus: required to make rerank of a run"),
        (["in=run.txt", "out=x", "to=ciff"], "to = 'ciff': in = 'run.txt' holds a run"),
        (["in=run.txt", "out=x.txt", "to=parquet"], "does not end with .txt, but with .parquet"),
        (["in=run.txt", "out=x.ciff"], "a TREC run does not end with .ciff"),
        (["in=run.txt", "out=x.CIFF.gz"], "a TREC run does not end with .ciff.gz"),
        (["in=run.txt", "out=x.bmp", "to=trec"], "a TREC run does not end with .bmp"),
        (["in=run.txt", "out=x.pq", "to=trec"], "a TREC run does not end with .pq"),
        (["in=run.txt", "out=x.bmp", "to=rerank"], "a file of rerank lines does not end with .bmp"),
        (["in=c.jsonl", "out=x.jsonl"], "a run line of 6 columns, or a sample"),
        (["in=none.txt", "out=x"], "none.txt: no such file"),
        (["in=.", "out=x.ciff"], "has no manifest.json"),
        (["out=x"], "in: required"),
    ],
)
def test_mistakes_are_named(
    data: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(data.glob("x*"))


def test_a_dry_run_writes_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "in=run.txt", "out=run.parquet", "--dry-run"]) == 0
    assert "would convert the run run.txt to parquet" in capsys.readouterr().err
    assert not (data / "run.parquet").exists()


def test_a_remote_run_is_converted_into_a_remote_run(data: Path, s3: str) -> None:
    from raydist.stores.objects import Objects

    bucket = s3
    Objects(bucket).write("run.txt", (data / "run.txt").read_bytes())
    assert main(["convert", f"in={bucket}/run.txt", "out=x/run.parquet", f"storage={bucket}"]) == 0
    assert main(["convert", f"in={bucket}/x/run.parquet", "out=local.txt"]) == 0
    assert (data / "local.txt").read_text() == (data / "run.txt").read_text()


def test_an_index_goes_to_ciff_and_back_with_the_same_ranking(data: Path) -> None:
    assert main(["index", "corpus=c.jsonl", "out=idx"]) == 0
    assert main(["convert", "in=idx", "out=idx.ciff.gz"]) == 0
    assert main(["convert", "in=idx.ciff.gz", "out=again"]) == 0
    assert main(["convert", "in=idx.ciff.gz", "out=again"]) == 0  # already converted
    (data / "words.tsv").write_text("1\ttext 2\n")
    for name in ("idx", "again"):
        words = [f"index={name}", "queries=words.tsv", "k=3", f"out={name}.txt"]
        assert main(["search", *words]) == 0
    assert (data / "idx.txt").read_text() == (data / "again.txt").read_text() != ""
    assert main(["convert", "in=idx", "out=idx.bmp", "block_size=8"]) == 0
    assert (data / "idx.bmp").stat().st_size > 0
