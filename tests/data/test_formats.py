from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.data.formats import trec
from raydist.data.readers import read_documents, read_queries, read_split
from raydist.data.rejects import Rejects
from raydist.data.spec import CorpusSource, Fields
from raydist.data.splits import plan_splits
from raydist.errors import DataError
from raydist.records import Query


def documents(path: Path, rejects: Rejects | None = None, **options: Any) -> list[tuple[str, ...]]:
    tables = read_documents(CorpusSource(path=path, **options), rejects=rejects)
    return [tuple(row.values()) for t in tables for row in t.to_pylist()]


LINE = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(LINE.filter(bool), LINE, LINE), min_size=1, max_size=30), st.booleans())
def test_tab_separated_documents_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], crlf: bool
) -> None:
    file = tmp_path_factory.mktemp("tsv") / "c.tsv"
    end = "\r\n" if crlf else "\n"
    lines = ["id\ttitle\ttext", *("\t".join(row) for row in rows)]
    file.write_bytes(end.join(lines).encode() + b"\n\n")
    assert documents(file) == rows


@pytest.mark.parametrize(
    ("content", "fields", "expected"),
    [
        ("7\tsome text", {}, ("7", "", "some text")),
        ("7\ta title\tsome text", {}, ("7", "a title", "some text")),
        ("id\ttext\ttitle\n7\tsome text\ta title", {}, ("7", "a title", "some text")),
        ("7\tu\tv\tsome text", {"id": "1", "text": "4"}, ("7", "", "some text")),
        ("a\tb\n7\tsome text", {"id": "a", "text": "b"}, ("7", "", "some text")),
        ('7\t"quoted" text', {}, ("7", "", '"quoted" text')),
        ("\ufeff7\tsome text", {}, ("7", "", "some text")),
    ],
)
def test_columns_of_a_table_are_found(
    tmp_path: Path, content: str, fields: dict[str, str], expected: tuple[str, str, str]
) -> None:
    file = tmp_path / "c.tsv"
    file.write_text(content)
    assert documents(file, fields=Fields(**fields)) == [expected]


def test_a_bad_table_line_is_named_or_skipped(tmp_path: Path) -> None:
    file = tmp_path / "c.tsv"
    file.write_bytes(b"1\ta\n\n2\tb\textra\n3\tc\n\td\n4\tcaf\xe9\n5\te\n6\n")
    with pytest.raises(DataError, match=r"line 3: .*2 columns separated by tabs, not 3"):
        documents(file)
    rejects = Rejects(tmp_path / "r.jsonl")
    rows = documents(file, on_bad="skip", rejects=rejects)
    assert rows == [("1", "", "a"), ("3", "", "c"), ("5", "", "e")] and rejects.count == 4
    assert [r.split('"line": ')[1][0] for r in (tmp_path / "r.jsonl").read_text().splitlines()] == [
        "3",
        "5",
        "6",
        "8",
    ]
    (tmp_path / "four.tsv").write_text("1\t2\t3\t4\n")
    with pytest.raises(DataError, match=r"fields\.id="):
        documents(tmp_path / "four.tsv")


def test_parquet_row_groups_are_splits(tmp_path: Path) -> None:
    file = tmp_path / "c.parquet"
    table = pa.table({"_id": [str(i) for i in range(1000)], "text": [f"t{i}" for i in range(1000)]})
    pq.write_table(table, file, row_group_size=300)
    splits = plan_splits(file)
    assert [split["group"] for split in splits] == [0, 1, 2, 3]
    assert [sum(t.num_rows for t in read_split(s)) for s in splits] == [300, 300, 300, 100]
    assert documents(file)[999] == ("999", "", "t999")
    assert sum(t.num_rows for t in read_documents(file, max_docs=301)) == 301


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([1, 2, 3]),
        pa.array(["1", "2", "3"], pa.large_string()),
        pa.array(["1", "2", "3"]).dictionary_encode(),
    ],
    ids=["int", "large", "dictionary"],
)
def test_parquet_columns_of_several_types_become_strings(tmp_path: Path, ids: pa.Array) -> None:
    file = tmp_path / "c.parquet"
    text = pa.array(["a", "b", "c"]).dictionary_encode()
    pq.write_table(pa.table({"docid": ids, "title": [None, "t", ""], "contents": text}), file)
    assert documents(file) == [("1", "", "a"), ("2", "t", "b"), ("3", "", "c")]


def test_a_bad_parquet_row_is_named_or_skipped(tmp_path: Path) -> None:
    file = tmp_path / "c.parquet"
    pq.write_table(pa.table({"id": ["a", None, "", "d"], "text": ["x", "y", "z", None]}), file)
    with pytest.raises(DataError, match=r"line 2: .*an id in column 'id', not null"):
        documents(file)
    rejects = Rejects()
    assert documents(file, on_bad="skip", rejects=rejects) == [("a", "", "x")]
    assert rejects.count == 3
    pq.write_table(pa.table({"id": ["a"], "words": [[1]]}), file)
    with pytest.raises(DataError, match=r"no field for the text.*it has id, words"):
        documents(file)
    with pytest.raises(DataError, match=r"'words' \(text\) is list"):
        documents(file, fields=Fields(text="words"))


TREC = """<DOC>
<DOCNO> FT911-3 </DOCNO>
<HEADLINE>FT 14 MAY 91 / Headline
  in two lines</HEADLINE>
<TEXT>
Some <b>marked</b> text &amp; an entity.
</TEXT>
<BYLINE>ignored</BYLINE>
<TEXT>More.</TEXT>
</DOC>

<DOC><DOCNO>2</DOCNO>
no text element
</DOC>
"""


def test_trec_documents_have_id_title_and_text(tmp_path: Path) -> None:
    file = tmp_path / "ft911"
    file.write_text(TREC)
    expected = [
        (
            "FT911-3",
            "FT 14 MAY 91 / Headline in two lines",
            "Some  marked  text & an entity.\nMore.",
        ),
        ("2", "", "no text element"),
    ]
    assert documents(file) == expected
    file.write_text(TREC.lower())
    assert [row[0] for row in documents(file)] == ["ft911-3", "2"]
    assert documents(tmp_path, format="trec") == documents(file)


def test_a_bad_trec_document_is_named_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "c.trec"
    file.write_text(TREC + "<DOC>\n<TEXT>no number</TEXT>\n</DOC>\n" + "<DOC><DOCNO>3</DOCNO> cut")
    with pytest.raises(DataError, match=r"line 15: .*<DOCNO>"):
        documents(file)
    rejects = Rejects(tmp_path / "rejects.jsonl")
    assert len(documents(file, on_bad="skip", rejects=rejects)) == 2
    assert rejects.count == 2 and "</DOC> before the file ends" in rejects.path.read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.jsonl", '{"_id": "1", "text": "a", "metadata": {}}\n{"_id": 2, "text": "b"}\n'),
        ("q.jsonl", '{"query_id": "1", "query": "a"}\n{"query_id": "2", "query": "b"}\n'),
        ("q.tsv", "1\ta\n2\tb\n"),
        ("q.txt", "1\ta\n2\tb"),
        ("q.txt", '{"id": "1", "text": "a"}\n{"id": "2", "text": "b"}'),
        ("q.trec", "<top><num>1<title>a</top><top><num>2<title>b</top>"),
    ],
)
def test_queries_are_read_in_every_form(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    assert read_queries(file) == [Query("1", "a"), Query("2", "b")]


def test_queries_with_one_id_twice_or_none_at_all_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "q.tsv"
    file.write_text("1\ta\n1\tb\n")
    with pytest.raises(DataError, match="query id '1' occurs twice"):
        read_queries(file)
    file.write_text("\n\n")
    with pytest.raises(DataError, match="no queries"):
        read_queries(file)


def test_a_document_is_everything_but_id_and_title_without_text_elements() -> None:
    body = "<DOCNO>x</DOCNO><TITLE>T</TITLE>a <i>b</i> &lt;c&gt;"
    assert trec.parse_document(body) == ("x", "T", "a  b  <c>")
    assert isinstance(trec.parse_document("<TEXT>x</TEXT>"), str)


@pytest.mark.parametrize("name", ["cacm", "cranfield", "vaswani", "nfcorpus", "biomappings-mesh"])
@pytest.mark.collections
def test_real_collections_have_their_published_sizes(collections: Path, name: str) -> None:
    sizes = {
        "cacm": (3204, 64),
        "cranfield": (1400, 225),
        "vaswani": (11429, 93),
        "nfcorpus": (3395, 323),
        "biomappings-mesh": (8829, 8080),
    }
    folder = collections / name
    counts = sum(t.num_rows for t in read_documents(folder)), len(read_queries(folder))
    assert counts == sizes[name]
