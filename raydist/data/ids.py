"""Ordered lists of document or query ids, in a file or in memory, and filtering by them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist import log
from raydist.data.files import PathLike, read_text
from raydist.errors import DataError
from raydist.records import Qrels, Query

Missing = Literal["error", "warn", "ignore"]
Order = Literal["source", "list"]


@dataclass(frozen=True, slots=True)
class IdList:
    """Unique ids in their order.

    Attributes:
        ids: the ids.
        name: where they came from, for messages.
    """

    ids: tuple[str, ...]
    name: str = "ids"
    _positions: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        positions: dict[str, int] = {}
        for position, each in enumerate(self.ids):
            if not isinstance(each, str):
                raise TypeError(f"{self.name}: an id is a string, not {type(each).__name__}")
            if positions.setdefault(each, position) != position:
                raise DataError(
                    f"{self.name}: id {each!r} stands here twice (positions "
                    f"{positions[each] + 1} and {position + 1})"
                )
        object.__setattr__(self, "_positions", positions)

    @classmethod
    def read(cls, path: PathLike) -> IdList:
        """Reads one id per line; blanks and carriage returns around ids are stripped.

        Empty lines and lines that begin with `#` are skipped.

        Raises:
            DataError: the file is missing, not UTF-8, or has an id twice (both lines are named).
        """
        lines: dict[str, int] = {}
        for number, line in enumerate(read_text(path).split("\n"), 1):
            each = line.strip()
            if not each or each.startswith("#"):
                continue
            if each in lines:
                raise DataError.at(
                    path, number, each, f"each id once; it is also on line {lines[each]}"
                )
            lines[each] = number
        return cls(tuple(lines), os.fspath(path))

    @classmethod
    def of(cls, ids: IdList | PathLike | Iterable[str]) -> IdList:
        """Returns the list behind a path, an iterable of ids, or itself."""
        if isinstance(ids, IdList):
            return ids
        return cls.read(ids) if isinstance(ids, str | os.PathLike) else cls(tuple(ids))

    def write(self, path: PathLike) -> None:
        """Writes one id per line."""
        with open(path, "w", encoding="utf-8", newline="\n") as out:
            out.writelines(f"{each}\n" for each in self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, each: object) -> bool:
        return each in self._positions

    def positions(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Returns the position in this list of each id, int64 [n]; -1 where it is not in it."""
        known = pa.array(self.ids, ids.type)
        found = pc.index_in(ids, value_set=known).fill_null(-1)
        return np.asarray(found.to_numpy(), np.int64)

    def check(self, seen: Iterable[str], missing: Missing, field: str = "missing") -> None:
        """Says which ids of the list were not seen.

        Args:
            seen: the ids that the source has.
            missing: `error` raises, `warn` says so, `ignore` is silent.
            field: where `missing` was said, for the message.

        Raises:
            DataError: ids are missing and `missing` is `error`.
        """
        if missing == "ignore":
            return
        known = seen if isinstance(seen, set | dict) else set(seen)
        absent = [each for each in self.ids if each not in known]
        if not absent:
            return
        shown = ", ".join(map(repr, absent[:5])) + (", ..." if len(absent) > 5 else "")
        message = f"{self.name}: {len(absent)} of {len(self)} ids are not in the source: {shown}"
        if missing == "error":
            raise DataError(f"{message} ({field}=warn or {field}=ignore goes on)")
        log.warn(message)


def report_absent(
    ids: str | None,
    exclude_ids: str | None,
    found: Iterable[pa.Array | pa.ChunkedArray],
    missing: Missing,
) -> None:
    """Complains about ids to keep that were not found, which no single split can know.

    Args:
        ids: the file of ids to keep, None for no such file.
        exclude_ids: the file of ids to leave out; those of them that are in both are not missed.
        found: the ids of the documents of all splits.
        missing: `error`, `warn` or `ignore`.

    Raises:
        DataError: ids are missing and `missing` is `error`.
    """
    if ids is None or missing == "ignore":
        return
    keep = IdList.read(ids)
    seen = np.zeros(len(keep), bool)
    left_out = () if exclude_ids is None else IdList.read(exclude_ids).ids
    for part in (*found, pa.array(left_out, pa.string())):
        position = keep.positions(part)
        seen[position[position >= 0]] = True
    keep.check({keep.ids[i] for i in np.flatnonzero(seen)}, missing, "corpus.missing")


def filter_documents(
    tables: Iterable[pa.Table],
    ids: IdList | None = None,
    exclude: IdList | None = None,
    *,
    missing: Missing = "error",
    order: Order = "source",
) -> Iterator[pa.Table]:
    """Yields the documents whose ids are in one list and not in another.

    Args:
        tables: tables of the schema DOCUMENTS.
        ids: ids to keep, None for all.
        exclude: ids to drop; those that do not occur are no error.
        missing: what to do about ids to keep that do not occur.
        order: `source` streams; `list` holds the kept documents and yields them in list order.

    Raises:
        DataError: an id to keep does not occur and `missing` is `error`.
    """
    seen = np.zeros(len(ids) if ids is not None else 0, bool)
    held: list[pa.Table] = []
    places: list[np.ndarray] = []
    for table in tables:
        keep = np.ones(table.num_rows, bool)
        if ids is not None:
            position = ids.positions(table["doc_id"])
            keep = position >= 0
            seen[position[keep]] = True
        if exclude is not None:
            keep &= exclude.positions(table["doc_id"]) < 0
        kept = table if keep.all() else table.filter(pa.array(keep))
        if ids is not None and order == "list":
            held.append(kept)
            places.append(position[keep])
        elif kept.num_rows:
            yield kept
    if ids is not None:
        ids.check({ids.ids[i] for i in np.flatnonzero(seen)}, missing)
    if held:
        whole = pa.concat_tables(held)
        yield whole.take(pa.array(np.argsort(np.concatenate(places), kind="stable")))


def filter_queries(
    queries: Iterable[Query],
    ids: IdList | None = None,
    exclude: IdList | None = None,
    *,
    missing: Missing = "error",
    order: Order = "source",
) -> list[Query]:
    """Returns the queries whose ids are in one list and not in another; see `filter_documents`."""
    found = list(queries)
    if ids is not None:
        ids.check({query.query_id for query in found}, missing)
        found = [query for query in found if query.query_id in ids]
        if order == "list":
            place = ids._positions
            found.sort(key=lambda query: place[query.query_id])
    if exclude is not None:
        found = [query for query in found if query.query_id not in exclude]
    return found


def filter_qrels(
    qrels: Qrels,
    ids: IdList | None = None,
    exclude: IdList | None = None,
    *,
    documents: IdList | None = None,
    missing: Missing = "error",
    order: Order = "source",
) -> dict[str, dict[str, int]]:
    """Returns the judgements of the listed queries, and of the listed documents if given."""
    if ids is not None:
        ids.check(qrels.keys(), missing)
    names: Iterable[str] = qrels if ids is None or order == "source" else ids
    kept: dict[str, dict[str, int]] = {}
    for name in names:
        if name not in qrels or (ids is not None and name not in ids):
            continue
        if exclude is not None and name in exclude:
            continue
        judged: Mapping[str, int] = qrels[name]
        kept[name] = {d: r for d, r in judged.items() if documents is None or d in documents}
    return kept
