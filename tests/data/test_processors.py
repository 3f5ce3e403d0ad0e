from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from raydist.data.processors import DocumentsProcessor, QueriesProcessor, chain, process_texts
from raydist.data.readers import read_documents
from raydist.errors import DataError
from raydist.records import DOCUMENTS, Document, Query

DOCS = [Document(str(i), f"Text {i}", "Title" if i % 2 else "") for i in range(5)]


def upper(texts: Sequence[str]) -> list[str]:
    return [text.upper() for text in texts]


def test_texts_titles_or_contents_are_rewritten_in_batches() -> None:
    sizes = []

    def watched(texts: Sequence[str]) -> list[str]:
        sizes.append(len(texts))
        return upper(texts)

    assert DocumentsProcessor(watched, batch_size=2)(DOCS) == [
        Document(d.doc_id, d.text.upper(), d.title) for d in DOCS
    ]
    assert sizes == [2, 2, 1]
    assert DocumentsProcessor(upper, of="title")(DOCS)[1] == Document("1", "Text 1", "TITLE")
    assert DocumentsProcessor(upper, of="contents")(DOCS)[1] == Document("1", "TITLE\nTEXT 1", "")
    queries = [Query("1", "a"), Query("2", "b")]
    assert QueriesProcessor(upper, batch_size=1)(queries) == [Query("1", "A"), Query("2", "B")]


def test_tables_are_processed_like_records(tmp_path: Path) -> None:
    file = tmp_path / "c.tsv"
    file.write_text("1\tone\n2\ttwo\n")
    (table,) = DocumentsProcessor(upper).tables(read_documents(file))
    assert table.schema == DOCUMENTS and table["text"].to_pylist() == ["ONE", "TWO"]
    assert list(DocumentsProcessor(upper).tables([DOCUMENTS.empty_table()]))[0].num_rows == 0  # noqa: RUF015


def test_records_keep_their_ids_and_order() -> None:
    def shorter(documents: Sequence[Document]) -> list[Document]:
        return [Document(d.doc_id, d.text[:4], d.title) for d in documents]

    processed = DocumentsProcessor(shorter, of="records", batch_size=2)(DOCS)
    assert [(d.doc_id, d.text) for d in processed] == [(str(i), "Text") for i in range(5)]
    with pytest.raises(DataError, match="first difference is in record 1: it must keep the ids"):
        DocumentsProcessor(lambda d: list(reversed(d)), of="records")(DOCS)
    with pytest.raises(DataError, match="returned 4 records for 5"):
        DocumentsProcessor(lambda d: d[:-1], of="records")(DOCS)
    with pytest.raises(TypeError, match="a list of Document"):
        DocumentsProcessor(lambda d: [x.text for x in d], of="records")(DOCS)
    with pytest.raises(DataError, match="ids and their order"):
        QueriesProcessor(lambda q: [Query("x", "y")], of="records")([Query("1", "a")])


def test_another_length_or_type_is_refused() -> None:
    def short(texts: Sequence[str]) -> list[str]:
        return list(texts)[1:]

    with pytest.raises(DataError, match="processor short: returned 4 texts for 5"):
        DocumentsProcessor(short)(DOCS)
    with pytest.raises(TypeError, match="expected texts, got int"):
        QueriesProcessor(lambda texts: [1])([Query("1", "a")])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="expected a list of texts, got str"):
        process_texts(lambda texts: "abc", ["a", "b", "c"])


def test_processors_are_chained_left_to_right_each_checked() -> None:
    def exclaim(texts: Sequence[str]) -> list[str]:
        return [f"{text}!" for text in texts]

    assert chain(upper, exclaim)(["a"]) == ["A!"] and chain()(["a"]) == ["a"]
    with pytest.raises(DataError, match="<lambda>: returned 0 texts for 1"):
        chain(upper, lambda texts: [])(["a"])
