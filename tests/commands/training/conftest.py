"""A tiny model and the files that the training verbs read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.training.runs import write
from tests.training.jobs import record
from tests.training.small import checkpoint, samples, texts


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 2 layers x 32."""
    return checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Samples, and a corpus with queries, judgements, lists and a run, in the present folder."""
    monkeypatch.chdir(tmp_path)
    write("train.jsonl", [record(sample) for sample in samples(scores=True)])
    pool = texts()
    write("corpus.jsonl", [{"id": f"d{i}", "text": text} for i, text in enumerate(pool)])
    write("queries.jsonl", [{"id": f"q{i}", "text": pool[i * 5]} for i in range(8)])
    Path("qrels.txt").write_text("".join(f"q{i} 0 d{i * 5} 1\n" for i in range(8)))
    candidates = [{"id": f"d{j}", "score": (j * 7) % 12} for j in range(12)]
    lists = [{"query_id": f"q{i}", "candidates": candidates[i % 3 :]} for i in range(8)]
    write("distill.jsonl", lists)
    return tmp_path
