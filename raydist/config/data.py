"""The inputs of every verb: `corpus=`, `queries=`, `qrels=` and `run=`.

A scalar is the path: `corpus=DIR/corpus.jsonl` is `corpus.path=DIR/corpus.jsonl`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from raydist.config.base import Block, execution


def split_paths(value: Any) -> Any:
    """Cuts text at commas that are outside brackets and braces; other types are left alone."""
    if not isinstance(value, str):
        return value
    parts, depth = [""], 0
    for letter in value:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


Paths = Annotated[tuple[str, ...], BeforeValidator(split_paths)]
"""One path or several: files, globs, directories, URIs, `irds:` ids."""

Format = Literal["jsonl", "tsv", "parquet", "trec"]


class TextFields(Block):
    """Own names of a file's columns; the usual ones are found by themselves."""

    id: str | None = Field(None, min_length=1)
    """Name of the id, or a column number (from 1) of a table without header."""
    text: str | None = Field(None, min_length=1)
    """Name or number of the text; for TREC topics `title`, `desc`, `narr`, joined by `+`."""

    def mapping(self) -> dict[str, str] | None:
        """Returns the names that are given, None if there is none."""
        return self.model_dump(exclude_none=True) or None


class Fields(TextFields):
    """Own names of a corpus's columns; the usual ones are found by themselves."""

    title: str | None = Field(None, min_length=1)
    """Name or number of the title, if there is one."""


class _Source(Block):
    primary: ClassVar[str | None] = "path"

    kind: Literal["files", "docstrings"] = "files"
    """`docstrings`: the quickstart's collection, made from Python's own documentation."""
    path: Paths = ()
    """Files, globs, directories, URIs (`s3://`, `memory://`, ...) or `irds:` ids."""
    ids: str | None = None
    """Keep only the ids in this file (one per line, `#` for comments)."""
    exclude_ids: str | None = None
    """Leave out the ids in this file."""
    missing: Literal["error", "warn", "ignore"] = execution("error")
    """What to do about ids in `ids` that the source does not have."""

    @model_validator(mode="after")
    def _path_or_kind(self) -> _Source:
        if self.kind == "files" and not self.path:
            raise ValueError("a path is required")
        if self.kind != "files" and self.path:
            raise ValueError(f"kind={self.kind} takes no path")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths as the readers take them."""
        return self.path if self.kind == "files" else (f"{self.kind}:",)

    def arguments(self) -> dict[str, Any]:
        """Returns the reader's keyword arguments: `read_documents(**config.corpus.arguments())`."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        given = {name: v for name, v in given.items() if name not in ("kind", "path", "fields")}
        if "fields" in type(self).model_fields:
            given["fields"] = getattr(self, "fields").mapping()  # noqa: B009
        return {"path": self.paths, **given}


class CorpusSource(_Source):
    """Documents: where they are and how to read them."""

    format: Format | None = None
    """Told from name or content if not given."""
    fields: Fields = Fields()
    """Own names of id, title and text."""
    order: Literal["source", "list"] = "source"
    """Order of the documents: the source's, or that of `ids`."""
    on_bad: Literal["error", "skip"] = execution("error")
    """A bad line stops the work with its place, or is skipped and counted."""
    rejects: str | None = execution(None)
    """Where skipped lines are written (jsonl)."""
    encoding_errors: Literal["strict", "replace"] = execution("strict")
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
    rejects: str | None = execution(None)
    """Where skipped lines are written (jsonl)."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """Broken UTF-8 is a bad line, or is read with replacement characters."""


class QrelsSource(_Source):
    """Judgements: TREC, BEIR's TSV, or three columns."""


class RunSource(Block):
    """A run: TREC's six columns, or Parquet."""

    primary: ClassVar[str | None] = "path"

    path: str = Field(min_length=1)
    """The file."""
    sort: bool = False
    """Order each query's documents by score where the file does not."""

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments of `read_run`."""
        return {"path": self.path, "sort": self.sort}
