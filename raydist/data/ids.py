"""Ordered lists of document or query ids, and the documents, queries and judgements in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa

from raydist import log
from raydist.data import id_files
from raydist.data.files import PathLike, compression_of, filesystem, read_blocks, read_text
from raydist.data.store.idhash import Duplicates, HashIndex, find_duplicates, slices_of
from raydist.errors import DataError
from raydist.records import DOCUMENTS, Qrels, Query
from raydist.strings import take

Missing = Literal["error", "warn", "ignore"]
Order = Literal["source", "list"]


_MAPPED = 16 << 20  # bytes; a longer list is mapped, not read into the memory of each process


class IdList:
    """Unique ids in their order.

    Args:
        ids: the ids.
        name: their source, for messages.

    Attributes:
        column: the ids, large_string.
        name: their source.

    Raises:
        DataError: an id occurs twice.
    """

    def __init__(self, ids: Iterable[str] | pa.Array, name: str = "ids") -> None:
        self.name = name
        self.column = _column(ids, name)
        self._index: HashIndex | None = None
        twice = find_duplicates(self.column)
        if twice.count:
            text, first, again = twice.examples[0]
            raise DataError(
                f"{name}: id {text!r} occurs twice (positions {first + 1} and {again + 1})"
            )

    @classmethod
    def read(cls, path: PathLike) -> IdList:
        """Reads one id per line, stripped; empty lines and those that begin with `#` are skipped.

        A process reads a file once, and of a long one a machine.

        Raises:
            DataError: the file is missing, not UTF-8, or has an id twice.
        """
        where, name = filesystem(path)
        info = where.get_file_info(name)
        return _read(os.fspath(path), f"{path} {info.size} {info.mtime_ns}", info.size or 0)

    @classmethod
    def of(cls, ids: IdList | PathLike | Iterable[str] | pa.Array) -> IdList:
        """Returns the list itself, that of a file, or that of the given ids."""
        if isinstance(ids, IdList):
            return ids
        return cls.read(ids) if isinstance(ids, str | os.PathLike) else cls(ids)

    @classmethod
    def _mapped(cls, column: pa.Array, index: HashIndex, name: str) -> IdList:
        ids = object.__new__(cls)
        ids.column, ids._index, ids.name = column, index, name
        return ids

    def write(self, path: PathLike) -> None:
        """Writes one id per line."""
        with open(path, "w", encoding="utf-8", newline="\n") as out:
            out.writelines(f"{each}\n" for each in self)

    def __len__(self) -> int:
        return len(self.column)

    def __iter__(self) -> Iterator[str]:
        for part in slices_of([self.column]):
            yield from part.to_pylist()

    def __contains__(self, each: object) -> bool:
        return isinstance(each, str) and bool(self.positions(pa.array([each]))[0] >= 0)

    def positions(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Returns the position in this list of each id, int64 [n]; -1 for those not in it."""
        if self._index is None:
            self._index = HashIndex.of(self.column)
        parts = [self._index.find(part) for part in slices_of([ids])]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def check(self, seen: np.ndarray, missing: Missing, field: str = "missing") -> None:
        """Complains of ids of the list that the source does not have.

        Args:
            seen: whether the source has each id, bool [n].
            missing: whether that is an `error`, a reason to `warn`, or to be ignored (`ignore`).
            field: the name of the setting `missing`, for the message.

        Raises:
            DataError: ids are missing and `missing` is `error`.
        """
        absent = np.flatnonzero(~seen)
        if missing == "ignore" or not len(absent):
            return
        first = self.column.take(pa.array(absent[:5])).to_pylist()
        examples = ", ".join(map(repr, first)) + (", ..." if len(absent) > 5 else "")
        absence = f"{len(absent):,} of {log.count(len(self), 'id')}"
        message = f"{self.name}: the source lacks {absence}: {examples}"
        if missing == "error":
            raise DataError(f"{message} ({field}=warn or {field}=ignore allows that)")
        log.warn(message)

    def flags(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Returns which ids of the list are among others, bool."""
        flags = np.zeros(len(self), bool)
        for part in slices_of([ids]):
            rows = self.positions(part)
            flags[rows[rows >= 0]] = True
        return flags


def _column(ids: Iterable[str] | pa.Array, name: str) -> pa.Array:
    if isinstance(ids, pa.Array):
        return ids.cast(pa.large_string())
    texts = list(ids)
    for each in texts:
        if not isinstance(each, str):
            raise TypeError(f"{name}: an id is a string, not {type(each).__name__}")
    return pa.array(texts, pa.large_string())


@lru_cache(maxsize=4)
def _read(path: str, key: str, size: int) -> IdList:
    def check(twice: Duplicates) -> None:
        if twice.count:
            text = twice.examples[0][0]
            lines = [number for number, each in _lines(path) if each == text]
            raise DataError.at(path, lines[1], text, f"each id once; it is also on line {lines[0]}")

    if size > _MAPPED:
        return IdList._mapped(*id_files.mapped(key, lambda: _chunks(path), check), path)
    column = pa.concat_arrays([pa.array([], pa.large_string()), *_chunks(path)])
    check(find_duplicates(column))
    return IdList._mapped(column, HashIndex.of(column), path)


def _chunks(path: str) -> Iterator[pa.Array]:
    for _, ids in _blocks(path):
        yield pa.array([each for each in ids if each], pa.large_string())


def _lines(path: str) -> Iterator[tuple[int, str]]:
    for number, ids in _blocks(path):
        yield from enumerate(ids, number)


def _blocks(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yields blocks of lines as the first's number and the ids, empty where a line has none."""
    number = 1
    for _, data in read_blocks(path, compression=compression_of(path)):
        try:
            text = data.decode()
        except UnicodeDecodeError:
            read_text(path)  # raises with the offset
            raise
        lines = text.removesuffix("\n").split("\n")
        yield number, [("" if e.startswith("#") else e) for e in map(str.strip, lines)]
        number += len(lines)


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
    left_out = [] if exclude_ids is None else [IdList.read(exclude_ids).column]
    for part in (*seen_ids, *left_out):
        seen |= keep.flags(part)
    keep.check(seen, missing, "corpus.missing")


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
        ids.check(seen, missing)
    if chosen:
        rank = np.argsort(np.concatenate(positions), kind="stable")
        table = pa.concat_tables(chosen)
        names = [take(table[name], rank) for name in ("doc_id", "title")]
        yield pa.table([*names, table["text"].take(pa.array(rank))], schema=DOCUMENTS)


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
    names = pa.array([query.query_id for query in chosen], pa.large_string())
    rows = np.arange(len(chosen))
    if exclude is not None:
        rows = rows[exclude.positions(names) < 0]
    if ids is not None:
        ids.check(ids.flags(names), missing)
        position = ids.positions(names)
        rows = rows[position[rows] >= 0]
        if order == "list":
            rows = rows[np.argsort(position[rows], kind="stable")]
    return [chosen[row] for row in rows.tolist()]


def filter_qrels(
    qrels: Qrels,
    ids: IdList | None = None,
    exclude: IdList | None = None,
    *,
    missing: Missing = "error",
) -> Qrels:
    """Returns the judgements of the queries in one list and not in another."""
    names = pa.array(list(qrels), pa.large_string())
    keep = np.ones(len(names), bool)
    if ids is not None:
        ids.check(ids.flags(names), missing)
        keep &= ids.positions(names) >= 0
    if exclude is not None:
        keep &= exclude.positions(names) < 0
    return {query_id: judged for (query_id, judged), kept in zip(qrels.items(), keep) if kept}
