"""Formats whose files are one split, against Python's csv and json; TREC records across splits."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.data import files
from raydist.data.formats import csv as csv_format
from raydist.data.formats import json as json_format
from raydist.data.formats.names import Naming
from raydist.data.readers import read_documents, read_split
from raydist.data.rejects import Rejects
from raydist.data.scan import SplitScan
from raydist.data.spec import CorpusSource
from raydist.data.splits import plan_splits
from raydist.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ODD = st.lists(
    st.sampled_from(['"', '""', ",", "\t", "\n", "\r\n", "}", "{", "]", "a"]), max_size=9
)
ANY = TEXT | ODD.map("".join)


class SmallBlocks(SplitScan):
    """A pass whose blocks hold few bytes."""

    def blocks(self, end: bytes = b"\n") -> Iterator[tuple[int, bytes]]:
        return files.read_blocks(self.path, end=end, block_bytes=5)


def rows_of(tables: Any) -> list[tuple[str, str, str]]:
    return [tuple(row.values()) for table in tables for row in table.to_pylist()]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(TEXT.filter(bool), ANY, ANY), max_size=8),
    st.sampled_from([",", "\t", ";"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_the_csv_writer_wrote_is_what_the_csv_reader_reads(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    separator: str,
    quoting: Any,
) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=separator, quoting=quoting).writerows(
        [("id", "title", "text"), *rows]
    )
    file = tmp_path_factory.mktemp("csv") / "c.csv"
    file.write_bytes(out.getvalue().encode())
    parsed = list(csv.reader(io.StringIO(out.getvalue(), newline=""), delimiter=separator))
    expected = [tuple(row) for row in parsed[1:]]
    assert rows_of(read_documents(file)) == expected
    layout = csv_format.sniff(str(file), Naming())
    assert rows_of(csv_format.read(SmallBlocks(str(file)), *layout)) == expected


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(TEXT.filter(bool), ANY, st.lists(ANY, max_size=3)), max_size=8),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.booleans(),
)
def test_arrays_and_printed_objects_are_read_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, list[str]]],
    indent: int | None,
    ascii: bool,
    array: bool,
) -> None:
    records = [{"x": {"id": [0]}, "text": text, "title": t, "id": i} for i, t, text in rows]
    whole = [
        json.dumps(r, indent=indent, ensure_ascii=ascii) for r in ([records] if array else records)
    ]
    file = tmp_path_factory.mktemp("json") / "c.json"
    file.write_bytes("\n".join(whole).encode())
    columns, _ = json_format.sniff(str(file), Naming())
    expected = [(i, title, "\n".join(text)) for i, title, text in rows]
    assert rows_of(json_format.read(SmallBlocks(str(file)), columns)) == expected
    source = CorpusSource(path=str(file), format="json")
    assert rows_of(read_documents(source) if rows and file.stat().st_size else []) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["DOC", "doc", "Doc", "DOC id=7", "DOC "]), min_size=1, max_size=9),
    st.integers(1, 300),
    st.sampled_from(["", "\n", "\n<!-- a comment -->\n", "</DOCS><DOCS>"]),
)
def test_records_of_mixed_spelling_are_read_once_whatever_the_splits(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], split_bytes: int, between: str
) -> None:
    file = tmp_path_factory.mktemp("trec") / "c.trec"
    file.write_text(
        between.join(
            f"<{name}>\n<DOCNO>{i}</DOCNO>text {i}</{name.split()[0]}>"
            for i, name in enumerate(names)
        )
    )
    splits = plan_splits(file, split_bytes=split_bytes)
    expected = [(str(i), "", f"text {i}") for i in range(len(names))]
    assert [row for split in splits for row in rows_of(read_split(split))] == expected


def test_text_outside_of_records_is_named_by_its_line_in_every_split(tmp_path: Path) -> None:
    file = tmp_path / "c.trec"
    lines = [f"<DOC><DOCNO>{i}</DOCNO>\ntext</DOC>" for i in range(100)]
    lines[70] += "\nstray"
    file.write_text("\n".join(lines))
    rejects = Rejects(tmp_path / "r.jsonl")
    source = CorpusSource(path=str(file), on_bad="skip")
    count = 0
    for split in plan_splits(file, split_bytes=500):
        count += len(rows_of(read_split(split, source, rejects=rejects)))
    assert count == 100 and rejects.count == 1
    assert json.loads((tmp_path / "r.jsonl").read_text())["line"] == 143
    with pytest.raises(DataError, match="line 143: 'stray"):
        list(read_documents(file))
