"""The records that travel between rooms: documents, queries, qrels, runs, samples.

In bulk they are Arrow tables with the schemas below; field names are those of ir-measures.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.errors import DataError
from raydist.run_writer import group_starts, open_run, trec_lines
from raydist.strings import codes, narrowed, take

if TYPE_CHECKING:
    from raydist.protocols import TextStore

DOCUMENTS = pa.schema(
    [("doc_id", pa.string()), ("title", pa.string()), ("text", pa.large_string())]
)
QUERIES = pa.schema([("query_id", pa.string()), ("text", pa.string())])
RUN = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("score", pa.float32())])

_CHUNK_ROWS = 1 << 14  # rows of a chunk at least, on average
_PART_ROWS = 1 << 18  # rows that are checked for repeated documents at a time

Qrels = Mapping[str, Mapping[str, int]]
"""Relevance judgements `{query_id: {doc_id: relevance}}`, as ir-measures takes them."""


class DiversityQrels(dict[str, dict[str, int]]):
    """Judgements by subtopic; as a mapping, each document has the highest of its grades.

    Attributes:
        subtopics: `{query_id: {(doc_id, subtopic): relevance}}`.
    """

    def __init__(
        self,
        grades: Mapping[str, Mapping[str, int]],
        subtopics: Mapping[str, Mapping[tuple[str, str], int]],
    ) -> None:
        super().__init__({query: dict(judged) for query, judged in grades.items()})
        self.subtopics = {query: dict(subtopics[query]) for query in grades}


@dataclass(frozen=True, slots=True)
class Document:
    """A text with an id; `title` is empty where the collection has none."""

    doc_id: str
    text: str
    title: str = ""

    @property
    def contents(self) -> str:
        """Title and text as they are indexed: joined by a newline, the text alone if untitled."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """A topic's text with its id."""

    query_id: str
    text: str


def document_table(rows: Iterable[tuple[str, str, str]]) -> pa.Table:
    """Returns the table of `(doc_id, title, text)` rows, of the schema DOCUMENTS."""
    columns = list(zip(*rows)) or [(), (), ()]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, DOCUMENTS)], schema=DOCUMENTS)


def tables(
    rows: Iterable[tuple[Any, ...]], table_of: Callable[[list[Any]], pa.Table]
) -> Iterator[pa.Table]:
    """Yields the tables of rows, some thousands at a time."""
    remaining = iter(rows)
    while some := list(itertools.islice(remaining, 4096)):
        yield table_of(some)


@dataclass(frozen=True, slots=True)
class Sample:
    """One training example: a query and its documents, positives first.

    Attributes:
        query: the query's text.
        documents: document texts; the first `positives` of them are relevant.
        positives: how many of `documents` are positives (at least 1 for contrastive training).
        labels: graded relevance per document, if judged.
        scores: a teacher's score per document, larger is better.
        targets: what a student is to learn of the scores, per document, while training.
        answer: an answer to the query written by a language model (Reinforced-IR).
        negative_answers: answers to other readings of the query.
        answer_scores: a teacher's scores of `(answer, *negative_answers)`.
        query_id: the query's id where the source has one.
        doc_ids: the documents' ids where the source has them.
        prompt: an instruction for the query; the data set's or the model's if None.
        kind: the source's `type` field (`only_1neg`, `symmetric_...`), empty if absent.
        others: positives of the query that were not drawn; never its negatives.
    """

    query: str
    documents: tuple[str, ...]
    positives: int = 1
    labels: tuple[float, ...] | None = None
    scores: tuple[float, ...] | None = None
    targets: tuple[float, ...] | None = None
    answer: str | None = None
    negative_answers: tuple[str, ...] = ()
    answer_scores: tuple[float, ...] | None = None
    query_id: str = ""
    doc_ids: tuple[str, ...] | None = None
    prompt: str | None = None
    kind: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A ranking for each query; row order is the ranking.

    Wraps a table `query_id, doc_id, score` (float32) that is checked once: rows grouped by query,
    scores finite and non-increasing within a query, no document twice. The order of equal scores is
    the retriever's. Raises DataError where a check fails.
    """

    table: pa.Table
    tag: str = field(default="raydist")

    def __post_init__(self) -> None:
        table = self.table
        if table.schema.names != RUN.names:
            raise DataError(f"a run has the columns {RUN.names}, got {table.schema.names}")
        table = _compact(as_run(table))
        object.__setattr__(self, "table", table)
        if table.num_rows:
            _check(table)

    @classmethod
    def of_checked(cls, table: pa.Table, tag: str = "raydist") -> Self:
        """Returns the run of rows that another run has checked, without checking them again."""
        run = object.__new__(cls)
        object.__setattr__(run, "table", table)
        object.__setattr__(run, "tag", tag)
        return run

    @classmethod
    def from_lists(
        cls, rankings: Iterable[tuple[str, Sequence[str], Sequence[float]]], tag: str = "raydist"
    ) -> Self:
        """Returns the run of `(query_id, doc_ids, scores)` triples, best document first."""
        queries: list[str] = []
        docs: list[str] = []
        scores: list[np.ndarray] = []
        for query_id, doc_ids, values in rankings:
            queries.extend([query_id] * len(doc_ids))
            docs.extend(doc_ids)
            scores.append(np.asarray(values, np.float32))
        column = np.concatenate(scores) if scores else np.empty(0, np.float32)
        return cls(pa.table([queries, docs, column], schema=RUN), tag)

    @classmethod
    def sorted(cls, table: pa.Table, tag: str = "raydist") -> Self:
        """Returns the run of an unordered table: by score descending, equal scores as they come.

        Queries keep the order of their first row.
        """
        table = as_run(table.select(RUN.names))
        _refuse_nulls(table)
        return cls(by_score(table), tag)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[tuple[str, list[str], np.ndarray]]:
        """Yields `(query_id, doc_ids, scores)` for each query, in order."""
        if not len(self):
            return
        queries, docs = self.table["query_id"], self.table["doc_id"]
        scores = self.table["score"].to_numpy()
        starts = [*group_starts(queries).tolist(), len(self)]
        for a, b in itertools.pairwise(starts):
            yield queries[a].as_py(), docs.slice(a, b - a).to_pylist(), scores[a:b]

    @property
    def query_ids(self) -> list[str]:
        """The queries' ids in order."""
        return _queries(self.table, group_starts(self.table["query_id"]))

    def top(self, depth: int) -> Self:
        """Returns the first `depth` documents of each query."""
        if not len(self):
            return self
        starts = group_starts(self.table["query_id"])
        sizes = np.diff(np.append(starts, len(self)))
        rank = np.arange(len(self)) - np.repeat(starts, sizes)
        return type(self).of_checked(self.table.filter(pa.array(rank < depth)), self.tag)

    def without_own(self) -> Self:
        """Returns the run without documents that have their query's id."""
        own = pc.equal(self.table["query_id"], self.table["doc_id"])
        return type(self).of_checked(self.table.filter(pc.invert(own)), self.tag)

    def as_dict(self) -> dict[str, dict[str, float]]:
        """Returns `{query_id: {doc_id: score}}`, as ir-measures takes it."""
        return {q: dict(zip(docs, scores.tolist())) for q, docs, scores in self}

    def write(self, path: str | os.PathLike[str], texts: TextStore | None = None) -> None:
        """Writes a run file atomically, its folder too if there is none; see `open_run`.

        Args:
            path: the file; its suffix decides the form: `.parquet`, `.jsonl`, `.csv`, `.tsv`, else
                TREC lines.
            texts: the documents' texts, which `.jsonl` takes along.

        Raises:
            DataError: an id holds a blank, which TREC lines cannot carry.
        """
        with open_run(path, RUN, self.tag, texts) as write:
            write(self.table)

    def write_to(self, out: TextIO) -> None:
        """Writes TREC run lines, each score as the shortest decimal that gives the float32 back.

        Raises:
            DataError: an id holds a blank, which TREC lines cannot carry.
        """
        trec_lines(out.write, self.tag)(self.table)


def as_run(table: pa.Table) -> pa.Table:
    """Returns a table of three columns as one of the schema RUN; ids may be large_string."""
    if table.schema.equals(RUN, check_metadata=True):
        return table
    queries, docs, scores = table.columns
    columns = [narrowed(queries), narrowed(docs), scores.cast(pa.float32())]
    return pa.table(columns, schema=RUN)


def by_score(table: pa.Table) -> pa.Table:
    """Returns rows of the schema RUN by query, as these first come, and by score descending."""
    queries, docs, scores = table.columns
    values = scores.to_numpy()
    order = np.lexsort((-values, codes(queries)[0]))
    return pa.table([take(queries, order), take(docs, order), pa.array(values[order])], schema=RUN)


def _queries(table: pa.Table, starts: np.ndarray) -> list[str]:
    """Returns the queries' ids at some ascending rows."""
    names: list[str] = []
    before = 0
    for chunk in table["query_id"].chunks:
        first, last = np.searchsorted(starts, (before, before + len(chunk)))
        names += chunk.take(pa.array(starts[first:last] - before)).to_pylist()
        before += len(chunk)
    return names


def _compact(table: pa.Table) -> pa.Table:
    """Returns a table of few chunks: each costs time when a query's rows are looked up."""
    chunks = max(column.num_chunks for column in table.columns)
    # A table's columns, unlike a single one, stay in chunks of what 32-bit offsets can address.
    return table.combine_chunks() if chunks > 1 + table.num_rows // _CHUNK_ROWS else table


def _refuse_nulls(table: pa.Table) -> None:
    for name in table.column_names:
        if table[name].null_count:
            row = pc.index(pc.is_null(table[name]), True).as_py() + 1
            raise DataError(f"run row {row}: its {name} is null; a run has no missing values")


def _check(table: pa.Table) -> None:
    _refuse_nulls(table)
    queries = table["query_id"]
    scores = table["score"].to_numpy()
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DataError(
            f"run row {row + 1}: query {queries[row].as_py()!r}, document "
            f"{table['doc_id'][row].as_py()!r}: score {scores[row]} is not finite"
        )
    starts = group_starts(queries)
    names = _queries(table, starts)
    if len(set(names)) != len(starts):
        seen: set[str] = set()
        for query in names:
            if query in seen:
                raise DataError(f"run: the rows of query {query!r} are not together")
            seen.add(query)
    rising = np.flatnonzero(scores[1:] > scores[:-1]) + 1
    rising = rising[~np.isin(rising, starts)]
    if len(rising):
        row = int(rising[0])
        raise DataError(
            f"run row {row + 1}: query {queries[row].as_py()!r}: score {scores[row]} is above the "
            f"score {scores[row - 1]} before it; sort a query's documents by score, descending"
        )
    for part in _parts(table, starts):
        if repeated := repeated_rows(part):
            row = part.slice(repeated[0], 1).to_pylist()[0]
            raise DataError(
                f"run: query {row['query_id']!r} ranks document {row['doc_id']!r} twice"
            )


def _parts(table: pa.Table, starts: np.ndarray) -> Iterator[pa.Table]:
    """Yields the rows of whole queries, some hundred thousand at a time."""
    ends = np.append(starts[1:], table.num_rows)
    first = 0
    while first < table.num_rows:
        end = int(ends[min(int(np.searchsorted(ends, first + _PART_ROWS)), len(ends) - 1)])
        yield table.slice(first, end - first)
        first = end


def repeated_rows(table: pa.Table) -> tuple[int, int] | None:
    """Returns two rows of one query and document, None if no pair occurs twice."""
    (queries, _), (docs, ids) = codes(table["query_id"]), codes(table["doc_id"])
    pairs = queries * len(ids) + docs
    order = np.argsort(pairs, kind="stable")
    again = np.flatnonzero(pairs[order[1:]] == pairs[order[:-1]])
    if not len(again):
        return None
    first = again[np.argmin(order[again])]
    return int(order[first]), int(order[first + 1])
