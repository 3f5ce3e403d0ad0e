"""JSON documents and queries that are not lines: an array of objects, or objects one after another.

An object may be printed over many lines. Where it ends is known only once it is parsed, so a file
is one split. An object of objects holds these by their ids. A topic of conversation (CAsT, iKAT) is
a query for each of its turns, by what was said unless another form is chosen.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from raydist.data.columns import table_of
from raydist.data.files import compression_of, head
from raydist.data.formats.jsonl import (
    DECODER,
    Columns,
    Pairs,
    columns_of,
    described,
    extra_of,
    lacking,
    parse_record,
)
from raydist.data.formats.names import Naming, usual
from raydist.data.scan import REPLACE, SplitScan
from raydist.errors import DataError
from raydist.records import tables

_MAX_PENDING = 256 << 20
_SAID = ("raw_utterance", "utterance")
_NESTED = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{')
_BLANK = re.compile(r"[ \t\r\n]*")
_BYTES = re.compile("[\udc80-\udcff]")


def is_lines(path: str) -> bool:
    """Returns whether a file that begins with an object has an object on each line."""
    data = head(path).lstrip()
    text = data.decode("utf-8", "replace")
    if not text.startswith("{"):
        return not text.startswith("[")
    try:
        value, end = DECODER.raw_decode(text)
    except (ValueError, RecursionError):  # cut off, or an odd line
        line = text.split("\n", 1)[0].rstrip()
        whole = "\n" not in text and _NESTED.match(text)
        return not whole and ("\n" not in text or line[-1] not in "{[,")
    return "\n" not in text[:end] and not _inside(value)


def sniff(path: str, naming: Naming) -> tuple[Columns, list[str]]:
    """Returns the names that a file's first objects show, and all names of the first one.

    Raises:
        DataError: they have no id or text, or there is no object.
    """
    scan = SplitScan(path, compression=compression_of(path), replace=True)
    records = [value for _, _, value in islice(_records(scan), 20) if isinstance(value, Pairs)]
    for record in records:
        if isinstance(record, _Turn) and "text" not in naming.fields:
            said = next((name for name in _SAID if name in dict(record)), "utterance")
            naming = naming._replace(fields={**naming.fields, "text": said})
        columns = columns_of(path, record, naming, map(dict, records))
        if columns is not None:
            extra = extra_of(path, naming, list(map(dict, records))) if naming.columns else ()
            return dataclasses.replace(columns, extra=extra), [name for name, _ in record]
    if not records:
        return Columns("id", "title", "text"), []
    raise lacking(path, records[0], naming)


def describe(path: str, naming: Naming) -> str:
    """Returns what the names of a file are taken for."""
    columns, names = sniff(path, naming)
    forms = [name for name in names if name.endswith("utterance") and name != columns.text]
    choice = f" (choose with {naming.key('text')}{forms[0]})" if forms else ""
    return described(columns, names, naming) + choice


def read(scan: SplitScan, columns: Columns) -> Iterator[pa.Table]:
    """Yields the documents of a file as tables of the schema DOCUMENTS.

    Raises:
        DataError: what is not JSON, which leaves open where the next object begins.
    """
    yield from tables(_rows(scan, columns), lambda rows: table_of(rows, columns.extra))


def _rows(scan: SplitScan, columns: Columns) -> Iterator[tuple[Any, ...]]:
    for line, excerpt, value in _records(scan):
        row: tuple[Any, ...] | str = "a JSON object"
        if isinstance(value, Pairs):
            row = _broken(excerpt) or parse_record(value, columns, scan.replace)
        if isinstance(row, str):
            scan.report_number(line, excerpt[:200], row)
        else:
            yield row


def _broken(source: str) -> str:
    broken = _BYTES.search(source)
    if broken is None:
        return ""
    return f"UTF-8; the byte 0x{ord(broken.group()) - 0xDC00:02x} is not; {REPLACE}"


class _Turn(Pairs):
    """A turn of a conversation, with an id of its own."""


def _records(scan: SplitScan) -> Iterator[tuple[int, str, Any]]:
    """Yields what `_values` does; turns of a conversation and objects by id one by one."""
    for line, excerpt, value in _values(scan):
        inside = _inside(value) if isinstance(value, Pairs) else ()
        for each in inside or (value,):
            yield line, excerpt, each


def _inside(value: Pairs) -> Sequence[Pairs]:
    """Returns the records inside an object, none if it is one itself."""
    members = dict(value)
    if usual("text", members):
        return []
    if members and all(isinstance(each, Pairs) for each in members.values()):
        return [Pairs([("_id", key), *record]) for key, record in value]
    turns = members.get("turn", members.get("turns"))
    if "number" not in members or not isinstance(turns, list):
        return []
    records = []
    for turn in map(dict, turns) if all(isinstance(each, Pairs) for each in turns) else ():
        number = turn.pop("number", turn.pop("turn_id", ""))
        if turn.get("participant") != "System":  # what it says is no query
            records.append(_Turn([("query_id", f"{members['number']}_{number}"), *turn.items()]))
    return records


class _Text:
    """The text of a file, read as far as it is needed.

    Attributes:
        ahead: a part of the text.
        at: where the next value is looked for in it.
        line: number of the line at `at`.
    """

    def __init__(self, scan: SplitScan) -> None:
        errors = "replace" if scan.replace else "surrogateescape"
        self._blocks = (data.decode("utf-8", errors) for _, data in scan.blocks(b"}"))
        self.ahead = ""
        self.at = 0
        self.line = 1

    def move(self, at: int) -> None:
        """Continues at a later place."""
        self.line += self.ahead.count("\n", self.at, at)
        self.at = at

    def more(self) -> bool:
        """Reads at least as much again as remains; returns False at the end."""
        left = self.ahead[self.at :]
        parts, missing = [left], max(1, len(left))
        while missing > 0 and (block := next(self._blocks, "")):
            parts.append(block)
            missing -= len(block)
        self.ahead, self.at = "".join(parts), 0
        return len(parts) > 1


def _values(scan: SplitScan) -> Iterator[tuple[int, str, Any]]:
    """Yields line, source and value of each JSON value, those of arrays one by one."""
    text = _Text(scan)
    inside = after = False  # of an array; of a value, which a comma or the array's end follows

    def error(expected: str) -> DataError:
        excerpt = text.ahead[text.at : text.at + 80]
        return DataError.at(scan.path, text.line, excerpt, expected)

    while True:
        blank = _BLANK.match(text.ahead, text.at)
        assert blank is not None
        text.move(blank.end())
        if text.at == len(text.ahead):
            if text.more():
                continue
            if inside:
                raise error("] before the file ends")
            return
        letter = text.ahead[text.at]
        if letter == "[" and not inside:
            inside, after = True, False
        elif letter == "]" and inside:
            inside = False
        elif letter == "," and inside and after:
            after = False
        elif inside and after:
            raise error("a comma or ] after a value of the array")
        else:
            try:
                value, end = DECODER.raw_decode(text.ahead, text.at)
            except RecursionError:
                raise error("JSON; this is nested too deeply") from None
            except json.JSONDecodeError as problem:
                if len(text.ahead) - text.at < _MAX_PENDING and text.more():
                    continue
                raise error(f"a JSON object or array; {problem.msg}") from problem
            yield text.line, text.ahead[text.at : end], value
            text.move(end)
            after = True
            continue
        text.move(text.at + 1)
