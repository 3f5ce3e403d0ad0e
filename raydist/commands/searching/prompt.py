"""Searches as you type: the prompt of `raydist search` without queries.

    raydist search index=IDX k=5
    query> boundary layer flow          the best documents, with the words that match
    query> ?51                          what each term adds to document 51's score

Ends at an empty line or the end of the input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from raydist import log
from raydist.bow.search.retriever import BowRetriever
from raydist.errors import ConfigError, DataError
from raydist.records import Query, Run
from raydist.text.snippets import highlight, snippet

Search = Callable[[Query], Run]
_BOLD, _PLAIN = "\033[1m", "\033[0m"


def ask(search: Search, bow: BowRetriever | None) -> None:
    """Answers lines of the standard input.

    Args:
        search: of all indexes.
        bow: the bag-of-words index among them, which has the texts and explains.
    """
    if sys.stdin.isatty():
        log.say("a query, or ?ID to explain a document; an empty line ends")
    marks = (_BOLD, _PLAIN) if sys.stdout.isatty() else ("*", "*")
    last = ""
    for line in _lines():
        if line.startswith("?"):
            _explain(bow, last, line[1:].strip())
            continue
        last = line
        _show(search(Query("prompt", line)), bow, line, marks)


def _lines() -> Iterator[str]:
    while True:
        if sys.stdin.isatty():
            print("query> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


def _show(found: Run, bow: BowRetriever | None, text: str, marks: tuple[str, str]) -> None:
    rows = found.table.to_pylist()
    if not rows:
        print("nothing found")
        return
    texts = dict.fromkeys((row["doc_id"] for row in rows), ("", ""))
    tokens: Callable[[str], list[str]] = str.split
    if bow is not None and bow.index.store is not None:
        ids = list(texts)
        for doc_id, document in zip(ids, bow.index.store.get(ids)):
            if document is not None:
                texts[doc_id] = document.title, document.text
        if bow.index.analyzer is not None:
            tokens = bow.index.analyzer.tokens
    terms = set(tokens(text))
    for rank, row in enumerate(rows, 1):
        title, body = texts[row["doc_id"]]
        shown = highlight(*snippet(title, terms, tokens, 100), *marks) if title else ""
        print(f"{rank:3} {row['score']:9.4f}  {row['doc_id']}  {shown}".rstrip())
        if body:
            print(f"{'':15}{highlight(*snippet(body, terms, tokens), *marks)}")
    sys.stdout.flush()


def _explain(bow: BowRetriever | None, text: str, doc_id: str) -> None:
    if bow is None:
        log.warn("only a bag-of-words index explains its scores")
        return
    try:
        found = bow.explain(text, doc_id)
    except (DataError, ConfigError) as error:
        log.warn(str(error))
        return
    print(f"{found.score:.6f}  {doc_id}, {found.length} tokens")
    for part in sorted(found.parts, key=lambda part: -part.score):
        facts: dict[str, Any] = {"tf": part.tf, "df": part.df, "weight": round(part.weight, 6)}
        said = ", ".join(f"{name} {value:,}" for name, value in facts.items())
        print(f"{part.score:9.6f}  {part.term}  ({said})")
    if found.constant:
        print(f"{found.constant:9.6f}  for the document's length")
    sys.stdout.flush()
