"""Tab-separated documents and queries: a line is a record, a tab ends a column, nothing is quoted.

Files whose texts are in quotes are read by `formats.csv`; `formats.layout` says what the columns
are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.data.columns import converted, schema_of
from raydist.data.files import head
from raydist.data.formats.jsonl import is_utf8
from raydist.data.formats.layout import HEAD_BYTES, Layout, check_no_json, layout_of, say_repeated
from raydist.data.formats.names import Naming
from raydist.data.scan import SplitScan, utf8_problem
from raydist.errors import DataError


def sniff(path: str, naming: Naming) -> Layout:
    """Returns the layout of a file by its first lines.

    Raises:
        DataError: it is not clear which columns are meant.
    """
    data = head(path, HEAD_BYTES)
    if b"\r" in data.strip() and b"\n" not in data:
        raise DataError(
            f"{path}: its lines end with carriage returns alone; set format=csv, which knows them, "
            "or end them with line feeds"
        )
    check_no_json(path, data)
    lines = data.split(b"\n")
    if len(data) == HEAD_BYTES and len(lines) > 1:
        lines.pop()  # cut off
    rows = [
        line.decode("utf-8", "backslashreplace").rstrip("\r").split("\t")
        for line in lines
        if line.strip()
    ]
    return layout_of(path, rows, naming)


def describe(path: str, naming: Naming) -> str:
    """Returns what the columns of a file are taken for."""
    return f"tab-separated, quotes belong to the text, {sniff(path, naming).description}"


def read(scan: SplitScan, layout: Layout) -> Iterator[pa.Table]:
    """Yields the documents of a split as tables of the schema DOCUMENTS."""
    header = bool(layout.header) and scan.start == 0
    for offset, data in scan.blocks():
        table = _parse_block(data, offset, layout, scan, header)
        if table.num_rows:
            yield table
        header = False


def _parse_block(
    data: bytes, offset: int, layout: Layout, scan: SplitScan, header: bool
) -> pa.Table:
    problems: dict[int, tuple[bytes, str]] = {}
    if not is_utf8(data):
        if scan.replace:
            data = data.decode("utf-8", "replace").encode()
        else:
            data, problems = _without_broken(data, offset)
    lines = _lines(data)
    keep = pc.greater(pc.binary_length(lines), 0).to_numpy(zero_copy_only=False)
    if header and keep.any():
        keep[np.argmax(keep)] = False
    if layout.header:
        again = _is_header(lines, layout) & keep
        keep &= ~again
        if again.any():
            say_repeated(scan.path)
    rows = np.flatnonzero(keep)
    cells = pc.split_pattern(lines.take(pa.array(rows)), "\t")
    widths = pc.list_value_length(cells).to_numpy(zero_copy_only=False)
    right = widths == layout.width
    starts = np.cumsum(widths) - widths
    values = cells.flatten()
    ids = values.take(pa.array(starts[right] + layout.id))
    named = pc.greater(pc.binary_length(ids), 0).to_numpy(zero_copy_only=False)
    unnamed = np.flatnonzero(right)[~named]
    extra = []
    for at, column in layout.extra:
        array, wrong = converted(_blank_as_null(values.take(pa.array(starts[right] + at))), column)
        extra.append(array)
        for index, reason in wrong.items():
            row = int(rows[np.flatnonzero(right)[index]])
            problems[row] = lines[row].as_py().encode(), reason
    misfits = [row in problems for row in rows[right].tolist()] if extra else []
    for index in [*np.flatnonzero(~right).tolist(), *unnamed.tolist()]:
        expected = (
            f"an id in column {layout.id + 1}"
            if right[index]
            else f"{layout.width} columns separated by tabs, not {widths[index]}"
        )
        row = int(rows[index])
        problems[row] = lines[row].as_py().encode(), expected
    for row, (line, expected) in sorted(problems.items()):
        scan.report(offset, row, line, expected)
    if any(misfits):
        named &= ~np.array(misfits)
        unnamed = np.flatnonzero(right)[~named]
    right[unnamed] = False
    ids = ids.filter(pa.array(named))
    extra = [each.filter(pa.array(named)) for each in extra]
    first = starts[right]
    titles = (
        pa.repeat("", len(first))
        if layout.title is None
        else values.take(pa.array(first + layout.title)).cast(pa.string())
    )
    texts = values.take(pa.array(first + layout.text))
    columns = [ids.cast(pa.string()), titles, texts, *extra]
    return pa.table(columns, schema=schema_of(column for _, column in layout.extra))


def _blank_as_null(cells: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(pc.binary_length(cells), 0), pa.scalar(None, cells.type), cells)


def _is_header(lines: pa.Array, layout: Layout) -> np.ndarray:
    header = "\t".join(layout.header)
    same = pc.is_in(lines, value_set=pa.array([header, f"\ufeff{header}"], pa.large_string()))
    return np.asarray(same.to_numpy(zero_copy_only=False), bool)


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
