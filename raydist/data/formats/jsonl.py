"""jsonl documents and queries: pyarrow's parser in blocks, line by line where a line is odd.

What a line means is decided by that line alone (`parse_line`, and pyarrow's verdict on it), so the
fast path over a block and the slow path over its lines give the same rows.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from raydist.data.columns import (
    TYPES,
    Column,
    Number,
    absent,
    converted,
    fit,
    schema_of,
    shown_by_values,
    table_of,
    typed,
)
from raydist.data.files import head
from raydist.data.formats.names import Naming, id_name, missing, roles, usual
from raydist.data.scan import SplitScan, utf8_problem
from raydist.errors import DataError

_LEAF = 32  # lines: fewer are parsed one by one
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Columns:
    """The names under which a file keeps id, title and text.

    Attributes:
        id: name of the id.
        title: name of the title; a record may lack it.
        text: name of the text.
        numeric_ids: whether ids are mostly numbers; only speed depends on it.
        list_texts: whether texts are mostly lists of texts; only speed depends on it.
        extra: metadata to read, typed.
    """

    id: str
    title: str | None
    text: str
    numeric_ids: bool = False
    list_texts: bool = False
    extra: tuple[Column, ...] = ()


class Pairs(list[tuple[str, Any]]):
    """The members of a JSON object in order, repeated names included."""


DECODER = json.JSONDecoder(object_pairs_hook=Pairs, parse_int=Number, parse_float=Number)


def read(scan: SplitScan, columns: Columns) -> Iterator[pa.Table]:
    """Yields the documents of a split as tables of the schema DOCUMENTS."""
    for offset, data in scan.blocks():
        yield from filter(len, parse_block(data, offset, columns, scan))


def parse_block(data: bytes, offset: int, columns: Columns, scan: SplitScan) -> list[pa.Table]:
    """Returns the documents of a block of whole lines.

    Args:
        data: the block.
        offset: its byte offset in the file.
        columns: the file's names.
        scan: reports bad lines.
    """
    if not is_utf8(data):
        if not scan.replace:
            return _lines(data, offset, columns, scan)
        data = data.decode("utf-8", "replace").encode()
    table = _fast(data, columns)
    if table is None:
        # Blank lines, carriage returns and blanks at line ends are no reason to go slowly.
        lines = [line.strip(b" \t\r") for line in data.split(b"\n")]
        table = _fast(b"\n".join(filter(None, lines)), columns)
    return [table] if table is not None else _lines(data, offset, columns, scan)


def _lines(data: bytes, offset: int, columns: Columns, scan: SplitScan) -> list[pa.Table]:
    """Parses a block with an odd line: halves it until the odd lines are by themselves."""
    lines: list[tuple[int, int, bytes]] = []
    at = offset
    for row, line in enumerate(data.split(b"\n")):
        if line.strip(b" \t\r"):
            lines.append((row, at, line))
        at += len(line) + 1
    return list(_halves(lines, offset, columns, scan))


def _halves(
    lines: list[tuple[int, int, bytes]], offset: int, columns: Columns, scan: SplitScan
) -> Iterator[pa.Table]:
    if len(lines) <= _LEAF:
        rows: list[tuple[Any, ...]] = []
        for row, at, line in lines:
            parsed = parse_line(line, at, columns, scan.replace)
            if isinstance(parsed, str):
                scan.report(offset, row, line, parsed)
            else:
                rows.append(parsed)
        if rows:
            yield table_of(rows, columns.extra)
        return
    data = b"\n".join(line.strip(b" \t\r") for _, _, line in lines)
    table = _fast(data, columns) if is_utf8(data) else None
    if table is not None:
        yield table
        return
    middle = len(lines) // 2
    yield from _halves(lines[:middle], offset, columns, scan)
    yield from _halves(lines[middle:], offset, columns, scan)


def parse_line(
    line: bytes, offset: int, columns: Columns, replace: bool = False
) -> tuple[Any, ...] | str:
    """Returns a line's `(doc_id, title, text, *values)`, or what was expected of it if it is bad.

    A line is good if either parser accepts it: Python's (which also takes numbers as ids in a file
    of strings) or pyarrow's (which also takes depths and numbers that Python refuses).
    """
    problem = utf8_problem(line, offset)
    if problem and not replace:
        return problem
    text = line.decode("utf-8", "replace").strip(" \t\r")
    parsed = _parse_text(text, columns, replace)
    if isinstance(parsed, str):
        for numeric in (False, True):
            table = _fast(text.encode(), dataclasses.replace(columns, numeric_ids=numeric))
            if table is not None and table.num_rows:
                return tuple(column[0].as_py() for column in table.columns)
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
        return schema_of(columns.extra).empty_table()
    codes = np.frombuffer(data, np.uint8, size)
    ends = np.flatnonzero(codes == ord("\n"))
    if codes[0] != ord("{") or codes[-1] != ord("}"):
        return None
    if not ((codes[ends - 1] == ord("}")).all() and (codes[ends + 1] == ord("{")).all()):
        return None
    wanted = [(columns.id, pa.int64() if columns.numeric_ids else pa.string())]
    text = pa.large_string()
    wanted += [(columns.text, pa.list_(text) if columns.list_texts else text)]
    wanted += [(columns.title, pa.string())] if columns.title is not None else []
    for each in columns.extra:
        kind = TYPES[each.type or "string"]
        fast = pa.large_string() if pa.types.is_timestamp(kind) else kind
        wanted += [(each.name, fast)] if each.name not in dict(wanted) else []
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
    if columns.list_texts:
        texts = pc.binary_join(texts, pa.scalar("\n", text))
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
    extra = []
    for each in columns.extra:
        if each.name in (columns.id, columns.text) and (columns.numeric_ids or columns.list_texts):
            return None
        array, wrong = converted(table[each.name].combine_chunks(), each)
        if wrong:
            return None
        extra.append(array)
    return pa.table([ids, titles, texts, *extra], schema=schema_of(columns.extra))


def sniff(path: str, naming: Naming) -> Columns:
    """Returns a file's names: the user's, the others by the first readable record.

    Args:
        path: the file, compressed or not.
        naming: own names; the others are looked for.

    Raises:
        DataError: no record in the first 64 KiB has an id and a text, or several names could be
            the id's.
    """
    size = 64 << 10
    while len(data := head(path, size)) == size and b"\n" not in data and size < 64 << 20:
        size *= 8
    lines = data.split(b"\n")
    if len(data) == size and len(lines) > 1:
        lines.pop()  # cut off
    first: Pairs | None = None
    for line in lines:
        record = _record(line)
        if record is None:
            continue
        first = first or record
        examples = filter(None, map(_record, lines[:20]))
        columns = columns_of(path, record, naming, map(dict, examples))
        if columns is not None:
            records = (dict(each) for each in map(_record, lines) if each is not None)
            extra = extra_of(path, naming, list(records)) if naming.columns else ()
            return dataclasses.replace(columns, extra=extra)
    own = naming.fields
    if "id" in own and "text" in own and len(data) == size:
        return Columns(own["id"], _title(own, own["id"], own["text"]), own["text"])
    if not data.strip():
        return Columns("id", "title", "text")
    if data.lstrip().startswith(b"["):
        raise DataError(
            f"{path}: this is a JSON array, not an object on each line (jsonl); set format=json"
        )
    if first is None:
        line = lines[0]
        problem = utf8_problem(line, 0) or "a JSON object on each line"
        raise DataError.at(path, 1, line.decode("utf-8", "backslashreplace"), problem)
    raise lacking(path, first, naming)


def columns_of(
    path: str, record: Pairs, naming: Naming, examples: Iterable[Mapping[str, Any]] = ()
) -> Columns | None:
    """Returns the names that a record shows, None if it lacks an id or a text."""
    values = dict(record)
    name, text = id_name(path, list(values), naming, examples), naming.fields.get("text")
    text = text or usual("text", values)
    if name not in values or text not in values:
        return None
    numeric = isinstance(values[name], Number)
    title = _title(naming.fields, name, text)
    return Columns(name, title, text, numeric, list_texts=_is_list(values[text]))


def extra_of(path: str, naming: Naming, records: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Returns the metadata to read, with the types that a file's first records show.

    Raises:
        DataError: no type is set, and none of the records has a value.
    """
    shown = {}
    for each in naming.columns:
        kind = each.type or shown_by_values(record.get(each.name) for record in records)
        if kind is None:
            names = list(dict.fromkeys(name for record in records for name in record))
            remedy = f"; set its type (corpus.columns={each.name}:string) if later records have it"
            raise absent(path, each.name, names, remedy)
        shown[each.name] = kind
    return typed(naming.columns, shown)


def lacking(path: str, record: Pairs, naming: Naming) -> DataError:
    """Returns the error for a record that has no id or no text."""
    names = [name for name, _ in record]
    role = "text" if id_name(path, names, naming) in names else "id"
    error = missing(path, names, naming, role)
    if role == "id" and all(isinstance(value, str) for _, value in record):
        more = "if these are ids and their values the texts, write an object with id and text each"
        return DataError(f"{error}; {more}")
    return error


def describe(path: str, naming: Naming) -> str:
    """Returns what the fields of a file's first record are taken for."""
    columns = sniff(path, naming)
    record = next(filter(None, map(_record, head(path).split(b"\n"))), None)
    return described(columns, [name for name, _ in record or ()], naming)


def described(columns: Columns, names: Sequence[str], naming: Naming) -> str:
    """Returns what fields are taken for, for a message."""
    title = columns.title if columns.title is not None and columns.title in names else None
    return roles({"id": columns.id, "title": title, "text": columns.text}, names, naming)


def _record(line: bytes) -> Pairs | None:
    """Returns a line's JSON object, None if it holds none."""
    try:
        record = DECODER.decode(line.decode("utf-8", "replace").strip())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, Pairs) else None


def _title(fields: Mapping[str, str], *others: str) -> str | None:
    """Returns the title's name; none where a default would be taken twice."""
    name = fields.get("title", "title")
    return None if name in others else name


def _parse_text(line: str, columns: Columns, replace: bool) -> tuple[Any, ...] | str:
    """Returns a line's `(doc_id, title, text, *values)`, or what was expected of it if it is bad.

    Args:
        line: the line, stripped.
        columns: the file's names.
        replace: half surrogate pairs become U+FFFD instead of making the line bad.
    """
    try:
        record = DECODER.decode(line)
    except json.JSONDecodeError as error:
        return f"a JSON object on one line; {error.msg} at column {error.colno}"
    except RecursionError:
        return "a JSON object on one line; this one is nested too deeply"
    if not isinstance(record, Pairs):
        return "a JSON object on one line"
    return parse_record(record, columns, replace)


def parse_record(record: Pairs, columns: Columns, replace: bool) -> tuple[Any, ...] | str:
    """Returns an object's `(doc_id, title, text, *values)`, or what was expected of it.

    A list of texts is one text of so many lines, and a title of so many words.
    """
    values: dict[str, str] = {}
    for name, value in record:
        if name not in (columns.id, columns.title, columns.text):
            continue
        if name in values:
            return f"the name {name!r} once; it occurs twice"
        if name == columns.id and isinstance(value, Number) and re.fullmatch(r"-?\d+", value):
            value = "0" if value == "-0" else str(value)
        if value is None and name == columns.title:
            value = ""
        if _is_list(value) and name != columns.id and all(map(_is_text, value)):
            value = ("\n" if name == columns.text else " ").join(value)
        if not _is_text(value):
            kind = "a string or a whole number" if name == columns.id else "a string"
            return f"{kind} as {name!r}, not {_describe(value)}"
        if _SURROGATES.search(value):
            if not replace:
                return f"text; {name!r} holds half a surrogate pair (\\ud800 to \\udfff alone)"
            value = _SURROGATES.sub("\ufffd", value)
        values[name] = value
    for name in (columns.id, columns.text):
        if name not in values:
            return f"the field {name!r}; this record has {', '.join(n for n, _ in record[:8])}"
    if not values[columns.id]:
        return f"an id that is not empty as {columns.id!r}"
    title = values.get(columns.title, "") if columns.title is not None else ""
    row = (values[columns.id], title, values[columns.text])
    if not columns.extra:
        return row
    fields = dict(record)
    try:
        return (*row, *(_value(fields.get(each.name), each, replace) for each in columns.extra))
    except ValueError as error:
        return str(error)


def _value(value: Any, column: Column, replace: bool) -> Any:
    value = fit(value, column)
    if isinstance(value, str) and _SURROGATES.search(value):
        if not replace:
            raise ValueError(f"text; {column.name!r} holds half a surrogate pair")
        return _SURROGATES.sub("\ufffd", value)
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not isinstance(value, Number)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and not isinstance(value, Pairs)


def _describe(value: object) -> str:
    if value is None:
        return "null"
    return "an object" if isinstance(value, Pairs) else repr(value)[:40]
