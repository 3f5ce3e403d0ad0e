"""The records that travel between rooms: documents, queries, qrels, runs, samples.

In bulk they are Arrow tables with the schemas below; field names are those of ir-measures.
"""

from __future__ import annotations

import gzip
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.disk import atomic
from raydist.errors import DataError

DOCUMENTS = pa.schema(
    [("doc_id", pa.string()), ("title", pa.string()), ("text", pa.large_string())]
)
QUERIES = pa.schema([("query_id", pa.string()), ("text", pa.string())])
RUN = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("score", pa.float32())])

Qrels = Mapping[str, Mapping[str, int]]
"""Relevance judgements `{query_id: {doc_id: relevance}}`, as ir-measures takes them."""


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
        table = table.cast(RUN).combine_chunks()
        object.__setattr__(self, "table", table)
        if table.num_rows:
            _check(table)

    @classmethod
    def from_lists(
        cls, rankings: Iterable[tuple[str, Sequence[str], Sequence[float]]], tag: str = "raydist"
    ) -> Run:
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
    def sorted(cls, table: pa.Table, tag: str = "raydist") -> Run:
        """Returns the run of an unordered table: by score descending, equal scores as they come.

        Queries keep the order of their first row.
        """
        table = table.select(RUN.names).cast(RUN).combine_chunks()
        if not table.num_rows:
            return cls(table, tag)
        codes = pc.dictionary_encode(table["query_id"]).combine_chunks()
        groups = codes.chunk(0).indices if isinstance(codes, pa.ChunkedArray) else codes.indices
        order = np.lexsort((-table["score"].to_numpy(), groups.to_numpy()))
        return cls(table.take(pa.array(order)), tag)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[tuple[str, list[str], np.ndarray]]:
        """Yields `(query_id, doc_ids, scores)` for each query, in order."""
        if not len(self):
            return
        queries = self.table["query_id"].combine_chunks()
        scores = self.table["score"].to_numpy()
        starts = [*_group_starts(queries).tolist(), len(self)]
        docs = self.table["doc_id"]
        for a, b in itertools.pairwise(starts):
            yield queries[a].as_py(), docs.slice(a, b - a).to_pylist(), scores[a:b]

    @property
    def query_ids(self) -> list[str]:
        """The queries' ids in order."""
        if not len(self):
            return []
        queries = self.table["query_id"].combine_chunks()
        return queries.take(pa.array(_group_starts(queries))).to_pylist()  # type: ignore[no-any-return]

    def top(self, depth: int) -> Run:
        """Returns the first `depth` documents of each query."""
        if not len(self):
            return self
        starts = _group_starts(self.table["query_id"].combine_chunks())
        sizes = np.diff(np.append(starts, len(self)))
        rank = np.arange(len(self)) - np.repeat(starts, sizes)
        return Run(self.table.filter(pa.array(rank < depth)), self.tag)

    def as_dict(self) -> dict[str, dict[str, float]]:
        """Returns `{query_id: {doc_id: score}}`, as ir-measures takes it."""
        return {q: dict(zip(docs, scores.tolist())) for q, docs, scores in self}

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes a run file atomically, its folder too if there is none.

        The form follows from the name: Parquet with the tag as metadata (`.parquet`, `.pq`), else
        TREC lines, gzipped if it ends with `.gz`.

        Raises:
            DataError: an id holds a blank, which TREC lines cannot carry.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as partial:
            if target.suffix in (".parquet", ".pq"):
                import pyarrow.parquet as pq

                table = self.table.replace_schema_metadata({"tag": self.tag})
                pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
            elif target.suffix == ".gz":
                text = io.StringIO()
                self.write_to(text)
                partial.write_bytes(gzip.compress(text.getvalue().encode(), 6, mtime=0))
            else:
                with open(partial, "w", encoding="utf-8", newline="\n") as out:
                    self.write_to(out)

    def write_to(self, out: TextIO) -> None:
        """Writes TREC run lines, each score as the shortest decimal that gives the float32 back.

        Raises:
            DataError: an id holds a blank, which TREC lines cannot carry.
        """
        for name in ("query_id", "doc_id"):
            column = self.table[name].combine_chunks()
            bad = column.filter(
                pc.or_(pc.match_substring_regex(column, r"\s"), pc.equal(column, ""))
            )
            if len(bad):
                raise DataError(
                    f"{name} {bad[0].as_py()!r}: TREC run lines cannot carry blanks or empty ids; "
                    "write a file that ends with .parquet"
                )
        starts = _group_starts(self.table["query_id"].combine_chunks())
        sizes = np.diff(np.append(starts, len(self))).astype(np.int64)
        rank = np.arange(len(self)) - np.repeat(np.asarray(starts, np.int64), sizes) + 1
        lines = pc.binary_join_element_wise(
            self.table["query_id"].combine_chunks(),
            pa.scalar("Q0"),
            self.table["doc_id"].combine_chunks(),
            pa.array(rank).cast(pa.string()),
            self.table["score"].combine_chunks().cast(pa.string()),
            pa.scalar(self.tag),
            pa.scalar(" "),
        )
        for batch in range(0, len(lines), 1 << 16):
            out.write("\n".join(lines.slice(batch, 1 << 16).to_pylist()))
            out.write("\n")


def _group_starts(queries: pa.Array) -> np.ndarray:
    """Returns the first row of each stretch of equal query ids."""
    if len(queries) < 2:
        return np.zeros(len(queries), np.int64)
    changed = pc.not_equal(queries.slice(1), queries.slice(0, len(queries) - 1))
    return np.concatenate(([0], np.flatnonzero(changed.to_numpy(zero_copy_only=False)) + 1))


def _check(table: pa.Table) -> None:
    if any(column.null_count for column in table.columns):
        raise DataError("a run has no missing values; a query_id, doc_id or score is null")
    queries = table["query_id"].combine_chunks()
    scores = table["score"].to_numpy()
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DataError(
            f"run row {row + 1}: query {queries[row].as_py()!r}, document "
            f"{table['doc_id'][row].as_py()!r}: score {scores[row]} is not finite"
        )
    starts = _group_starts(queries)
    if len(pc.unique(queries)) != len(starts):
        seen: set[str] = set()
        for query in queries.take(pa.array(starts)).to_pylist():
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
    pairs = (
        table.select(["query_id", "doc_id"])
        .group_by(["query_id", "doc_id"])
        .aggregate([([], "count_all")])
    )
    if pairs.num_rows != table.num_rows:
        twice = pairs.filter(pc.greater(pairs["count_all"], 1)).slice(0, 1).to_pylist()[0]
        raise DataError(
            f"run: query {twice['query_id']!r} ranks document {twice['doc_id']!r} twice"
        )
