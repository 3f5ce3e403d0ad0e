"""The readers' table: format by oddity, against values that were computed elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from raydist.errors import DataError
from tests.data import oddities, oddities_documents, oddities_judgements, oddities_topics
from tests.data.oddities import Cell, Refused

TABLES: list[tuple[Callable[..., Any], Sequence[Cell]]] = [
    (oddities.documents, oddities_documents.DOCUMENTS),
    (oddities.queries, oddities_documents.QUERIES),
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
