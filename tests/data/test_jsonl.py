from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.data.formats import jsonl
from raydist.data.readers import read_documents, read_split
from raydist.data.rejects import Rejects
from raydist.data.scan import SplitScan
from raydist.data.spec import CorpusSource, Fields
from raydist.data.splits import plan_splits
from raydist.errors import DataError

GOOD = [
    b'{"id": "1", "text": "plain"}',
    b'{"id": "2", "title": "a title", "text": "with \\u00e9 and \\ud83d\\ude00"}',
    b'{"id": 3, "text": "a numeric id"}',
    b'{"id": -0, "text": "minus nothing"}',
    b'{"id": 123456789012345678901234567890, "text": "a huge id"}',
    b'{"id": "4", "text": "", "title": null}',
    b' \t{"text": "blanks around", "id": "5"} \r',
    b'{"id": "6", "text": "nul \\u0000 and slash \\/"}',
    b'{"id": "7", "text": "more", "more": [1, {"id": 9, "text": null}, null, true], "x": 1e999}',
    b'{"id": "8", "text": "other names twice", "x": 1, "x": 2}',
    b'{"\\u0069d": "9", "text": "an escaped name"}',
    b'{"id": "10", "text": "deep", "x": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    '{"id": "11", "text": "line separators \u2028 \u0085 stay"}'.encode(),
    b'{"id": "12", "text": "long number", "x": ' + b"9" * 5000 + b"}",
    b'{"id": "13", "title": ["two", "words"], "text": ["two", "lines"]}',
    b'{"id": "14", "text": []}',
]
BAD = [
    b"null",
    b"[]",
    b'"text"',
    b"{}",
    b'{"id": "1"}',
    b'{"text": "no id"}',
    b'{"id": "", "text": "empty id"}',
    b'{"id": null, "text": "null id"}',
    b'{"id": 1.5, "text": "a fraction"}',
    b'{"id": 1e3, "text": "an exponent"}',
    b'{"id": true, "text": "a truth"}',
    b'{"id": "1", "text": null}',
    b'{"id": "1", "text": 5}',
    b'{"id": "1", "text": ["a", 1]}',
    b'{"id": "1", "text": ["a", null]}',
    b'{"id": "1", "text": [["a"]]}',
    b'{"id": ["1"], "text": "a"}',
    b'{"id": "1", "title": 7, "text": "a number as title"}',
    b'{"id": "1", "id": "2", "text": "two ids"}',
    b'{"id": "1", "text": "a", "text": "b"}',
    b'{"id": "1", "text": "half \\ud800 pair"}',
    b'{"id": "1", "text": "half \\udc00 pair"}',
    b'{"id": "1", "text": "raw \xff byte"}',
    b'{"id": "1", "text": "cut',
    b'{"id": "1", "text": "two"}{"id": "2", "text": "records"}',
    b'{"id": "1", "text": "and"} null {}',
    b'{"id": "1", "text": "raw \x00 nul"}',
    b'{"id": "1", "text": "raw \t tab"}',
    b'{"id": "1", "text": "comma",}',
    b"{'id': '1', 'text': 'quotes'}",
    b"not json",
    b"}",
    b"{",
]
COLUMNS = jsonl.Columns("id", "title", "text")


def rows_of(
    data: bytes, columns: jsonl.Columns, replace: bool
) -> tuple[list[tuple[str, ...]], int]:
    rejects = Rejects()
    tables = jsonl.parse_block(data, 0, columns, SplitScan("x", rejects, replace=replace))
    return [tuple(row.values()) for table in tables for row in table.to_pylist()], rejects.count


def one_by_one(
    data: bytes, columns: jsonl.Columns, replace: bool
) -> tuple[list[tuple[str, ...]], int]:
    rows, bad = [], 0
    for line in data.split(b"\n"):
        if line.strip(b" \t\r"):
            row = jsonl.parse_line(line, 0, columns, replace)
            bad += isinstance(row, str)
            rows += [] if isinstance(row, str) else [row]
    return rows, bad


@pytest.mark.parametrize("line", GOOD, ids=range(len(GOOD)))
@pytest.mark.parametrize("numeric", [False, True])
def test_a_good_line_is_read_alone_and_among_others(line: bytes, numeric: bool) -> None:
    columns = jsonl.Columns("id", "title", "text", numeric)
    alone, bad = rows_of(line, columns, False)
    assert len(alone) == 1 and bad == 0
    plain = b'{"id": "p", "text": "q"}\n' * 100
    many, bad = rows_of(plain + line + b"\n" + plain, columns, False)
    assert bad == 0 and many[100] == alone[0] and len(many) == 201


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_a_bad_line_is_rejected_alone_and_among_others(line: bytes) -> None:
    assert rows_of(line, COLUMNS, False) == ([], 1)
    plain = b'{"id": "p", "text": "q"}\n' * 100
    many, bad = rows_of(plain + line + b"\n" + plain, COLUMNS, False)
    assert bad == 1 and len(many) == 200


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(GOOD[:9]),
            st.sampled_from(BAD),
            st.sampled_from([b"", b" ", b"\r", b'{"id":"a","text":"b"}']),
            st.builds(
                lambda i, t: json.dumps({"id": i, "text": t}, ensure_ascii=False).encode(
                    "utf-8", "replace"
                ),
                st.one_of(st.text(), st.integers()),
                st.text(),
            ),
        ),
        max_size=120,
    ),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_blocks_and_single_lines_give_the_same_rows(
    lines: list[bytes], numeric: bool, replace: bool, listed: bool
) -> None:
    columns = jsonl.Columns("id", "title", "text", numeric, listed)
    data = b"\n".join(lines)
    assert rows_of(data, columns, replace) == one_by_one(data, columns, replace)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_flipped_bytes_give_the_same_rows_in_blocks_and_in_single_lines(
    data: st.DataObject,
) -> None:
    block = bytearray(b"\n".join(GOOD[:9] * 5))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(block) - 1))
        block[at] = data.draw(st.one_of(st.sampled_from(b'"{}[]\\,:\n\r \0'), st.integers(0, 255)))
    replace = data.draw(st.booleans())
    assert rows_of(bytes(block), COLUMNS, replace) == one_by_one(bytes(block), COLUMNS, replace)


def test_a_replaced_text_has_replacement_characters() -> None:
    rows, bad = rows_of(
        b'{"id": "1", "text": "a\xffb"}\n{"id": "2", "text": "\\ud800"}', COLUMNS, True
    )
    assert rows == [("1", "", "a\ufffdb"), ("2", "", "\ufffd")] and bad == 0


def test_a_bad_line_is_named_by_file_number_excerpt_and_expectation(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"_id": str(i), "text": "words " * 50}) for i in range(3000)]
    lines[2345] = '{"_id": "2345", "text": 12}'
    file.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        list(read_documents(file))
    message = str(caught.value)
    assert f"{file}, line 2346" in message and '"2345"' in message
    assert "expected a string as 'text', not '12'" in message
    split = next(s for s in plan_splits(file, split_bytes=100_000) if s["start"] > 400_000)
    with pytest.raises(DataError, match=r"line 2346"):
        list(read_split(split)) and [list(read_split(s)) for s in plan_splits(file)]


def test_line_numbers_are_absolute_in_every_split_and_every_compression(tmp_path: Path) -> None:
    import gzip

    lines = [json.dumps({"id": str(i), "text": "w" * 1000}) for i in range(9000)]
    bad = [17, 4500, 8999]
    for number in bad:
        lines[number] = "oops"
    plain = tmp_path / "c.jsonl"
    plain.write_text("\n".join(lines))
    skipping = CorpusSource(path=plain, on_bad="skip")
    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), 1))
    for path, splits in (
        (plain, plan_splits(plain, split_bytes=1 << 20)),
        (packed, plan_splits(packed)),
    ):
        log = tmp_path / f"{path.name}.rejects"
        rejects = Rejects(log)
        rows = sum(
            table.num_rows
            for split in splits
            for table in read_split(split, skipping, rejects=rejects)
        )
        written = [json.loads(line) for line in log.read_text().splitlines()]
        assert rows == 8997 and rejects.count == 3
        assert [row["line"] for row in written] == [n + 1 for n in bad]
        assert {row["file"] for row in written} == {str(path)}
        assert written[0]["excerpt"] == "oops" and "JSON object" in written[0]["reason"]


def test_broken_utf8_names_the_byte_offset(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    first = b'\xef\xbb\xbf{"id": "1", "text": "fine"}\r\n\r\n'
    second = b'{"id": "2", "text": "caf\xe9"}\r\n'
    file.write_bytes(first + second)
    with pytest.raises(DataError, match=rf"line 3: .*byte offset {len(first) + 24} \(0xe9\)"):
        list(read_documents(file))
    (table,) = read_documents(CorpusSource(path=file, encoding_errors="replace"))
    assert table["text"].to_pylist() == ["fine", "caf\ufffd"]


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        ({"_id": "1", "title": "t", "text": "x", "metadata": {"url": "u"}}, {}),
        ({"id": "1", "title": "t", "text": "x"}, {}),
        ({"id": "1", "title": "t", "contents": "x"}, {}),
        ({"docno": "1", "headline": "t", "body": "x"}, {"id": "docno", "title": "headline"}),
        ({"n": 1, "title": "t", "b": "x", "text": "other"}, {"id": "n", "text": "b"}),
    ],
)
def test_usual_and_own_names_are_found(
    tmp_path: Path, record: dict[str, str], fields: dict[str, str]
) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text(json.dumps(record))
    (table,) = read_documents(CorpusSource(path=file, fields=Fields(**fields)))
    assert table.to_pylist() == [{"doc_id": "1", "title": "t", "text": "x"}]


def test_unknown_names_are_an_error_that_lists_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text('{"key": "1", "words": "x"}\n')
    with pytest.raises(DataError, match=r"key, words.*fields\.id="):
        list(read_documents(file))
    file.write_text('[{"id": "1", "text": "x"}]\n')
    with pytest.raises(DataError, match=r"JSON array.*format=json"):
        list(read_documents(file))


def test_skipped_lines_are_told_and_the_rejects_file_begins_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, log = tmp_path / "c.jsonl", tmp_path / "r.jsonl"
    file.write_text('{"id": "1", "text": "a"}\nx\ny\n')
    for _ in range(2):
        (table,) = read_documents(CorpusSource(path=file, on_bad="skip", rejects=str(log)))
        assert table.num_rows == 1 and len(log.read_text().splitlines()) == 2
        warning = capsys.readouterr().err
        assert (
            "2 bad lines skipped, the first: " in warning
            and "line 2" in warning
            and str(log) in warning
        )
