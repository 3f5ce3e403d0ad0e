"""Ordered lists of document or query ids, and the documents, queries and judgements in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
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
        name: their source, for messages.
    """

    ids: tuple[str, ...]
    name: str = "ids"
    _positions: dict[str, int] = field(init=False, repr=False, compare=False)
    _array: pa.Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        positions: dict[str, int] = {}
        for position, each in enumerate(self.ids):
            if not isinstance(each, str):
                raise TypeError(f"{self.name}: an id is a string, not {type(each).__name__}")
            if positions.setdefault(each, position) != position:
                raise DataError(
                    f"{self.name}: id {each!r} occurs twice (positions "
                    f"{positions[each] + 1} and {position + 1})"
                )
        object.__setattr__(self, "_positions", positions)
        object.__setattr__(self, "_array", pa.array(self.ids, pa.string()))

    @classmethod
    def read(cls, path: PathLike) -> IdList:
        """Reads one id per line, stripped; empty lines and those that begin with `#` are skipped.

        Raises:
            DataError: the file is missing, not UTF-8, or has an id twice.
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
        """Returns the list itself, that of a file, or that of the given ids."""
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
        """Returns the position in this list of each id, int64 [n]; -1 for those not in it."""
        positions = pc.index_in(ids.cast(pa.string()), value_set=self._array).fill_null(-1)
        return np.asarray(positions.to_numpy(), np.int64)

    def check(self, seen: Iterable[str], missing: Missing, field: str = "missing") -> None:
        """Complains of ids of the list that the source does not have.

        Args:
            seen: the ids that the source has.
            missing: whether that is an `error`, a reason to `warn`, or to be ignored (`ignore`).
            field: the name of the setting `missing`, for the message.

        Raises:
            DataError: ids are missing and `missing` is `error`.
        """
        if missing == "ignore":
            return
        known = seen if isinstance(seen, set | dict) else set(seen)
        absent = [each for each in self.ids if each not in known]
        if not absent:
            return
        examples = ", ".join(map(repr, absent[:5])) + (", ..." if len(absent) > 5 else "")
        message = f"{self.name}: {len(absent)} of {len(self)} ids are not in the source: {examples}"
        if missing == "error":
            raise DataError(f"{message} ({field}=warn or {field}=ignore allows that)")
        log.warn(message)


def report_absent(
    ids: str | None,
    exclude_ids: str | None,
    seen_ids: Iterable[pa.Array | pa.ChunkedArray],
    missing: Missing,
) -> None:
    """Complains of ids to keep that no split has, which no single split can know.

    Args:
        ids: the file of ids to keep, None if there is none.
        exclude_ids: the file of ids to leave out, which count as seen.
        seen_ids: the ids of the documents of all splits.
        missing: as for `IdList.check`.

    Raises:
        DataError: ids are missing and `missing` is `error`.
    """
    if ids is None or missing == "ignore":
        return
    keep = IdList.read(ids)
    seen = np.zeros(len(keep), bool)
    left_out = () if exclude_ids is None else IdList.read(exclude_ids).ids
    for part in (*seen_ids, pa.array(left_out, pa.string())):
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
        exclude: ids to leave out; those that do not occur are ignored.
        missing: what to do about ids to keep that do not occur, as for `IdList.check`.
        order: `source` streams; `list` yields the documents in the order of `ids`, after the last.

    Raises:
        DataError: an id to keep does not occur and `missing` is `error`.
    """
    seen = np.zeros(len(ids) if ids is not None else 0, bool)
    chosen: list[pa.Table] = []
    positions: list[np.ndarray] = []
    for table in tables:
        keep = np.ones(table.num_rows, bool)
        if ids is not None:
            position = ids.positions(table["doc_id"])
            keep = position >= 0
            seen[position[keep]] = True
        if exclude is not None:
            keep &= exclude.positions(table["doc_id"]) < 0
        rows = table if keep.all() else table.filter(pa.array(keep))
        if ids is not None and order == "list":
            chosen.append(rows)
            positions.append(position[keep])
        elif rows.num_rows:
            yield rows
    if ids is not None:
        ids.check({ids.ids[i] for i in np.flatnonzero(seen)}, missing)
    if chosen:
        rank = np.argsort(np.concatenate(positions), kind="stable")
        yield pa.concat_tables(chosen).take(pa.array(rank))


def filter_queries(
    queries: Iterable[Query],
    ids: IdList | None = None,
    exclude: IdList | None = None,
    *,
    missing: Missing = "error",
    order: Order = "source",
) -> list[Query]:
    """Returns the queries whose ids are in one list and not in another; see `filter_documents`."""
    chosen = list(queries)
    if ids is not None:
        ids.check({query.query_id for query in chosen}, missing)
        chosen = [query for query in chosen if query.query_id in ids]
        if order == "list":
            chosen.sort(key=lambda query: ids._positions[query.query_id])
    if exclude is not None:
        chosen = [query for query in chosen if query.query_id not in exclude]
    return chosen


def filter_qrels(
    qrels: Qrels,
    ids: IdList | None = None,
    exclude: IdList | None = None,
    *,
    missing: Missing = "error",
) -> Qrels:
    """Returns the judgements of the queries in one list and not in another."""
    if ids is not None:
        ids.check(qrels.keys(), missing)
    return {
        query_id: judged
        for query_id, judged in qrels.items()
        if (ids is None or query_id in ids) and (exclude is None or query_id not in exclude)
    }
