"""The inputs of every verb: `corpus=`, `queries=`, `qrels=` and `run=`; what can be set of mining.

A scalar is the path: `corpus=DIR/corpus.jsonl` is `corpus.path=DIR/corpus.jsonl`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Le, MinLen

from raydist.spec import ADDED, EXECUTION, LENIENT, FromText, Reads


def split_paths(text: str) -> list[str]:
    """Splits text at commas outside brackets and braces, and outside of names of local files."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    paths = []
    while parts:
        whole = (n for n in range(len(parts), 1, -1) if os.path.exists(",".join(parts[:n])))
        taken = next(whole, 1)
        paths.append(",".join(parts[:taken]).strip())
        parts = parts[taken:]
    return [path for path in paths if path]


Paths = Annotated[tuple[str, ...], FromText(split_paths)]
"""One path or several: files, globs, directories, URIs, `irds:` ids."""

Name = Annotated[str, MinLen(1)]
PathLike = str | os.PathLike[str]

Format = Literal["jsonl", "json", "tsv", "csv", "parquet", "arrow", "trec"]
"""`json`: an array, or objects over several lines; `csv`: with quotes, whatever the separator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFields:
    """Own names of a file's columns; the usual ones need none."""

    id: Name | None = None
    """Name of the id, or a column number (from 1) of a table without header."""
    text: Name | None = None
    """Name or number of the text; for TREC topics elements, joined by `+` (`title+desc`)."""

    def mapping(self) -> dict[str, str] | None:
        """Returns the names that are set, None if there is none."""
        names = {field.name: getattr(self, field.name) for field in fields(self)}
        return {field: name for field, name in names.items() if name is not None} or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields(TextFields):
    """Own names of a corpus's columns; the usual ones need none."""

    title: Name | None = None
    """Name or number of the title, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    primary: ClassVar[str] = "path"

    kind: Literal["files", "docstrings"] = "files"
    """`docstrings`: the quickstart's collection, made from Python's own documentation."""
    path: Paths = ()
    """Files, globs, directories, URIs (`s3://`, `hf://`, ...), `irds:` ids; `-` is stdin."""
    ids: Annotated[str | None, Reads()] = None
    """Keep only the ids in this file (one per line, `#` for comments)."""
    exclude_ids: Annotated[str | None, Reads()] = None
    """Leave out the ids in this file."""
    missing: Annotated[Literal["error", "warn", "ignore"], EXECUTION] = "error"
    """What to do about ids in `ids` that the source does not have."""

    def __post_init__(self) -> None:
        if isinstance(self.path, str | os.PathLike):
            object.__setattr__(self, "path", (os.fspath(self.path),))
        if self.kind == "files" and not self.path:
            raise ValueError("a path is required")
        if self.kind != "files" and self.path:
            raise ValueError(f"kind={self.kind} takes no path")

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths as the readers take them."""
        return self.path if self.kind == "files" else (f"{self.kind}:",)

    @classmethod
    def of(cls, source: Self | PathLike | Sequence[PathLike]) -> Self:
        """Returns the source itself, or that of one or several paths."""
        if isinstance(source, str | os.PathLike):
            return cls(path=(os.fspath(source),))
        if isinstance(source, Sequence):
            return cls(path=tuple(os.fspath(path) for path in source))
        return source

    def options(self) -> dict[str, Any]:
        """Returns how the paths are read, for the fingerprint of an input."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["kind"], values["path"]
        if "fields" in values:
            values["fields"] = values["fields"].mapping()
        values.pop("columns", None)  # no fingerprint of before them needs it
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSource(_Source):
    """Documents: where they are and how to read them."""

    format: Format | None = None
    """Detected from the name or the content if not given."""
    fields: Fields = Fields()
    """Own names of id, title and text."""
    order: Literal["source", "list"] = "source"
    """Order of the documents: the source's, or that of `ids`."""
    on_bad: Annotated[Literal["error", "skip"], LENIENT] = "error"
    """A bad line is an error that names it, or is skipped and counted."""
    rejects: Annotated[str | None, EXECUTION] = None
    """The file that skipped lines are written to (jsonl)."""
    encoding_errors: Annotated[Literal["strict", "replace"], LENIENT] = "strict"
    """Broken UTF-8 is a bad line, or is read with replacement characters."""
    columns: Annotated[tuple[Name, ...], ADDED] = ()
    """Fields that `index` and `embed` store for filters (and sorting), by name, each with a type if
    the file shows another: `year,source:string`, int64, float64, string, bool or timestamp."""

    def __post_init__(self) -> None:
        super(CorpusSource, self).__post_init__()
        names = [each.rpartition(":")[0] or each for each in self.columns]
        if len(set(names)) < len(names):
            raise ValueError("columns: a name occurs twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueriesSource(_Source):
    """Queries: where they are and how to read them."""

    format: Format | None = None
    """Detected from the name or the content if not given."""
    fields: TextFields = TextFields()
    """Own names of id and text."""
    order: Literal["source", "list"] = "source"
    """Order of the queries: the source's, or that of `ids`."""
    on_bad: Literal["error", "skip"] = "error"
    """A bad line is an error that names it, or is skipped and counted."""
    rejects: Annotated[str | None, EXECUTION] = None
    """The file that skipped lines are written to (jsonl)."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """Broken UTF-8 is a bad line, or is read with replacement characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQueries(QueriesSource):
    """Queries of a search."""

    exclude_own: Annotated[bool, ADDED] = False
    """A query is no document for itself: leaves out the document with the query's id (ArguAna)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QrelsSource(_Source):
    """Judgements: TREC's four columns, three columns, Parquet or JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSource:
    """A run: TREC's six columns, MS MARCO's three, ColBERT's four, Parquet or JSON."""

    primary: ClassVar[str] = "path"

    path: Name
    """The file."""
    sort: bool = False
    """Order each query's documents by score; without it, a file in another order is an error."""

    @classmethod
    def of(cls, source: RunSource | PathLike) -> RunSource:
        """Returns the source itself, or that of a file."""
        return source if isinstance(source, RunSource) else cls(path=os.fspath(source))

    @property
    def paths(self) -> tuple[str, ...]:
        """The file, as other sources name theirs."""
        return (self.path,)

    def options(self) -> dict[str, Any]:
        """Returns how the file is read, for the fingerprint of an input."""
        return {"sort": self.sort}


AnySource = CorpusSource | QueriesSource | QrelsSource | RunSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSource:
    """A data set of training samples: where they are, or what they are written from."""

    path: Paths
    """Samples, a run, judgements, a BEIR folder or `irds:ID`; several files are one data set."""
    format: str | None = None
    """A key of `lines.FORMATS`; detected if not given."""
    corpus: CorpusSource | None = None
    """Documents that ids refer to."""
    queries: QueriesSource | None = None
    """Queries that ids refer to."""
    qrels: QrelsSource | None = None
    """Judgements that make positives."""
    run: RunSource | None = None
    """A run whose other documents become negatives, where `path` is not a run itself."""
    positives: Literal["judged", "retrieved"] = "judged"
    """Positives: all that are judged relevant, or those of them that the run has."""
    relevance: int = 1
    """Lowest grade of a positive."""
    split: str = "train"
    """Split of a BEIR folder's judgements."""
    on_bad: Literal["error", "skip"] = "error"
    """A bad line is an error, or is skipped, counted and written to `rejects.jsonl`."""
    need_negatives: bool = False
    """A sample without a negative is a bad line; one from judgements and a run is left out."""
    need_scores: bool = False
    """A sample without teacher scores is a bad line."""
    max_rows: int = 0
    """Use the first samples only; 0 = all."""

    def __post_init__(self) -> None:
        if isinstance(self.path, str | os.PathLike):
            object.__setattr__(self, "path", (os.fspath(self.path),))
        # A path stands for its source.
        kinds: dict[str, Callable[[Any], AnySource]] = {
            "corpus": CorpusSource.of,
            "queries": QueriesSource.of,
            "qrels": QrelsSource.of,
            "run": RunSource.of,
        }
        for name, of in kinds.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, of(value))

    @classmethod
    def of(cls, source: SampleSource | PathLike | Sequence[PathLike]) -> SampleSource:
        """Returns the source itself, or that of one or several paths."""
        if isinstance(source, str | os.PathLike):
            return cls(path=(os.fspath(source),))
        if isinstance(source, Sequence):
            return cls(path=tuple(os.fspath(path) for path in source))
        return source

    def inputs(self) -> dict[str, AnySource]:
        """Returns what the samples are written from, beside `path`."""
        return {
            name: source
            for name in ("corpus", "queries", "qrels", "run")
            if (source := getattr(self, name)) is not None
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningSpec:
    """Which documents of a query's ranking become its negatives."""

    negatives: Annotated[int, Ge(1)] = 15
    """Negatives of a query; fewer if there are no more."""
    first: Annotated[int, Ge(1)] = 1
    """First rank of the window of candidates."""
    last: Annotated[int, Ge(0)] = 200
    """Last rank of the window; 0 is the run's end."""
    margin: float | None = None
    """A negative must score at least this much below the positive."""
    share: Annotated[float, Gt(0), Le(1)] | None = None
    """A negative must score at most this share of the positive's score, such as 0.95."""
    reference: Literal["max", "min", "mean"] = "max"
    """The positive that margin and share refer to, if a query has several."""
    pick: Literal["random", "top"] = "random"
    """Draw from the window, or take its best."""
    relevance: int = 1
    """Lowest grade of a positive."""
    positives: Annotated[int, Ge(0)] = 0
    """Positives of a query, best grade and rank first; 0 is all."""
    seed: int = 0
    """Seed of the draw."""

    def __post_init__(self) -> None:
        if self.last and self.last < self.first:
            raise ValueError(f"last = {self.last}: expected at least first = {self.first}, or 0")
