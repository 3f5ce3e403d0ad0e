from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import pytest

from raydist.data.readers import (
    fingerprint,
    plan_splits,
    read_documents,
    read_qrels,
    read_queries,
    read_split,
)
from raydist.errors import DataError
from raydist.records import Query


@dataclass
class Doc:
    doc_id: str
    title: str
    text: str


@dataclass
class Topic:
    query_id: str
    title: str

    def default_text(self) -> str:
        return self.title


@dataclass
class Judgement:
    query_id: str
    doc_id: str
    relevance: int


class Iterable(list):  # type: ignore[type-arg]
    """ir_datasets' document iterators can be sliced."""

    def __iter__(self) -> Iterator[Doc]:
        return super().__iter__()


class Dataset:
    def docs_count(self) -> int:
        return 250_000

    def docs_iter(self) -> list[Doc]:
        return Iterable(Doc(str(i), "t" if i else "", f"text {i}") for i in range(250_000))

    def queries_iter(self) -> list[Topic]:
        return [Topic("1", "a topic")]

    def qrels_iter(self) -> list[Judgement]:
        return [Judgement("1", "7", 2)]

    def has_docs(self) -> bool:
        return True

    has_queries = has_docs

    def has_qrels(self) -> bool:
        return False


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ir_datasets")

    def load(name: str) -> Dataset:
        return {"some/set": Dataset()}[name]

    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ir_datasets", module)


@pytest.mark.usefixtures("package")
def test_a_data_set_is_read_by_its_id_in_splits_of_documents() -> None:
    splits = plan_splits("irds:some/set")
    assert [(s["start"], s["stop"]) for s in splits] == [
        (0, 100_000),
        (100_000, 200_000),
        (200_000, 250_000),
    ]
    (first, *_) = read_split(splits[2])
    assert first.slice(0, 1).to_pylist() == [
        {"doc_id": "200000", "title": "t", "text": "text 200000"}
    ]
    (table,) = read_documents(("irds:some/set",), max_docs=2)
    assert table["title"].to_pylist() == ["", "t"]
    assert read_queries("irds:some/set") == [Query("1", "a topic")]
    assert fingerprint("irds:some/set") != fingerprint("irds:other/set")


@pytest.mark.usefixtures("package")
def test_unknown_data_sets_and_missing_parts_are_named() -> None:
    with pytest.raises(DataError, match="knows no data set 'none'"):
        plan_splits("irds:none")
    with pytest.raises(DataError, match="has no qrels"):
        read_qrels("irds:some/set")


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(DataError, match="pip install ir_datasets"):
        plan_splits("irds:some/set")
