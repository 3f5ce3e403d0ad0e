"""Processors: batched `texts -> texts` callables lifted to documents and queries.

`raydist.protocols.Processor` is their protocol. A processor may also map records (`Document`,
`Query`), whose ids and order must stay. Length and order are checked, so that a text never ends up
under another id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa

from raydist.errors import DataError
from raydist.log import count
from raydist.records import Document, Query, document_table

TextsCallable = Callable[[Sequence[str]], Sequence[str]]
RecordsCallable = Callable[[Sequence[Any]], Sequence[Any]]


def process_texts(processor: TextsCallable, texts: Sequence[str], name: str = "") -> list[str]:
    """Returns one processed text for each text.

    Args:
        processor: rewrites a batch of texts.
        texts: the batch.
        name: name of the processor, for messages; its own if empty.

    Raises:
        DataError: it returned another number of texts.
        TypeError: it returned something that is not a text.
    """
    name = name or _name(processor)
    processed = processor(texts)
    if isinstance(processed, str | bytes) or not isinstance(processed, Sequence):
        kind = type(processed).__name__
        raise TypeError(f"processor {name}: expected a list of texts, got {kind}")
    if len(processed) != len(texts):
        raise DataError(
            f"processor {name}: returned {count(len(processed), 'text')} for {len(texts)}; it must "
            "return one for each, in their order"
        )
    for text in processed:
        if not isinstance(text, str):
            raise TypeError(f"processor {name}: expected texts, got {type(text).__name__}")
    return list(processed)


def _name(processor: object) -> str:
    return str(getattr(processor, "__name__", type(processor).__name__))


def chain(*processors: TextsCallable) -> TextsCallable:
    """Returns the processor that applies others from left to right; without any, texts stay."""

    def chained(texts: Sequence[str]) -> list[str]:
        processed = list(texts)
        for processor in processors:
            processed = process_texts(processor, processed)
        return processed

    return chained


class DocumentsProcessor:
    """A processor lifted to documents: as records, and as tables of the schema DOCUMENTS.

    Args:
        processor: rewrites texts, or documents if `of` is `records`.
        of: `text`, `title`, `contents` (title and text joined; the title is then empty), or
            `records` for a callable from documents to documents with the same ids.
        batch_size: texts per call.
    """

    def __init__(
        self,
        processor: RecordsCallable,
        *,
        of: Literal["text", "title", "contents", "records"] = "text",
        batch_size: int = 1024,
    ) -> None:
        self._processor = processor
        self._of = of
        self._batch_size = batch_size

    def __call__(self, documents: Iterable[Document]) -> list[Document]:
        """Returns the processed documents, in order.

        Raises:
            DataError: length, order or ids were changed.
            TypeError: the processor returned neither texts nor documents.
        """
        whole = list(documents)
        processed: list[Document] = []
        for start in range(0, len(whole), self._batch_size):
            processed.extend(self._batch(whole[start : start + self._batch_size]))
        return processed

    def tables(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yields processed tables, one for each."""
        for table in tables:
            columns = (table[name].to_pylist() for name in ("doc_id", "text", "title"))
            documents = self([Document(*row) for row in zip(*columns)])
            yield document_table((d.doc_id, d.title, d.text) for d in documents)

    def _batch(self, documents: list[Document]) -> list[Document]:
        if self._of == "records":
            records = self._processor(documents)
            _check_records(self._processor, records, documents, Document, "doc_id")
            return list(records)
        texts = process_texts(self._processor, [getattr(d, self._of) for d in documents])
        if self._of == "title":
            return [Document(d.doc_id, d.text, t) for d, t in zip(documents, texts)]
        keep = self._of == "text"
        return [Document(d.doc_id, t, d.title if keep else "") for d, t in zip(documents, texts)]


class QueriesProcessor:
    """A processor lifted to queries.

    Args:
        processor: rewrites texts, or queries if `of` is `records`.
        of: `text`, or `records` for a callable from queries to queries with the same ids.
        batch_size: texts per call.
    """

    def __init__(
        self,
        processor: RecordsCallable,
        *,
        of: Literal["text", "records"] = "text",
        batch_size: int = 1024,
    ) -> None:
        self._processor = processor
        self._of = of
        self._batch_size = batch_size

    def __call__(self, queries: Iterable[Query]) -> list[Query]:
        """Returns the processed queries, in order; errors as for documents."""
        whole = list(queries)
        processed: list[Query] = []
        for start in range(0, len(whole), self._batch_size):
            batch = whole[start : start + self._batch_size]
            if self._of == "records":
                records = self._processor(batch)
                _check_records(self._processor, records, batch, Query, "query_id")
                processed.extend(records)
                continue
            texts = process_texts(self._processor, [query.text for query in batch])
            processed.extend(Query(q.query_id, text) for q, text in zip(batch, texts))
        return processed


def _check_records(
    processor: object, processed: Any, records: Sequence[Any], kind: type, id_name: str
) -> None:
    name = _name(processor)
    if not isinstance(processed, Sequence) or not all(isinstance(r, kind) for r in processed):
        raise TypeError(f"processor {name}: expected a list of {kind.__name__}")
    before = [getattr(each, id_name) for each in records]
    after = [getattr(each, id_name) for each in processed]
    if before != after:
        wrong = next(
            (i for i, pair in enumerate(zip(before, after)) if pair[0] != pair[1]),
            min(len(before), len(after)),
        )
        raise DataError(
            f"processor {name}: returned {count(len(after), 'record')} for {len(before)}; the "
            f"first difference is in record {wrong + 1}: it must keep the ids and their order"
        )
