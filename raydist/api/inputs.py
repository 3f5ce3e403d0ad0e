"""Queries, judgements and texts for work in this process, read as the verbs read them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.api.command import spoken_errors
from raydist.api.spool import Spool
from raydist.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from raydist.protocols import TextStore
    from raydist.records import Query

Queries = str | os.PathLike[str] | Mapping[Any, Any] | Iterable[Any] | Any
"""A file, `{id: text}`, texts (numbered from 0), mappings, records, a DataFrame or an Arrow table.
"""


def queries_of(value: Queries) -> list[Query]:
    """Returns queries; a text or path is the name of a file.

    >>> queries_of({"q1": "herons"})
    [Query(query_id='q1', text='herons')]
    >>> queries_of(["herons", "canals"])[1].query_id
    '1'

    Raises:
        DataError: they cannot be read, there is none, or an id occurs twice.
    """
    from raydist.data.readers import read_queries
    from raydist.records import Query

    if isinstance(value, list) and value and all(isinstance(each, Query) for each in value):
        return value
    with spoken_errors(), Spool() as spool:
        if not isinstance(value, str | os.PathLike):
            value = spool.file(value, "queries", "queries")
        return read_queries(os.fspath(value))


def text_or_queries(value: Queries) -> str | list[Query]:
    """Returns the text of a single query, or several queries; what to search.

    Raises:
        ConfigError: a text that names a file: it could be either.
    """
    if not isinstance(value, str):
        return queries_of(value)
    if "\n" not in value and len(value) <= 255 and Path(value).is_file():
        raise ConfigError(
            f"queries = {value!r}: names a file, and could be a query's text; "
            f"give pathlib.Path({value!r}) for the queries in it"
        )
    return value


class Texts:
    """Documents by id, of anything that an index is built from."""

    def __init__(self, corpus: Any) -> None:
        """Reads them into a store, in the folder for temporary files.

        Raises:
            DataError: they cannot be read.
        """
        from raydist.data.readers import read_documents
        from raydist.data.store.reader import DocumentStore

        self._folder = tempfile.TemporaryDirectory(prefix="raydist-texts-")
        with spoken_errors(), Spool() as spool:
            if not isinstance(corpus, str | os.PathLike):
                corpus = spool.file(corpus, "documents", "texts")
            digest = hashlib.blake2b(digest_size=16)
            tables = _hashed(read_documents(os.fspath(corpus)), digest)
            self._store = DocumentStore.create(tables, Path(self._folder.name) / "store")
        self.identity = digest.hexdigest()

    def get(self, doc_ids: Sequence[str]) -> Sequence[Any]:
        """Returns a document for each id, None where there is none."""
        return self._store.get(doc_ids)


def _hashed(tables: Iterable[pa.Table], digest: Any) -> Iterator[pa.Table]:
    for table in tables:
        digest.update(json.dumps(table.to_pydict()).encode())
        yield table


def texts_of(value: Any) -> tuple[TextStore, Any]:
    """Returns documents by id, and what tells them from others.

    Args:
        value: something with `texts` (an Index), a store with `get`, or a corpus.
    """
    if hasattr(value, "texts"):
        if value.texts is None:
            raise ConfigError(f"texts = {value!r}: has none; build the index with store=True")
        return value.texts, value.identity()
    is_corpus = isinstance(value, Mapping) or hasattr(value, "__arrow_c_stream__")
    if not is_corpus and callable(getattr(value, "get", None)):
        return value, None
    texts = Texts(value)
    return texts, texts.identity
