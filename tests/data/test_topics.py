"""Topics: literal values of the tracks' files; lxml and ir_datasets are the oracles."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from lxml import etree

from raydist.data.readers import read_queries
from raydist.data.spec import QueriesSource, TextFields
from tests.data.oddities import Cell, queries
from tests.data.oddities_topics import COVID, SGML, TRIALS, WEB


def test_the_elements_taken_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "topics.301-302"
    file.write_bytes(SGML)
    read_queries(file)
    choice = "(others: desc, narr; choose with queries.fields.text=desc)"
    assert capsys.readouterr().err == f"{file}: title of 2 topics {choice}\n"
    file.write_bytes(TRIALS)
    read_queries(file)
    assert capsys.readouterr().err == f"{file}: text of 2 topics\n"


def test_bad_topics_are_skipped_and_written_on_request(tmp_path: Path) -> None:
    file, rejects = tmp_path / "topics", tmp_path / "rejects.jsonl"
    file.write_bytes(SGML)
    fields = TextFields(text="narr")
    source = QueriesSource(path=str(file), fields=fields, on_bad="skip", rejects=str(rejects))
    assert [each.query_id for each in read_queries(source)] == ["301"]
    assert "expected <narr> inside <top>" in rejects.read_text()


@pytest.mark.parametrize("content", [COVID, WEB])
@pytest.mark.parametrize("name", ["query", "narrative", "description"])
def test_the_text_of_an_element_is_lxmls(tmp_path: Path, content: bytes, name: str) -> None:
    texts = [" ".join("".join(e.itertext()).split()) for e in etree.fromstring(content).iter(name)]
    if texts:
        source = Cell("lxml", {"t.xml": content}, [], {"fields": {"text": name}}).source(tmp_path)
        assert queries(**source) == [("1", texts[0])]


@pytest.mark.parametrize("name", ["title", "desc"])
def test_classic_topics_are_those_of_ir_datasets(tmp_path: Path, name: str) -> None:
    formats = pytest.importorskip("ir_datasets.formats")

    class Download:
        def stream(self) -> io.BytesIO:
            return io.BytesIO(SGML.replace(b"Is it\n", b"Is it\n<narr> Narrative:\nNo.\n"))

    rows = list(formats.TrecQueries(Download()).queries_iter())
    texts = {"title": "title", "desc": "description"}
    expected = [
        (row.query_id.strip(), " ".join(getattr(row, texts[name]).replace("&amp;", "&").split()))
        for row in rows
    ]
    files = {"topics": Download().stream().read()}
    source = Cell("ir_datasets", files, [], {"fields": {"text": name}}).source(tmp_path)
    assert queries(**source) == expected
