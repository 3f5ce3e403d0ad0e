"""Shows the documents of a query with snippets, and what each term adds to their scores."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

from raydist import log
from raydist.api.display import text_table
from raydist.bow.feedback.retriever import FeedbackRetriever
from raydist.bow.search.exhaustive import Explanation
from raydist.bow.search.fields import FieldsRetriever
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.structured.retriever import StructuredRetriever
from raydist.errors import ConfigError, DataError
from raydist.records import Document, Query, Run
from raydist.text.passages import highlighted
from raydist.text.spec import AnalyzerSpec

Bow = BowRetriever | FeedbackRetriever | FieldsRetriever | StructuredRetriever

_BOLD, _PLAIN = "\033[1m", "\033[0m"
_TITLE = 100  # characters
_INDENT = 15
_CONTROLS = dict.fromkeys([*range(9), *range(14, 32), *range(127, 160)], "\ufffd")


def prompt(search: Callable[[Sequence[Query], int], Run], bow: Bow | None, k: int) -> None:
    """Answers lines of the standard input; an empty one ends.

    Args:
        search: returns the run of queries.
        bow: the search that explains scores and has texts, if there is one.
        k: documents of a query.
    """
    if sys.stdin.isatty():
        log.say("a query, or ?ID to explain a document; an empty line ends")
    last = ""
    for line in _lines():
        if line.startswith("?"):
            _explain(bow, last, line[1:].strip())
            continue
        last = line
        show(search([Query("prompt", line)], k), bow, line)


def _lines() -> Iterator[str]:
    while True:
        if sys.stdin.isatty():
            print("query> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


def show(results: Run, bow: Bow | None, query: str, explain: bool = False) -> None:
    """Prints documents: rank, score, id, title and the passage that matches best.

    Words that match are bold on a terminal, and between asterisks elsewhere.

    Args:
        results: of one query.
        bow: the search that has the texts and explains scores.
        query: its text.
        explain: print what each term adds to the scores, too.
    """
    rows = results.table.to_pylist()
    if not rows:
        print("no results")
        return
    marks = (_BOLD, _PLAIN) if sys.stdout.isatty() else ("*", "*")
    analyzer = AnalyzerSpec(stemmer="none", stop_words="none").build()
    documents: Sequence[Document | None] = [None] * len(rows)
    if bow is not None and bow.index.store is not None:
        documents = bow.index.store.get([row["doc_id"] for row in rows])
        analyzer = bow.index.analyzer or analyzer
    for rank, (row, document) in enumerate(zip(rows, documents), 1):
        title, body = (document.title, document.text) if document is not None else ("", "")
        marked = highlighted(title.translate(_CONTROLS), query, analyzer, marks, _TITLE)
        print(f"{rank:3} {row['score']:9.4f}  {row['doc_id']}  {marked}".rstrip())
        if body:
            snippet = highlighted(body.translate(_CONTROLS), query, analyzer, marks)
            print(f"{'':{_INDENT}}{snippet}")
        if explain and bow is not None:
            try:
                _print_parts(bow.explain(query, row["doc_id"]))
            except DataError:  # another index has it
                print(f"{'':{_INDENT}}{bow.index.folder} lacks it and explains nothing")
    sys.stdout.flush()


def _explain(bow: Bow | None, query: str, doc_id: str) -> None:
    if bow is None:
        log.warn("only a bag-of-words index explains its scores")
        return
    try:
        explanation = bow.explain(query, doc_id)
    except (DataError, ConfigError) as error:
        log.warn(str(error))
        return
    print(f"{explanation.score:.6f}  {doc_id}")
    _print_parts(explanation)
    sys.stdout.flush()


def _print_parts(explanation: Explanation) -> None:
    """Prints a row for each term, phrase or pair, and the sum: the score to the last bit."""
    columns = ["term", "tf", "df", "idf", "weight", "part"]
    rows: list[list[object]] = [
        [each.term, each.tf, each.df, each.idf, each.weight, each.score]
        for each in sorted(explanation.parts, key=lambda each: -each.score)
    ]
    if all(each.idf is None for each in explanation.parts):
        columns, rows = columns[:3] + columns[4:], [row[:3] + row[4:] for row in rows]
    for line in text_table(columns, rows).splitlines():
        print(f"{'':{_INDENT}}{line}")
    length = log.count(explanation.length, "token")
    if explanation.model_length != explanation.length:
        length += f", counted as {explanation.model_length:,}"
    own = f" + {explanation.constant:.6f} for its length" if explanation.constant else ""
    print(f"{'':{_INDENT}}{length}; sum{own} = {shortest(explanation.score)}")


def shortest(score: float) -> str:
    """Returns the shortest decimal that gives a float32 back."""
    import numpy as np

    return str(np.float32(score))
