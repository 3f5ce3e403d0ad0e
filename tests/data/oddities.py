"""One cell of the readers' table: files as users have them, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raydist.data.readers import read_documents, read_qrels, read_queries, read_run
from raydist.data.spec import (
    CorpusSource,
    Fields,
    QrelsSource,
    QueriesSource,
    RunSource,
    TextFields,
)


@dataclass(frozen=True, slots=True)
class Refused:
    """An error is expected whose message matches a pattern."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Cell:
    """Files, how they are read, and what another implementation or the rule on paper reads.

    Attributes:
        name: format and oddity, `tsv: a header with capitals`.
        files: contents by name, relative to an empty folder; a callable returns them.
        expected: the records, a callable that computes them, or a refusal.
        options: fields of the source; `fields` is a mapping.
        path: what is read, relative to the folder; the only file if empty.
    """

    name: str
    files: Mapping[str, bytes] | Callable[[], Mapping[str, bytes]]
    expected: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""

    def source(self, folder: Path) -> dict[str, Any]:
        """Writes the files and returns the fields of the source that reads them."""
        files = self.files() if callable(self.files) else self.files
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return {"path": str(folder / (self.path or next(iter(files)))), **self.options}


def documents(path: str, **options: Any) -> list[tuple[str, str, str]]:
    """Returns `(id, title, text)` of each document."""
    fields = Fields(**options.pop("fields", {}))
    tables = read_documents(CorpusSource(path=(path,), fields=fields, **options))
    return [tuple(row.values()) for table in tables for row in table.to_pylist()]


def queries(path: str, **options: Any) -> list[tuple[str, str]]:
    """Returns `(id, text)` of each query."""
    fields = TextFields(**options.pop("fields", {}))
    source = QueriesSource(path=(path,), fields=fields, **options)
    return [(query.query_id, query.text) for query in read_queries(source)]


def qrels(path: str, **options: Any) -> Any:
    """Returns the judgements."""
    return read_qrels(QrelsSource(path=(path,), **options))


def run(path: str, **options: Any) -> list[tuple[str, str, float]]:
    """Returns `(query, document, score)` of each row of a ranking."""
    table = read_run(RunSource(path=path, **options)).table
    return [tuple(row.values()) for row in table.to_pylist()]
