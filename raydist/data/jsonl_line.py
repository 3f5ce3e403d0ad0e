"""One line of jsonl: its columns' names, and what it says or what was expected of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raydist.data.files import head
from raydist.data.rejects import utf8_problem
from raydist.errors import DataError

ID_NAMES = ("_id", "id", "doc_id", "docid", "docno", "pid", "query_id", "qid")
TITLE_NAMES = ("title",)
TEXT_NAMES = ("text", "contents", "content", "body", "passage", "query", "question")

_BOM = b"\xef\xbb\xbf"
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Columns:
    """The names under which a file keeps id, title and text.

    Attributes:
        id: name of the id.
        title: name of the title; a record may lack it.
        text: name of the text.
        numeric_ids: whether ids are mostly numbers; only speed depends on it.
    """

    id: str
    title: str | None
    text: str
    numeric_ids: bool = False


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object in order, repeated names included."""


class _Number(str):
    """A JSON number as it was written."""


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=_Number, parse_float=_Number)


def sniff(path: str, fields: Mapping[str, str] | None = None) -> Columns:
    """Returns a file's column names: those of `fields`, the rest by the first readable record.

    Args:
        path: the file, compressed or not.
        fields: own names, `{"id": "docno", "text": "body"}`; missing ones are looked for.

    Raises:
        DataError: no record among the first 64 KiB has an id and a text.
    """
    fields = fields or {}
    size = 64 << 10
    while len(data := head(path, size)) == size and b"\n" not in data and size < 64 << 20:
        size *= 8
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: this is UTF-16; convert it to UTF-8")
    lines = data.removeprefix(_BOM).split(b"\n")
    seen: list[str] = []
    whole = lines[:-1] if len(data) == size and len(lines) > 1 else lines
    for line in whole:
        try:
            record = _DECODER.decode(line.decode("utf-8", "replace").strip())
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, _Pairs):
            continue
        names = dict(record)
        seen = seen or list(names)
        id_name = fields.get("id") or next((n for n in ID_NAMES if n in names), None)
        text = fields.get("text") or next((n for n in TEXT_NAMES if n in names), None)
        if id_name in names and text in names:
            assert id_name is not None and text is not None
            numeric = isinstance(names[id_name], _Number)
            return Columns(id_name, _title(fields, id_name, text), text, numeric)
    if fields.get("id") and fields.get("text") and len(data) == size:
        id_name, text = fields["id"], fields["text"]
        return Columns(id_name, _title(fields, id_name, text), text)
    if not data.strip():
        return Columns("id", "title", "text")
    wanted_id = fields.get("id", " or ".join(ID_NAMES[:3]))
    wanted_text = fields.get("text", " or ".join(TEXT_NAMES[:2]))
    if data.lstrip().startswith(b"["):
        raise DataError(f"{path}: this is one JSON array; expected one object per line (jsonl)")
    if not seen:
        line = whole[0]
        problem = utf8_problem(line, 0) or "a JSON object per line"
        raise DataError.at(path, 1, line.decode("utf-8", "backslashreplace"), problem)
    raise DataError(
        f"{path}: no record with an id ({wanted_id}) and a text ({wanted_text}); "
        f"the first one has {', '.join(seen[:12])}: name them, fields.id=... fields.text=..."
    )


def _title(fields: Mapping[str, str], *others: str) -> str | None:
    """Returns the title's name; none where a default would be taken twice."""
    name = fields.get("title", TITLE_NAMES[0])
    return None if name in others else name


def parse_text(line: str, columns: Columns, replace: bool) -> tuple[str, str, str] | str:
    """Returns a line's `(doc_id, title, text)`, or what was expected of it if it is bad.

    Args:
        line: the line without blanks around it.
        columns: the file's names.
        replace: half surrogate pairs become U+FFFD instead of making the line bad.
    """
    try:
        record = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        return f"a JSON object on one line; {error.msg} at column {error.colno}"
    except RecursionError:
        return "a JSON object on one line; this one is nested too deeply"
    if not isinstance(record, _Pairs):
        return "a JSON object on one line"
    found: dict[str, str] = {}
    for name, value in record:
        if name not in (columns.id, columns.title, columns.text):
            continue
        if name in found:
            return f"the name {name!r} once; it stands here twice"
        if name == columns.id and isinstance(value, _Number) and re.fullmatch(r"-?\d+", value):
            value = "0" if value == "-0" else str(value)
        if value is None:
            value = "" if name == columns.title else None
        if not isinstance(value, str) or isinstance(value, _Number):
            kind = "a string or a whole number" if name == columns.id else "a string"
            return f"{kind} as {name!r}, not {_shown(value)}"
        if _SURROGATES.search(value):
            if not replace:
                return f"text; {name!r} holds half a surrogate pair (\\ud800 to \\udfff alone)"
            value = _SURROGATES.sub("\ufffd", value)
        found[name] = value
    for name in (columns.id, columns.text):
        if name not in found:
            return f"the field {name!r}; this record has {', '.join(n for n, _ in record[:8])}"
    if not found[columns.id]:
        return f"an id that is not empty as {columns.id!r}"
    title = found.get(columns.title, "") if columns.title is not None else ""
    return found[columns.id], title, found[columns.text]


def _shown(value: object) -> str:
    if value is None:
        return "null"
    return "an object" if isinstance(value, _Pairs) else repr(value)[:40]
