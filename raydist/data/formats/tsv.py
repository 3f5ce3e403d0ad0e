"""Tab-separated documents and queries: no quoting, a line is a record, a tab ends a column.

With a header its names tell the columns; without one two columns are id and text, three are id,
title and text, and more need `fields` with 1-based column numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.data.files import head, read_blocks
from raydist.data.formats.jsonl import ID_NAMES, TEXT_NAMES, TITLE_NAMES, is_utf8
from raydist.data.rejects import BadLines, utf8_problem
from raydist.errors import DataError
from raydist.records import DOCUMENTS

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a table keeps its columns (0-based), how many it has, and whether it has a header."""

    id: int
    title: int | None
    text: int
    width: int
    header: bool


def sniff(path: str, fields: Mapping[str, str] | None = None) -> Layout:
    """Returns the layout of a file by its first line.

    Args:
        path: the file, compressed or not.
        fields: own columns, by name or 1-based number: `{"id": "1", "text": "4"}`.

    Raises:
        DataError: a named column is not there, or the columns cannot be told.
    """
    fields = fields or {}
    data = head(path).removeprefix(_BOM)
    line = next((each for each in data.split(b"\n") if each.strip()), b"id\ttext")
    cells = [cell.strip().lower() for cell in line.decode("utf-8", "replace").split("\t")]
    names = {"id": ID_NAMES, "title": TITLE_NAMES, "text": TEXT_NAMES}
    given = {
        role: next((cells.index(name) for name in known if name in cells), None)
        for role, known in names.items()
    }
    header = given["id"] is not None and given["text"] is not None
    found = given if header else dict.fromkeys(names)
    for role, name in fields.items():
        if name.isdecimal() and 1 <= int(name) <= len(cells):
            found[role] = int(name) - 1
        elif name.lower() in cells:
            found[role] = cells.index(name.lower())
            header = True
        else:
            raise DataError(
                f"{path}: no column {name!r} for fields.{role}; the first line has "
                f"{', '.join(cells[:12])} (use a name of it or a number from 1 to {len(cells)})"
            )
    if not header and not fields and len(cells) in (2, 3):
        found = {"id": 0, "title": 1 if len(cells) == 3 else None, "text": len(cells) - 1}
    if found["id"] is None or found["text"] is None:
        raise DataError.at(
            path,
            1,
            line.decode("utf-8", "backslashreplace"),
            "columns id and text separated by a tab (id, title and text, or a header); "
            "other columns are named by fields.id= and fields.text=, by number or header",
        )
    return Layout(found["id"], found["title"], found["text"], len(cells), header)


def read(
    path: str,
    start: int = 0,
    stop: int | None = None,
    *,
    compression: str | None,
    layout: Layout,
    bad: BadLines,
    replace: bool = False,
) -> Iterator[pa.Table]:
    """Yields the documents of a byte range as tables of the schema DOCUMENTS.

    Arguments are those of `jsonl.read`.
    """
    for offset, data in read_blocks(path, start, stop, compression=compression):
        table = parse_block(data, offset, layout, bad, replace)
        if table.num_rows:
            yield table
        bad.passed(data)


def parse_block(data: bytes, offset: int, layout: Layout, bad: BadLines, replace: bool) -> pa.Table:
    """Returns the documents of a block of whole lines; arguments as for `jsonl.parse_block`."""
    size = len(data)
    if offset == 0:
        data = data.removeprefix(_BOM)
    problems: dict[int, tuple[bytes, str]] = {}
    if not is_utf8(data):
        if replace:
            data = data.decode("utf-8", "replace").encode()
        else:
            data, problems = _without_broken(data, offset + size - len(data))
    lines = _lines(data)
    keep = pc.greater(pc.binary_length(lines), 0).to_numpy(zero_copy_only=False)
    if offset == 0 and layout.header and keep.any():
        keep[np.argmax(keep)] = False
    rows = np.flatnonzero(keep)
    cells = pc.split_pattern(lines.take(pa.array(rows)), "\t")
    widths = pc.list_value_length(cells).to_numpy(zero_copy_only=False)
    right = widths == layout.width
    starts = np.cumsum(widths) - widths
    values = cells.flatten()
    ids = values.take(pa.array(starts[right] + layout.id))
    named = pc.greater(pc.binary_length(ids), 0).to_numpy(zero_copy_only=False)
    unnamed = np.flatnonzero(right)[~named]
    for index in [*np.flatnonzero(~right).tolist(), *unnamed.tolist()]:
        expected = (
            f"an id in column {layout.id + 1}"
            if right[index]
            else f"{layout.width} columns separated by tabs, not {widths[index]}"
        )
        row = int(rows[index])
        problems[row] = lines[row].as_py().encode(), expected
    for row, (line, expected) in sorted(problems.items()):
        bad.report(offset, row, line, expected)
    right[unnamed] = False
    ids = ids.filter(pa.array(named))
    first = starts[right]
    titles = (
        pa.repeat("", len(first))
        if layout.title is None
        else values.take(pa.array(first + layout.title)).cast(pa.string())
    )
    texts = values.take(pa.array(first + layout.text))
    return pa.table([ids.cast(pa.string()), titles, texts], schema=DOCUMENTS)


def _lines(data: bytes) -> pa.Array:
    """Returns the lines as a large_string array, without line ends and carriage returns."""
    codes = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(codes == ord("\n")).astype(np.int64) + 1
    if data and not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    offsets = np.concatenate((np.zeros(1, np.int64), ends))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    whole = pa.Array.from_buffers(pa.large_string(), len(ends), buffers)
    return pc.ascii_rtrim(whole, "\r\n")


def _without_broken(data: bytes, base: int) -> tuple[bytes, dict[int, tuple[bytes, str]]]:
    """Returns a block with blank lines for those that are not UTF-8, and these by their number.

    Args:
        data: the block without a byte order mark.
        base: its byte offset in the file.
    """
    lines = data.split(b"\n")
    problems: dict[int, tuple[bytes, str]] = {}
    for row, line in enumerate(lines):
        problem = utf8_problem(line, base)
        base += len(line) + 1
        if problem:
            problems[row] = line, problem
            lines[row] = b""
    return b"\n".join(lines), problems
