"""A small collection for training files that name texts by their ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.sample_files import jsonl


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, str]:
    """Nine documents and three queries."""
    corpus = jsonl(
        tmp_path / "corpus.jsonl",
        [{"id": f"d{i}", "title": "T" if i == 1 else "", "text": f"text {i}"} for i in range(9)],
    )
    queries = jsonl(
        tmp_path / "queries.jsonl", [{"id": f"q{i}", "text": f"query {i}"} for i in (1, 2, 3)]
    )
    return {"corpus": str(corpus), "queries": str(queries)}
