"""The whole in a few lines: from a corpus to a trained, fused and reranked search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydist.cli import main

TOPICS = ["heron", "otter", "beaver", "falcon"]
COMMANDS = """
index corpus=corpus.jsonl out=idx
search index=idx queries=queries.tsv k=24 out=bm25.txt
mine run=bm25.txt corpus=corpus.jsonl queries=queries.tsv qrels=qrels.txt out=train.jsonl
train data=train.jsonl model.scratch.vocab=64 out=model steps=2 batch_size=4 tracking=none
embed corpus=corpus.jsonl model=model out=vectors
search index=idx,vectors fusion=rrf queries=queries.tsv k=10 out=fused.txt
rerank run=fused.txt corpus=corpus.jsonl queries=queries.tsv reranker=bm25 out=reranked.txt
evaluate run=fused.txt,reranked.txt qrels=qrels.txt measures=P@5 out=report tracking=none
"""


def test_a_corpus_becomes_a_tuned_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = (f"{TOPICS[i % 4]} beside {TOPICS[(i + 1 + i % 3) % 4]}" for i in range(24))
    rows = (json.dumps({"id": f"d{i}", "text": text}) for i, text in enumerate(texts))
    Path("corpus.jsonl").write_text("\n".join(rows))
    Path("queries.tsv").write_text("".join(f"q{i}\t{topic}\n" for i, topic in enumerate(TOPICS)))
    Path("qrels.txt").write_text("".join(f"q{i % 4} 0 d{i} 1\n" for i in range(24)))
    for line in COMMANDS.strip().splitlines():
        assert main(line.split()) == 0, line
    report = json.loads(Path("report/results.json").read_text())
    assert [row["run"] for row in report["rows"]] == ["fused", "reranked"]
