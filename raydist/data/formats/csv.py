"""CSV (RFC 4180): texts in quotes may hold separators and line ends, and quotes that are doubled.

The separator is a comma, a semicolon or a tab: what csv.writer, pandas and spreadsheets write.
A quoted line end looks like any other, so a file is one split.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from raydist.data.columns import fit, table_of
from raydist.data.files import head
from raydist.data.formats.layout import HEAD_BYTES, Layout, check_no_json, layout_of, say_repeated
from raydist.data.formats.names import Naming, usual
from raydist.data.scan import REPLACE, SplitScan
from raydist.errors import DataError
from raydist.records import tables

_SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon"}
_MAX_FIELD = 256 << 20
_SPREADSHEET = ["sep=", ""]  # the first line may say "sep=;"
_BYTES = re.compile("[\udc80-\udcff]")
_CELL = re.compile(rb'(?:"((?:[^"]++|"")*+)"|([^"\t\r\n]*+))(\t|\r?\n|\r|\Z)')


def sniff(path: str, naming: Naming) -> tuple[Layout, str]:
    """Returns the layout of a file and its separator, by its first lines.

    Raises:
        DataError: it is not clear which columns are meant.
    """
    data = head(path, HEAD_BYTES)
    check_no_json(path, data)
    text = data.decode("utf-8", "backslashreplace")
    first: tuple[list[list[str]], str] | None = None
    for separator in _SEPARATORS:
        rows = _rows(text, separator, cut=len(data) == HEAD_BYTES)
        names = [cell.strip().lower() for cell in rows[0]] if rows else []
        if usual("id", names) and usual("text", names):
            return layout_of(path, rows, naming), separator
        if len(names) > 1 and first is None:
            first = rows, separator
    rows, separator = first or ([[text.split("\n")[0]]] if text.strip() else [], ",")
    return layout_of(path, rows, naming), separator


def describe(path: str, naming: Naming) -> str:
    """Returns what the columns of a file are taken for."""
    layout, separator = sniff(path, naming)
    return f"{_SEPARATORS[separator]}-separated, texts may be quoted, {layout.description}"


def _rows(text: str, separator: str, cut: bool) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if row and (rows or row != _SPREADSHEET):
                rows.append(row)
    except csv.Error:  # the reader of the documents will name it
        pass
    return rows[:-1] if cut and len(rows) > 1 else rows


def is_quoted(path: str) -> bool:
    """Returns whether a tab-separated file is one of csv.writer: texts in quotes, quotes doubled.

    Raises:
        DataError: both are possible.
    """
    data = head(path, HEAD_BYTES)
    at = cells = quoted = 0
    sure = False
    while at < len(data):
        cell = _CELL.match(data, at)
        if cell is None:
            if len(data) < HEAD_BYTES or data[at : at + 1] != b'"':
                return False
            break  # the last one is cut off
        if (content := cell.group(1)) is not None:
            quoted += 1
            sure = sure or any(mark in content for mark in (b'""', b"\t", b"\n"))
        cells += 1
        at = cell.end()
    if quoted and not sure and quoted < cells:
        raise DataError(
            f"{path}: some of its texts are in quotes: format=csv takes them off, format=tsv keeps "
            "them"
        )
    return quoted > 0


def read(scan: SplitScan, layout: Layout, separator: str) -> Iterator[pa.Table]:
    """Yields the documents of a file as tables of the schema DOCUMENTS."""
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))
    columns = [column for _, column in layout.extra]
    yield from tables(_parsed(scan, layout, separator), lambda rows: table_of(rows, columns))


def _parsed(scan: SplitScan, layout: Layout, separator: str) -> Iterator[tuple[Any, ...]]:
    reader = csv.reader(_lines(scan), delimiter=separator, strict=True)
    header, begun = list(layout.header), False
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            scan.report_number(number, "", f"CSV; {error}, in the record that begins here")
            continue
        if cells is None:
            return
        if not cells or (number == 1 and cells == _SPREADSHEET):
            continue
        if header and (not begun or [cells[0].lstrip("\ufeff"), *cells[1:]] == header):
            if begun:
                say_repeated(scan.path)
            begun = True
            continue
        problem = _problem(cells, layout, scan.replace)
        if problem:
            scan.report_number(number, separator.join(cells)[:200], problem)
            continue
        title = "" if layout.title is None else cells[layout.title]
        try:
            values = [fit(cells[at] or None, column) for at, column in layout.extra]
        except ValueError as error:
            scan.report_number(number, separator.join(cells)[:200], str(error))
            continue
        yield cells[layout.id], title, cells[layout.text], *values


def _problem(cells: list[str], layout: Layout, replace: bool) -> str:
    if len(cells) != layout.width:
        return f"{layout.width} columns, not {len(cells)}"
    if not cells[layout.id]:
        return f"an id in column {layout.id + 1}"
    if broken := _BYTES.search("".join(cells)):
        return f"UTF-8; the byte 0x{ord(broken.group()) - 0xDC00:02x} is not; {REPLACE}"
    return ""


def _lines(scan: SplitScan) -> Iterator[str]:
    """Yields lines with their ends; bytes that are not UTF-8 become half surrogates."""
    errors = "replace" if scan.replace else "surrogateescape"
    for _, data in scan.blocks():
        yield from io.StringIO(data.decode("utf-8", errors), newline="")
