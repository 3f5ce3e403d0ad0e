"""No verb ignores a flag: it acts on it, or refuses it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from raydist.cli import main
from raydist.commands import VERBS

TAKEN = {
    "--append": {"index", "embed", "submit", "completion"},
    "--resume": {
        *("index", "embed", "rerank", "score", "train", "distill", "tune"),  # these continue
        *("submit", "completion"),
    },
    "--dry-run": VERBS.keys() - {"doctor", "fields"},
}
LINES = {
    "analyze": "text=a",
    "search": "index=I",
    "evaluate": "run=r qrels=q",
    "benchmark": "collections.a=c systems.bm25.search.k=9 out=O",
    "embed": "corpus=c model=m out=O",
    "mine": "run=r queries=q qrels=j corpus=c out=O",
    "train": "data=d model=m out=O",
    "distill": "data=d model=m out=O",
    "score": "run=r queries=q corpus=c teacher=bm25 out=O",
    "rerank": "run=r queries=q corpus=c reranker=bm25 out=O",
    "export": "checkpoint=c out=O",
    "convert": "in=i out=O",
    "serve": "reranker=bm25",
    "mcp": "index=I",
    "merge": "out=O",
    "verify": "O",
    "status": "O",
    "ls": "O",
    "inspect": "O",
    "diff": "O P",
    "pipeline": "p.yaml",
    "tracking": "replay O",
}


@pytest.mark.parametrize("flag", TAKEN)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_refuses_a_flag_that_it_would_ignore(
    verb: str, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    if verb in TAKEN[flag]:
        module = importlib.import_module(f"raydist.commands.{verb}")
        assert flag in getattr(module, "FLAGS", ("--dry-run",))
        return
    assert main([verb, *LINES.get(verb, "").split(), flag]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {flag}: {verb} has no such flag; it takes ")
    assert list(tmp_path.iterdir()) == []


def test_what_acts_on_appending_says_so() -> None:
    for verb in VERBS:
        source = inspect.getsource(importlib.import_module(f"raydist.commands.{verb}"))
        assert ("flags.append" in source) == (verb in TAKEN["--append"] - {"submit", "completion"})


def test_a_job_is_not_submitted_with_a_flag_that_its_verb_would_ignore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["submit", "rerank", *LINES["rerank"].split(), "--append", "--dry-run"]
    assert main(words) == 2
    assert "--append: rerank has no such flag" in capsys.readouterr().err
