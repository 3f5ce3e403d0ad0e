"""What the columns of a table in text form are: by its header, its width, or the user's word.

Without a header, two columns are id and text, and four whose second holds URLs are those of MS
MARCO's documents: id, URL, title, text. Three columns of a corpus are id, title and text if the
texts are longer than the titles. All else is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from raydist import log
from raydist.data.columns import Column, absent, shown_by_cells, typed
from raydist.data.formats.names import USUAL_NAMES, Naming, id_name, usual
from raydist.errors import DataError

HEAD_BYTES = 64 << 10

_ROWS = 50
_WORDS = re.compile(r"[^\W\d][^\W\d]*(?:[ _.-][^\W\d]+){0,2}")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a table, from 0, how many it has, and the line that names them.

    Attributes:
        id: number of the column of the ids.
        title: that of the titles, if there are any.
        text: that of the texts.
        width: how many columns a line has.
        header: the first line, if it names the columns.
        description: what the columns are taken for, for a message.
        extra: the columns of metadata, by number.
    """

    id: int
    title: int | None
    text: int
    width: int
    header: tuple[str, ...] = ()
    description: str = ""
    extra: tuple[tuple[int, Column], ...] = ()


def check_no_json(path: str, data: bytes) -> None:
    """Raises DataError for a file whose first line is a JSON object: it is no table."""
    line = data.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")[0].strip()
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return
    try:
        json.loads(line)
    except ValueError:
        return
    raise DataError(
        f"{path}: its first line is a JSON object, not a row of a table: leave the format out, or "
        "set format=jsonl"
    )


def layout_of(path: str, rows: Sequence[Sequence[str]], naming: Naming) -> Layout:
    """Returns the layout of a table by its first rows.

    Args:
        path: the file, for messages.
        rows: the cells of its first lines that are not blank.
        naming: own columns, by name or number from 1.

    Raises:
        DataError: there is no such column, or it is not clear which columns are meant.
    """
    rows = rows[:_ROWS] or [["id", "text"]]
    names = [cell.strip().lower() for cell in rows[0]]
    header = _is_header(path, rows, names, naming)
    columns: dict[str, int | None] = dict.fromkeys(USUAL_NAMES)
    if header:
        records = [dict(zip(names, row)) for row in rows[1:]]
        own = {role: name.lower() for role, name in naming.fields.items() if name.lower() in names}
        named = {
            "id": id_name(path, names, Naming(own, naming.of), records),
            "title": own.get("title", usual("title", names)),
            "text": own.get("text", usual("text", names)),
        }
        columns = {role: names.index(name) for role, name in named.items() if name is not None}
    elif not naming.fields:
        columns = _by_width(path, rows, naming)
    for role, name in naming.fields.items():
        if name.isdecimal() and 1 <= int(name) <= len(names):
            columns[role] = int(name) - 1
        elif name.lower() not in names:
            raise DataError(
                f"{path}: no column {name!r} for {naming.key(role).rstrip('=')}; the first line "
                f"has {', '.join(names[:12])} (expected one of them, or a number from 1 to "
                f"{len(names)})"
            )
    number, text, title = columns.get("id"), columns.get("text"), columns.get("title")
    if number is None or text is None:
        raise _unclear(path, rows, naming, header)
    if title in (number, text) or naming.of == "queries":
        title = None
    extra = _extra(path, rows, names if header else [], naming) if naming.columns else ()
    roles = {"id": number, "title": title, "text": text}
    description = _describe(rows, roles, header, [column for column, _ in extra])
    first = tuple(rows[0]) if header else ()
    return Layout(number, title, text, len(names), first, description, extra)


def _extra(
    path: str, rows: Sequence[Sequence[str]], names: Sequence[str], naming: Naming
) -> tuple[tuple[int, Column], ...]:
    """Returns the columns of metadata with the types that the first rows show."""
    if not names:
        raise DataError(f"{path}: corpus.columns: a table without a header has no named columns")
    for each in naming.columns:
        if each.name.lower() not in names:
            raise absent(path, each.name, names)
    numbers = [names.index(each.name.lower()) for each in naming.columns]
    shown = {
        each.name: shown_by_cells(row[at] for row in rows[1:] if at < len(row))
        for at, each in zip(numbers, naming.columns)
    }
    return tuple(zip(numbers, typed(naming.columns, shown)))


@cache
def say_repeated(path: str) -> None:
    """Says, once, that a header occurs again: someone joined files that have one each."""
    log.say(f"{path}: the header occurs again; such lines are no documents")


def _is_header(
    path: str, rows: Sequence[Sequence[str]], names: Sequence[str], naming: Naming
) -> bool:
    """Returns whether the first row names the columns.

    Raises:
        DataError: it may.
    """
    own = naming.fields.values()
    if any(not name.isdecimal() and name.lower() in names for name in own):
        return True
    known_id, known_text = usual("id", names), usual("text", names)
    if known_id and known_text:
        return True
    if own:
        return known_id is not None or (known_text is not None and not re.search(r"\d", names[0]))
    words = all(_WORDS.fullmatch(name) for name in names) and len(names) > 1
    numbered = len(rows) > 1 and all(re.search(r"\d", row[0]) for row in rows[1:])
    if words and (known_id or known_text or numbered):
        raise _unclear(path, rows, naming, header=True)
    return False


def _by_width(path: str, rows: Sequence[Sequence[str]], naming: Naming) -> dict[str, int | None]:
    """Returns the columns of a table without a header, none where they are not clear."""
    width = len(rows[0])
    even = [row for row in rows if len(row) == width]
    lengths = [sum(len(row[column]) for row in even) for column in range(width)]
    if width == 2:
        blank, words = (all(" " in row[i].strip() for row in even) for i in (0, 1))
        no_words = not any(" " in row[1].strip() for row in even)
        unlikely = blank and (no_words or (words and naming.of == "queries"))
        return {} if unlikely else {"id": 0, "text": 1}
    if width == 3 and naming.of == "corpus" and lengths[1] <= lengths[2]:
        return {"id": 0, "title": 1, "text": 2}
    if width == 4 and all(re.match("https?://", row[1]) for row in even):
        return {"id": 0, "title": 2, "text": 3}
    return {}


def _unclear(path: str, rows: Sequence[Sequence[str]], naming: Naming, header: bool) -> DataError:
    """Returns the error for columns that only the user knows."""
    width = len(rows[0])
    if width < 2:
        expected = "columns: an id and a text at least"
    else:
        expected = f"to know which of the {width} columns are id and text: set "
        numbers = f"{naming.keys({'id': 1, 'text': 2})} (numbers from 1)"
        if header:
            names = [cell.strip() for cell in rows[0]]
            other = names[1] if width == 2 else "NAME"
            named = {"id": usual("id", names) or names[0], "text": usual("text", names) or other}
            numbers = f"{naming.keys(named)} if this line names them, or {numbers} if not"
        expected += numbers
    return DataError.at(path, 1, " | ".join(rows[0]), expected)


def _describe(
    rows: Sequence[Sequence[str]],
    columns: dict[str, int | None],
    header: bool,
    extra: Sequence[int],
) -> str:
    """Returns what columns are, for a message: `no header: id = column 1 ('7'), ...`."""
    parts = []
    for role, column in columns.items():
        if column is not None:
            what = rows[0][column].strip()
            what = what if len(what) <= 40 else what[:37] + "..."
            parts.append(
                f"{role} = {what}" if header else f"{role} = column {column + 1} ({what!r})"
            )
    read = {*columns.values(), *extra}
    rest = [number for number in range(len(rows[0])) if number not in read]
    others = [(header and rows[0][number].strip()) or f"column {number + 1}" for number in rest]
    unread = f"; not read: {', '.join(others[:8])}" if others else ""
    return f"{'' if header else 'no header: '}{', '.join(parts)}{unread}"
