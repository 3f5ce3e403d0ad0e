"""What verbs write, apart from the records of how and when."""

from __future__ import annotations

from pathlib import Path

RECORDS = ("manifest.json", "config.json", "metrics.jsonl", "tracking.jsonl", "facts.json")


def results(folder: Path) -> dict[str, bytes]:
    """Returns the result files below a folder by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in RECORDS
        if not path.name.startswith(".") and path.suffix != ".done"
    }
