"""No verb that loads a model shows the bars and reports of the libraries that load it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import raydist as rd
from raydist.cli import main

DOCUMENTS = [
    {"id": "a", "text": "an index of a corpus"},
    {"id": "b", "text": "a query and answers"},
]
SAMPLE = {"query": "index", "pos": ["an index"], "neg": ["an answer"]}


def test_loading_a_model_shows_no_bars(
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in DOCUMENTS))
    Path("queries.tsv").write_text("q1\tindex\n")
    Path("run.txt").write_text("q1 Q0 a 1 2 t\nq1 Q0 b 2 1 t\n")
    Path("train.jsonl").write_text(f"{json.dumps(SAMPLE)}\n" * 2)
    ranked = "run=run.txt corpus=corpus.jsonl queries=queries.tsv"
    lines = [
        f"embed corpus=corpus.jsonl model={tiny_bert} out=vec",
        "search index=vec queries=queries.tsv k=1 out=dense.txt",
        f"rerank {ranked} reranker={tiny_bert} out=new.txt",
        f"score {ranked} teacher={tiny_bert} out=scores.jsonl",
        f"train data=train.jsonl model={tiny_bert} out=trained steps=1 batch_size=2 tracking=none",
        f"distill data=scores.jsonl corpus=corpus.jsonl queries=queries.tsv model={tiny_bert} "
        "out=distilled steps=1 batch_size=1 tracking=none",
        "export checkpoint=trained out=exported name=owner/name",
    ]
    for line in lines:
        assert main(line.split()) == 0, line
        said = capsys.readouterr().err
        assert "%|" not in said and "Loading" not in said and "Some weights" not in said, line
    rd.Encoder(tiny_bert)
    rd.Reranker(tiny_bert)
    assert capsys.readouterr() == ("", "")
