"""jsonl documents and records: pyarrow's parser in blocks, line by line where a line is odd.

What a line means is decided by that line alone (`parse_line`, and pyarrow's verdict on it), so the
fast path over a block and the slow path over its lines give the same rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from raydist.data.files import read_blocks
from raydist.data.jsonl_line import (
    Columns,
    parse_text,
)
from raydist.data.rejects import BadLines, utf8_problem
from raydist.records import DOCUMENTS

_BOM = b"\xef\xbb\xbf"
_LEAF = 32


def read(
    path: str,
    start: int = 0,
    stop: int | None = None,
    *,
    compression: str | None,
    columns: Columns,
    bad: BadLines,
    replace: bool = False,
    parse: Callable[..., list[pa.Table]] | None = None,
) -> Iterator[pa.Table]:
    """Yields the documents of a byte range as tables of the schema DOCUMENTS.

    Args:
        path: the file.
        start: byte offset of a line's first byte.
        stop: byte offset after a line's end; None is the end of the file.
        compression: as `sources.compression_of` says.
        columns: as `sniff` says.
        bad: where bad lines are reported.
        replace: broken UTF-8 and lone surrogates become U+FFFD instead of bad lines.
        parse: the block parser, `parse_block` if None.
    """
    for offset, data in read_blocks(path, start, stop, compression=compression):
        for table in (parse or parse_block)(data, offset, columns, bad, replace):
            if table.num_rows:
                yield table
        bad.passed(data)


def parse_block(
    data: bytes, offset: int, columns: Columns, bad: BadLines, replace: bool
) -> list[pa.Table]:
    """Returns the documents of a block of whole lines.

    Args:
        data: the block.
        offset: its byte offset in the file; a byte order mark at 0 is skipped.
        columns: the file's names.
        bad: where bad lines are reported.
        replace: as for `read`.
    """
    original = data
    if offset == 0:
        data = data.removeprefix(_BOM)
    if not is_utf8(data):
        if not replace:
            return _lines(original, offset, columns, bad, replace)
        data = data.decode("utf-8", "replace").encode()
    table = _fast(data, columns)
    if table is None:
        # Blank lines, carriage returns and blanks at line ends are no reason to go slowly.
        lines = [line.strip(b" \t\r") for line in data.split(b"\n")]
        table = _fast(b"\n".join(filter(None, lines)), columns)
    return [table] if table is not None else _lines(original, offset, columns, bad, replace)


def _lines(
    data: bytes, offset: int, columns: Columns, bad: BadLines, replace: bool
) -> list[pa.Table]:
    """Parses a block in which some line is odd: halves it until the odd lines stand alone."""
    lines: list[tuple[int, int, bytes]] = []
    at = offset
    for row, line in enumerate(data.split(b"\n")):
        bare = line.removeprefix(_BOM) if at == 0 else line
        if bare.strip(b" \t\r"):
            lines.append((row, at + len(line) - len(bare), bare))
        at += len(line) + 1
    return list(_halves(lines, offset, columns, bad, replace))


def _halves(
    lines: list[tuple[int, int, bytes]], offset: int, columns: Columns, bad: BadLines, replace: bool
) -> Iterator[pa.Table]:
    if len(lines) <= _LEAF:
        rows: list[tuple[str, str, str]] = []
        for row, at, line in lines:
            parsed = parse_line(line, at, columns, replace)
            if isinstance(parsed, str):
                bad.report(offset, row, line, parsed)
            else:
                rows.append(parsed)
        if rows:
            yield pa.table([pa.array(c, f.type) for c, f in zip(zip(*rows), DOCUMENTS)], DOCUMENTS)
        return
    data = b"\n".join(line.strip(b" \t\r") for _, _, line in lines)
    table = _fast(data, columns) if is_utf8(data) else None
    if table is not None:
        yield table
        return
    middle = len(lines) // 2
    yield from _halves(lines[:middle], offset, columns, bad, replace)
    yield from _halves(lines[middle:], offset, columns, bad, replace)


def parse_line(
    line: bytes, offset: int, columns: Columns, replace: bool = False
) -> tuple[str, str, str] | str:
    """Returns a line's `(doc_id, title, text)`, or what was expected of it if it is bad.

    A line is good if either parser accepts it: Python's (which also takes numbers as ids in a file
    of strings) or pyarrow's (which also takes depths and numbers that Python refuses).
    """
    problem = utf8_problem(line, offset)
    if problem and not replace:
        return problem
    text = line.decode("utf-8", "replace").strip(" \t\r")
    parsed = parse_text(text, columns, replace)
    if isinstance(parsed, str):
        for numeric in (False, True):
            table = _fast(text.encode(), dataclasses.replace(columns, numeric_ids=numeric))
            if table is not None and table.num_rows:
                doc_id, title, contents = (column[0].as_py() for column in table.columns)
                return doc_id, title, contents
    return parsed


def is_utf8(data: bytes) -> bool:
    """Returns whether bytes are UTF-8, by Arrow's validator (several times Python's speed)."""
    if not data:
        return True
    offsets = pa.py_buffer(np.array([0, len(data)], np.int64))
    whole = pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(data)])
    try:
        whole.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _fast(data: bytes, columns: Columns) -> pa.Table | None:
    """Returns the documents of lines without blank ones, or None if any of them is odd.

    pyarrow's parser does not know lines, takes a missing member for null, and must not meet a bare
    `null`. So each line has to begin with `{` and end with `}` and there must be as many records as
    lines: a line end that is followed by `{` and preceded by `}` can only stand between records.
    """
    size = len(data) - data.endswith(b"\n")
    if not size:
        return DOCUMENTS.empty_table()
    codes = np.frombuffer(data, np.uint8, size)
    ends = np.flatnonzero(codes == ord("\n"))
    if codes[0] != ord("{") or codes[-1] != ord("}"):
        return None
    if not ((codes[ends - 1] == ord("}")).all() and (codes[ends + 1] == ord("{")).all()):
        return None
    wanted = [(columns.id, pa.int64() if columns.numeric_ids else pa.string())]
    wanted += [(columns.text, pa.large_string())]
    wanted += [(columns.title, pa.string())] if columns.title is not None else []
    schema = pa.schema(wanted)
    try:
        table = pyarrow.json.read_json(
            pa.BufferReader(data),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore"
            ),
        )
    except pa.ArrowInvalid:
        return None
    ids, texts = table[columns.id].combine_chunks(), table[columns.text].combine_chunks()
    if table.num_rows != len(ends) + 1 or ids.null_count or texts.null_count:
        return None
    if columns.numeric_ids:
        ids = ids.cast(pa.string())
    elif pc.any(pc.equal(pc.binary_length(ids), 0)).as_py():
        return None
    if columns.title is None:
        titles = pa.repeat("", len(ids))
    else:
        titles = table[columns.title].combine_chunks().fill_null("")
    return pa.table([ids, titles, texts], schema=DOCUMENTS)
