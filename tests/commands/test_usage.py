"""The command line in a few lines: index, search, evaluate; look before, repeat after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydist import extras
from raydist.cli import main

CORPUS = [{"id": "a", "text": "cats and dogs"}, {"id": "b", "text": "a dog"}, {"id": "c"}]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = "".join(json.dumps({"text": "birds", **row}) + "\n" for row in CORPUS)
    Path("corpus.jsonl").write_text(lines)
    Path("queries.tsv").write_text("q1\tcats\nq2\tdogs\n")
    Path("qrels.txt").write_text("q1 0 a 1\nq2 0 b 1\n")


def test_index_search_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "corpus=corpus.jsonl", "out=idx"]) == 0
    assert main(["search", "index=idx", "queries=queries.tsv", "k=10", "out=run.txt"]) == 0
    assert main(["evaluate", "run=run.txt", "qrels=qrels.txt", "measures=RR", "tracking=none"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["RR", "1.0000"]


def test_a_dry_run_says_what_would_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "corpus=corpus.jsonl", "out=idx", "--dry-run"]) == 0
    assert capsys.readouterr().err == "would index 1 split of corpus.jsonl into idx\n"
    assert not Path("idx").exists()


def test_the_same_command_again_finds_its_work_done(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["index", "corpus=corpus.jsonl", "out=idx"]
    assert main(words) == 0
    assert main(words) == 0
    assert "idx: already built with the same configuration" in capsys.readouterr().err
    assert main([*words, "analyzer.stemmer=none"]) == 2
    assert 'analyzer.stemmer: "porter" -> "none"' in capsys.readouterr().err


def test_the_configuration_of_an_output_repeats_the_command() -> None:
    assert main(["index", "corpus=corpus.jsonl", "out=idx"]) == 0
    assert main(["index", "idx/config.json", "out=again"]) == 0
    manifests = [json.loads(Path(name, "manifest.json").read_text()) for name in ("idx", "again")]
    assert manifests[0]["config_hash"] == manifests[1]["config_hash"]
    assert manifests[0]["inputs"] == manifests[1]["inputs"]


def test_help_is_asked_for_in_three_ways(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    answers = []
    for words in (["index", "--help"], ["index", "-h"], ["help", "index"]):
        assert main(words) == 0
        answers.append(capsys.readouterr().out)
    assert len(set(answers)) == 1
    rows = {line.split()[0]: line.split() for line in answers[0].splitlines() if line.strip()}
    assert rows["split_bytes"][1:4] == ["size", "32", "MiB"]
    assert list(rows).index("storage") > list(rows).index("corpus.path")
    assert main(["help", "evaluate"]) == 0
    assert "qrels                " in (out := capsys.readouterr().out) and "required" in out
    for words in (["help"], ["-h"]):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith("raydist: ")


def test_a_word_without_its_key_is_given_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "corpus.jsonl", "out=idx"]) == 2
    assert main(["evaluate", "run.txt", "qrels.txt"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: corpus.jsonl: expected key=value or a YAML file; did you mean corpus=corpus.jsonl?",
        "error: run.txt: expected key=value or a YAML file; did you mean run=run.txt?",
        "error: qrels.txt: expected key=value or a YAML file; did you mean qrels=qrels.txt?",
    ]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "train data=d model=m out=o",
            "raydist train needs torch, which is not installed: pip install 'raydist[train]'",
        ),
        (
            "index corpus=corpus.jsonl out=o workers=2",
            "workers = 2 needs ray, which is not installed: pip install 'raydist[ray]'",
        ),
        (
            "serve reranker=bm25",
            "raydist serve needs fastapi, which is not installed: pip install 'raydist[serve]'",
        ),
        (
            "evaluate run=r qrels=q tracking=sqlite",
            "tracking.uri = sqlite needs mlflow, which is not installed: "
            "pip install 'raydist[track]'",
        ),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    words: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "is_installed", lambda package: False)
    assert main(words.split()) == 2
    assert capsys.readouterr().err == f"error: {line}\n"
    assert sorted(Path().iterdir()) == [
        Path("corpus.jsonl"),
        Path("qrels.txt"),
        Path("queries.tsv"),
    ]


def test_without_mlflow_nothing_is_tracked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "is_installed", lambda package: False)
    extras.has_mlflow.cache_clear()
    Path("run.txt").write_text("q1 Q0 a 1 1.0 t\n")
    assert main(["evaluate", "run=run.txt", "qrels=qrels.txt", "measures=RR"]) == 0
    err = capsys.readouterr().err
    extras.has_mlflow.cache_clear()
    assert "not tracked: MLflow is not installed (pip install 'raydist[track]')" in err
    assert not Path("mlflow.db").exists()


def test_an_index_is_no_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "corpus=corpus.jsonl", "out=idx"]) == 0
    capsys.readouterr()
    assert main(["index", "corpus=idx", "out=again"]) == 2
    err = capsys.readouterr().err
    assert "idx: is a bow-index that raydist wrote, no documents; name the files that it was" in err
    assert not Path("again").exists()
