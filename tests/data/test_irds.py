from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from raydist.data.contents import file_fingerprint
from raydist.data.readers import read_documents, read_qrels, read_queries, read_split
from raydist.data.samples.sample_set import SampleSet
from raydist.data.splits import plan_splits
from raydist.errors import DataError
from raydist.records import Query
from tests.data.sample_files import prepare


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

    def has_docpairs(self) -> bool:
        return False

    def has_qrels(self) -> bool:
        return False


@dataclass
class Pair:
    query_id: str
    doc_id_a: str
    doc_id_b: str


class Pairs(Dataset):
    """Few documents, and pairs of which one names a document and one a query that is not there."""

    def docs_count(self) -> int:
        return 3

    def docs_iter(self) -> list[Doc]:
        return Iterable(Doc(str(i), "", f"text {i}") for i in range(3))

    def has_docpairs(self) -> bool:
        return True

    def docpairs_iter(self) -> list[Pair]:
        return [Pair("1", "0", "2"), Pair("1", "0", "9"), Pair("7", "0", "1"), Pair("1", "2", "1")]


class Judged(Pairs):
    def has_docpairs(self) -> bool:
        return False

    has_qrels = Dataset.has_docs

    def qrels_iter(self) -> list[Judgement]:
        return [Judgement("1", "2", 1), Judgement("8", "1", 1)]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ir_datasets")

    def load(name: str) -> Dataset:
        return {"some/set": Dataset(), "some/pairs": Pairs(), "some/qrels": Judged()}[name]

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
    assert file_fingerprint("irds:some/set") != file_fingerprint("irds:other/set")


@pytest.mark.usefixtures("package")
def test_its_pairs_are_samples_and_ids_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"irds:some/pairs .*line 2: .*has no '9'"):
        prepare("irds:some/pairs", tmp_path / "d")
    facts = prepare("irds:some/pairs", tmp_path / "d", on_bad="skip")
    samples = SampleSet(tmp_path / "d")
    assert [samples[i].documents for i in range(len(samples))] == [
        ("text 0", "text 2"),
        ("text 2", "text 1"),
    ]
    assert samples[0].query == "a topic" and facts.rejected == 2


@pytest.mark.usefixtures("package")
def test_its_judgements_are_samples_where_it_has_no_pairs(tmp_path: Path) -> None:
    facts = prepare("irds:some/qrels", tmp_path / "d")
    assert SampleSet(tmp_path / "d")[0].documents == ("text 2",)
    assert facts.rows == 1 and facts.notes == ("1 queries without a text skipped",)


@pytest.mark.usefixtures("package")
def test_unknown_data_sets_and_missing_parts_are_named() -> None:
    with pytest.raises(DataError, match="has no data set 'none'"):
        plan_splits("irds:none")
    with pytest.raises(DataError, match="has no qrels"):
        read_qrels("irds:some/set")


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(DataError, match="pip install ir_datasets"):
        plan_splits("irds:some/set")
