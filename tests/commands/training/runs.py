"""What tests of the training verbs write and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VALIDATION = [
    *("validation.dev.corpus=corpus.jsonl", "validation.dev.queries=queries.jsonl"),
    "validation.dev.qrels=qrels.txt",
]
"""A listener on the files of the `files` fixture."""


def write(name: str, records: list[Any]) -> None:
    """Writes a jsonl file."""
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records))


def metrics(out: str) -> list[dict[str, float]]:
    """The logged steps of a run."""
    return [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]
