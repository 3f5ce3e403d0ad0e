"""The command line in a few lines: index, search, evaluate; look before, repeat after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
