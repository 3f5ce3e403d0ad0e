"""Which field or column of a file holds the id, the title and the text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from raydist.data.columns import Column
from raydist.errors import DataError

USUAL_NAMES = {
    "id": ("_id", "id", "doc_id", "docid", "docno", "pid", "query_id", "qid"),
    "title": ("title",),
    "text": (
        "text", "contents", "content", "body", "passage", "segment", "query", "question",
    ),
}  # fmt: skip
"""Names of fields and columns that need no `fields`, in all formats; the first text counts."""

_ID_RULES = (
    ({"pid", "docid", "passage"}, "pid"),  # MS MARCO v2 passages: docid is the parent's
    ({"id", "contents"}, "id"),  # collections for Anserini
)

_SHOWN = 8


class Naming(NamedTuple):
    """The user's names of fields, and what they belong to.

    Attributes:
        fields: own names or column numbers, `{"id": "docno", "text": "body"}`.
        of: the block of the configuration that has them.
        columns: metadata to read.
    """

    fields: Mapping[str, str] = {}
    of: Literal["corpus", "queries"] = "corpus"
    columns: tuple[Column, ...] = ()

    def key(self, role: str) -> str:
        """Returns the beginning of an argument that names a field."""
        return f"{self.of}.fields.{role}="

    def keys(self, names: Mapping[str, object]) -> str:
        """Returns arguments that name fields."""
        return " ".join(f"{self.key(role)}{name}" for role, name in names.items())


def usual(role: str, names: Iterable[str]) -> str | None:
    """Returns the name of a role among those of a file, None if it has no usual one."""
    return next((name for name in USUAL_NAMES[role] if name in names), None)


def id_name(
    path: object,
    names: Sequence[str],
    naming: Naming,
    records: Iterable[Mapping[str, Any]] = (),
) -> str | None:
    """Returns the name of the id among those of a file, None if it has no usual one.

    Args:
        path: the file, for messages.
        names: what the file has.
        naming: the user's choice, which wins.
        records: some of its records: names that always have the same value are one.

    Raises:
        DataError: several names could be the id's, and it is not known which is.
    """
    if "id" in naming.fields:
        return naming.fields["id"]
    for pattern, name in _ID_RULES:
        if pattern <= set(names):
            return name
    candidates = [name for name in USUAL_NAMES["id"] if name in names]
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    records = list(records)
    values = [[str(record.get(name)) for record in records] for name in candidates]
    if values[0] and all(each == values[0] for each in values):
        return candidates[0]
    choices = (
        f"{name} ({each[0][:40]!r})" if each else name for name, each in zip(candidates, values)
    )
    raise DataError(
        f"{path}: more than one field could be the id: {', '.join(choices)}; choose with "
        f"{' or '.join(naming.key('id') + name for name in candidates)}"
    )


def missing(path: object, names: Sequence[str], naming: Naming, role: str) -> DataError:
    """Returns the error for a file that has no field of a role."""
    own = naming.fields.get(role)
    what = (
        f"field {own!r}" if own else f"field for the {role} ({' or '.join(USUAL_NAMES[role][:3])})"
    )
    return DataError(
        f"{path}: no {what}; it has {', '.join(names[:12])}: name one with {naming.key(role)}NAME"
    )


def roles(columns: Mapping[str, str | None], names: Iterable[str], naming: Naming) -> str:
    """Returns what fields are taken for, for a message; empty if all of them are read.

    Args:
        columns: the field of each role.
        names: what the file has.
        naming: whose the fields are; queries have no title.
    """
    known = {
        role: name
        for role, name in columns.items()
        if name is not None and (role != "title" or naming.of == "corpus")
    }
    read = {*known.values(), *(each.name for each in naming.columns)}
    rest = [name for name in names if name not in read]
    if not rest:
        return ""
    more = ", ..." if len(rest) > _SHOWN else ""
    taken = ", ".join(f"{role} = {name}" for role, name in known.items())
    return f"{taken}; not read: {', '.join(rest[:_SHOWN])}{more}"
