"""The inputs of every verb: `corpus=`, `queries=`, `qrels=` and `run=`.

A scalar is the path: `corpus=DIR/corpus.jsonl` is `corpus.path=DIR/corpus.jsonl`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MinLen

from raydist.spec import EXECUTION, FromText


def split_paths(text: str) -> list[str]:
    """Cuts text at commas that are outside brackets and braces."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


Paths = Annotated[tuple[str, ...], FromText(split_paths)]
"""One path or several: files, globs, directories, URIs, `irds:` ids."""

Name = Annotated[str, MinLen(1)]

Format = Literal["jsonl", "tsv", "parquet", "trec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFields:
    """Own names of a file's columns; the usual ones are found by themselves."""

    id: Name | None = None
    """Name of the id, or a column number (from 1) of a table without header."""
    text: Name | None = None
    """Name or number of the text; for TREC topics `title`, `desc`, `narr`, joined by `+`."""

    def mapping(self) -> dict[str, str] | None:
        """Returns the names that are given, None if there is none."""
        names = {field.name: getattr(self, field.name) for field in fields(self)}
        return {field: name for field, name in names.items() if name is not None} or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields(TextFields):
    """Own names of a corpus's columns; the usual ones are found by themselves."""

    title: Name | None = None
    """Name or number of the title, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    primary: ClassVar[str] = "path"

    kind: Literal["files", "docstrings"] = "files"
    """`docstrings`: the quickstart's collection, made from Python's own documentation."""
    path: Paths = ()
    """Files, globs, directories, URIs (`s3://`, `memory://`, ...) or `irds:` ids."""
    ids: str | None = None
    """Keep only the ids in this file (one per line, `#` for comments)."""
    exclude_ids: str | None = None
    """Leave out the ids in this file."""
    missing: Annotated[Literal["error", "warn", "ignore"], EXECUTION] = "error"
    """What to do about ids in `ids` that the source does not have."""

    def __post_init__(self) -> None:
        if self.kind == "files" and not self.path:
            raise ValueError("a path is required")
        if self.kind != "files" and self.path:
            raise ValueError(f"kind={self.kind} takes no path")

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths as the readers take them."""
        return self.path if self.kind == "files" else (f"{self.kind}:",)

    def arguments(self) -> dict[str, Any]:
        """Returns the reader's keyword arguments: `read_documents(**config.corpus.arguments())`."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        del given["kind"]
        if "fields" in given:
            given["fields"] = given["fields"].mapping()
        return {**given, "path": self.paths}


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSource(_Source):
    """Documents: where they are and how to read them."""

    format: Format | None = None
    """Told from name or content if not given."""
    fields: Fields = Fields()
    """Own names of id, title and text."""
    order: Literal["source", "list"] = "source"
    """Order of the documents: the source's, or that of `ids`."""
    on_bad: Annotated[Literal["error", "skip"], EXECUTION] = "error"
    """A bad line stops the work with its place, or is skipped and counted."""
    rejects: Annotated[str | None, EXECUTION] = None
    """Where skipped lines are written (jsonl)."""
    encoding_errors: Annotated[Literal["strict", "replace"], EXECUTION] = "strict"
    """Broken UTF-8 is a bad line, or is read with replacement characters."""

    def inputs(self) -> dict[str, Any]:
        """Returns the paths that decide what is read, by name."""
        files = {"corpus.ids": self.ids, "corpus.exclude_ids": self.exclude_ids}
        return {"corpus": self.paths} | {name: path for name, path in files.items() if path}

    def split_arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments of `read_split` but `rejects`, which is one per split."""
        return {
            "fields": self.fields.mapping(),
            "on_bad": self.on_bad,
            "encoding_errors": self.encoding_errors,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class QueriesSource(_Source):
    """Queries: where they are and how to read them."""

    format: Format | None = None
    """Told from name or content if not given."""
    fields: TextFields = TextFields()
    """Own names of id and text."""
    order: Literal["source", "list"] = "source"
    """Order of the queries: the source's, or that of `ids`."""
    on_bad: Literal["error", "skip"] = "error"
    """A bad line stops the work with its place, or is skipped and counted."""
    rejects: Annotated[str | None, EXECUTION] = None
    """Where skipped lines are written (jsonl)."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """Broken UTF-8 is a bad line, or is read with replacement characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QrelsSource(_Source):
    """Judgements: TREC, BEIR's TSV, or three columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSource:
    """A run: TREC's six columns, or Parquet."""

    primary: ClassVar[str] = "path"

    path: Name
    """The file."""
    sort: bool = False
    """Order each query's documents by score where the file does not."""

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments of `read_run`."""
        return {"path": self.path, "sort": self.sort}
