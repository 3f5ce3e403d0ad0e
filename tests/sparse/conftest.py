"""A corpus for the small sparse model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

WORDS = ("vector", "index", "retrieval", "document", "query", "model", "search", "rank", "score")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = [
        {
            "id": f"d{n}",
            "title": "",
            "text": " ".join(WORDS[(n * i) % 9] for i in range(1, 4 + n % 9)),
        }
        for n in range(60)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path
