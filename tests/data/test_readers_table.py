"""The readers' table: format by oddity, against values that were computed elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BufferedReader, BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from ir_datasets.formats import TrecDocs

from raydist.errors import DataError
from tests.data import (
    oddities,
    oddities_documents,
    oddities_judgements,
    oddities_queries,
    oddities_topics,
)
from tests.data.oddities import Cell, Refused
from tests.data.oddities_trec import TREC_FILES

TABLES: list[tuple[Callable[..., Any], Sequence[Cell]]] = [
    (oddities.documents, oddities_documents.DOCUMENTS),
    (oddities.queries, oddities_queries.QUERIES),
    (oddities.queries, oddities_topics.TOPICS),
    (oddities.qrels, oddities_judgements.QRELS),
    (oddities.run, oddities_judgements.RUNS),
]


def _cells() -> list[Any]:
    cells = chain.from_iterable(((read, cell) for cell in cells) for read, cells in TABLES)
    return [pytest.param(read, cell, id=cell.name) for read, cell in cells]


@pytest.mark.parametrize(("read", "cell"), _cells())
def test_a_file_is_read_as_its_owner_means_it(
    tmp_path: Path, read: Callable[..., Any], cell: Cell
) -> None:
    source = cell.source(tmp_path)
    if isinstance(cell.expected, Refused):
        with pytest.raises(DataError, match=cell.expected.pattern):
            read(**source)
        return
    expected = cell.expected() if callable(cell.expected) else cell.expected
    assert read(**source) == expected


def test_every_cell_has_a_name_of_its_own() -> None:
    names = [cell.name for _, cells in TABLES for cell in cells]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("data", TREC_FILES)
def test_trec_documents_have_the_words_that_ir_datasets_takes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.trec").write_bytes(data)
    [(doc_id, title, text)] = oddities.documents(str(tmp_path / "c.trec"))
    (expected,) = TrecDocs(None)._parser_sax(BufferedReader(BytesIO(data)))
    assert doc_id == expected.doc_id
    assert sorted(f"{title} {text}".split()) == sorted(f"{expected.title} {expected.body}".split())
