"""A small corpus with a model that embeds it in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

WORDS = (
    "retrieval",
    "index",
    "query",
    "document",
    "vector",
    "corpus",
    "answer",
    "passage",
    "model",
)


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A jsonl of 157 documents of mixed lengths, every third with a title."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with open(path, "w") as out:
        for i in range(157):
            words = [WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(1 + i * 5 % 61)]
            title = WORDS[i % len(WORDS)] if i % 3 == 0 else ""
            out.write(json.dumps({"id": f"d{i}", "title": title, "text": " ".join(words)}) + "\n")
    return path
