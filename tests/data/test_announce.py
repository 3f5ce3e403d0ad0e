"""What columns are taken for is said, once and before work begins."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from raydist.cli import main
from raydist.data.readers import read_documents, read_qrels, read_queries
from raydist.data.spec import CorpusSource, Fields
from raydist.errors import DataError


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "c.tsv",
            "7\tsome text\n",
            "no header: id = column 1 ('7'), text = column 2 ('some text')",
        ),
        ("c.tsv", "id\turl\ttext\n7\tu\tx\n", "id = id, text = text; not read: url"),
        (
            "c.csv",
            "id;text\n7;x\n",
            "semicolon-separated, texts may be quoted, id = id, text = text",
        ),
        ("c.tsv", '7\t"some ""text"""\n', "tab-separated, texts may be quoted, no header"),
        ("c.jsonl", '{"docid": "7", "body": "x", "url": "u"}', "id = docid, text = body; not read"),
        ("c.json", '[{"id": "7", "text": "x", "title": "", "n": 1}]', "title = title, text = text"),
        ("c.jsonl", '{"_id": "7", "title": "", "text": "x"}', None),
    ],
)
def test_what_columns_are_taken_for_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, message: str | None
) -> None:
    file = tmp_path / name
    file.write_text(content)
    for _ in range(2):
        list(read_documents(file))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (message is not None)
    assert all(line.startswith(f"{file}: ") and str(message) in line for line in lines)


def test_queries_have_no_title_to_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.jsonl").write_text('{"id": "1", "title": "t", "text": "x"}')
    assert [query.text for query in read_queries(tmp_path / "q.jsonl")] == ["x"]
    assert capsys.readouterr().err.endswith("id = id, text = text; not read: title\n")


def test_what_is_not_clear_is_asked_before_an_index_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "c.jsonl", tmp_path / "index"
    file.write_text('{"id": 1, "docno": "a", "text": "x"}\n')
    assert main(["index", f"corpus={file}", f"out={out}"]) == 2
    assert "corpus.fields.id=docno" in capsys.readouterr().err and not out.exists()
    assert main(["index", f"corpus={file}", f"out={out}", "corpus.fields.id=docno"]) == 0


def test_a_name_that_no_column_has_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text("docnum\ttext\n1\tx\n")
    source = CorpusSource(path=str(tmp_path / "c.tsv"), fields=Fields(id="number"))
    with pytest.raises(
        DataError, match=r"no column 'number' for corpus\.fields\.id; .*docnum, text"
    ):
        list(read_documents(source))
    source = CorpusSource(path=str(tmp_path / "c.tsv"), fields=Fields(id="1", text="2"))
    assert [t["doc_id"].to_pylist() for t in read_documents(source)] == [["1"]]


def test_judgements_are_read_in_utf_16_too(tmp_path: Path) -> None:
    (tmp_path / "qrels.txt").write_bytes(gzip.compress("1 0 \u00e9 2\n".encode("utf-16")))
    assert read_qrels(tmp_path / "qrels.txt") == {"1": {"\u00e9": 2}}
