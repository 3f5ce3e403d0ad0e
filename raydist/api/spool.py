"""Objects as inputs: written to files, which the verbs read as any others.

A DataFrame, an Arrow table, a `datasets.Dataset`, a mapping, or rows become Parquet files beside
the output, under the same names each time, and are removed at the end. Their content is the input's
fingerprint: the same rows are "already built", or continue an interrupted command.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import posixpath
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.api import frames
from raydist.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 8192  # of a file; what a file holds depends on the rows alone
_KINDS = {
    "corpus": "documents",
    "queries": "queries",
    "qrels": "qrels",
    "run": "run",
    "data": "samples",
    "datasets": "samples",
    "in": "samples",
    "delete": "ids",
    "ids": "ids",
    "exclude_ids": "ids",
}
"""What the keys of the verbs read."""
_BLOCK = frozenset({"path", "kind"})
"""A mapping with one of these keys sets the fields of an input, and is none itself."""


class Spool:
    """Writes the objects of a call below a folder beside its output, while the block runs.

    With no output, the folder is one for temporary files.
    """

    def __init__(self, out: str | None = None, wait: float = 60.0) -> None:
        """Names the folder.

        Args:
            out: where the output goes, a path or URI.
            wait: seconds to wait for another call with the same output.
        """
        self._wait = wait
        self._folder: str | None = None
        if out is not None:
            head, name = posixpath.split(out.rstrip("/"))
            self._folder = posixpath.join(head, f".{name}.inputs")
        self._used = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def plain(self, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the keys of a verb with files in place of objects.

        Raises:
            ConfigError, DataError: an object cannot be read as what its key names.
        """
        return {name: self._plain(value, _KINDS.get(name), name) for name, value in keys.items()}

    def _plain(self, value: Any, kind: str | None, key: str) -> Any:
        from raydist.records import Run

        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, int | float) and kind not in (None, "ids"):
            raise ConfigError(f"{key} = {value!r}: expected a path, or {kind} as an object")
        if value is None or isinstance(value, str | int | float | bool):
            return value
        if isinstance(value, Run):
            return self.file(value, "run", key)
        if isinstance(value, Mapping):
            if kind == "samples" and key.endswith("datasets"):  # data sets by name
                return {k: self._plain(v, kind, f"{key}.{k}") for k, v in value.items()}
            if kind is None or _BLOCK & value.keys():
                return {
                    name: self._plain(
                        each, kind if name == "path" else _KINDS.get(name), f"{key}.{name}"
                    )
                    for name, each in value.items()
                }
            return self.file(value, kind, key)
        if isinstance(value, list | tuple) and (kind is None or _are_places(value, kind)):
            if kind in ("documents", "queries"):
                _refuse_texts(value, kind, key)
            return [self._plain(each, None, key) for each in value]
        if isinstance(value, list | tuple) and any(isinstance(each, Run) for each in value):
            return [self._plain(each, kind, f"{key}.{i}") for i, each in enumerate(value)]
        if kind is None:
            if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of NumPy
                return value.item()
            raise ConfigError(f"{key}: {_name(value)} is neither a value, a list nor a mapping")
        return self.file(value, kind, key)

    def file(self, value: Any, kind: str, key: str) -> str:
        """Writes an object and returns the path of its file or folder.

        Args:
            value: the object.
            kind: what it holds: documents, queries, qrels, run, samples or ids.
            key: of the verb, for messages.

        Raises:
            DataError: it holds something else.
        """
        from raydist import log
        from raydist.data.files import filesystem, is_uri

        stem = re.sub(r"[^\w.-]", "_", key)
        place = posixpath.join(self._open(), stem)
        where, folder = filesystem(place)
        where.create_dir(folder, recursive=True)
        called = f"{key} ({_name(value)})"
        for path in [place] if is_uri(place) else [os.path.abspath(place), place]:
            log.stands_for(f"{path}/{stem}.parquet", called)
            log.stands_for(f"{path}/samples.jsonl", called)
            log.stands_for(f"{path}/{0:06}.parquet", called)  # where its rows begin
            log.stands_for(path, called)
        if not _is_frame(value) and hasattr(value, "collect"):  # a LazyFrame of Polars
            value = value.collect()
        try:
            name = _write(value, kind, where, folder, stem)
        except _refusals() as error:
            raise DataError(f"{called}: {error}") from None
        return posixpath.join(place, name) if name else place

    def _open(self) -> str:
        """Creates the folder, which is removed when the block ends."""
        from raydist import locks, storage
        from raydist.data.files import filesystem
        from raydist.data.materialise import clear

        if self._folder is None:
            self._folder = self._stack.enter_context(
                tempfile.TemporaryDirectory(prefix="raydist-inputs-")
            )
        elif not self._used:
            if not storage.is_remote(self._folder):
                place = Path(filesystem(self._folder)[1])
                self._stack.enter_context(locks.writer(place, self._wait))
            clear(self._folder)
            self._stack.callback(clear, self._folder)
        self._used = True
        return self._folder


def _are_places(values: Sequence[Any], kind: str) -> bool:
    """Returns whether a list names files, as it does on the command line."""
    named = all(isinstance(each, str | os.PathLike) for each in values)
    return bool(values) and named and kind != "ids"


def _refuse_texts(values: Sequence[Any], kind: str, key: str) -> None:
    """Refuses a list of texts where a verb reads a list as one of files.

    Raises:
        ConfigError: none of them is a file.
    """
    from raydist.data.spool import is_stream

    for each in values:
        text = os.fspath(each)
        if text.startswith(("irds:", "docstrings:")) or "://" in text or is_stream(text):
            return
        if len(text) < 4096 and (re.search(r"[*?\[]", text) or os.path.exists(text)):
            return
    first = str(values[0])
    shown = repr(first if len(first) <= 60 else f"{first[:57]}...")
    raise ConfigError(
        f"{key} = [{shown}{', …' if len(values) > 1 else ''}]: a list of strings names files, and "
        f"there is none of this name; {kind} have ids: give {{id: text}}, or rows such as "
        '{"id": "1", "text": "…"}'
    )


def _name(value: object) -> str:
    return type(value).__name__


def _refusals() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return (DataError, pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError)


def _write(value: Any, kind: str, where: Any, folder: str, stem: str) -> str:
    """Writes the files of an object; returns the name of the file, if it is a single one."""
    import pyarrow as pa

    from raydist.records import Run

    if kind == "run":
        run = value if isinstance(value, Run) else _run_of(value)
        tables: Iterator[pa.Table] = iter([run.table])
    elif kind == "ids":
        lines = "".join(f"{each}\n" for each in value)
        with where.open_output_stream(posixpath.join(folder, "ids.txt")) as out:
            out.write(lines.encode())
        return "ids.txt"
    elif kind == "samples" and not _is_frame(value):
        with where.open_output_stream(posixpath.join(folder, "samples.jsonl")) as out:
            for row in value:
                try:
                    line = json.dumps(row, ensure_ascii=False)
                except TypeError as error:
                    raise DataError(str(error)) from None
                out.write(line.encode() + b"\n")
        return "samples.jsonl"
    else:
        tables = _frames(value) if _is_frame(value) else _tables(_rows(value, kind))
    if kind == "documents":
        number = -1
        for number, table in enumerate(tables):
            _write_table(table, where, posixpath.join(folder, f"{number:06}.parquet"))
        if number < 0:
            raise DataError("has no rows")
        return ""
    parts = list(tables)
    if not parts:
        raise DataError("has no rows")
    whole = pa.concat_tables(parts, promote_options="permissive")
    name = f"{stem}.parquet"
    _write_table(whole, where, posixpath.join(folder, name))
    return name


def _write_table(table: pa.Table, where: Any, path: str) -> None:
    import pyarrow.parquet as pq

    with where.open_output_stream(path) as out:
        pq.write_table(frames.plain(table), out, compression="lz4")


def _is_frame(value: Any) -> bool:
    """Returns whether an object holds columns: a DataFrame, an Arrow table, a Dataset."""
    return hasattr(value, "__arrow_c_stream__") or hasattr(value, "with_format")


def _frames(value: Any) -> Iterator[pa.Table]:
    """Yields the rows of an object with columns, so many at a time."""
    import pyarrow as pa

    if hasattr(value, "to_frame"):
        raise DataError("is a single column; give a DataFrame that has ids too, or {id: text}")
    if hasattr(value, "__arrow_c_stream__"):
        try:
            table = pa.table(value)
        except pa.ArrowException:
            if not hasattr(value, "iterrows"):
                raise
            yield from _tables(iter(value.to_dict("records")))  # columns of objects, by their rows
            return
        yield from (table.slice(at, _ROWS) for at in range(0, table.num_rows, _ROWS))
        return
    if isinstance(value, Mapping):  # a DatasetDict
        raise ConfigError(f"{_name(value)}: give one of its splits: {', '.join(map(str, value))}")
    yield from value.with_format("arrow").iter(batch_size=_ROWS)


def _tables(rows: Iterator[Mapping[str, Any]]) -> Iterator[pa.Table]:
    import pyarrow as pa

    for start in itertools.count(0, _ROWS):
        if not (some := list(itertools.islice(rows, _ROWS))):
            return
        names = dict.fromkeys(itertools.chain.from_iterable(some))
        yield pa.table(
            {name: _column(name, [row.get(name) for row in some], start) for name in names}
        )


def _column(name: str, values: list[Any], start: int) -> pa.Array:
    """Returns the values of a field; whole numbers as ids are texts, as in files of JSON.

    Raises:
        DataError: they are of several types, or of one without a place in a table.
    """
    import pyarrow as pa

    if str(name).endswith("id"):
        values = [str(each) if type(each) is int else each for each in values]
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        pass
    kind = next(type(each) for each in values if each is not None)
    for row, each in enumerate(values, start):
        try:
            pa.array([each])
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            raise DataError(f"row {row}: {name} = {each!r}: has no place in a table") from None
        if each is not None and type(each) is not kind:
            raise DataError(
                f"row {row}: {name} = {each!r} is of type {_name(each)}, others of type "
                f"{kind.__name__}; give all the same"
            )
    raise DataError(f"{name}: its values are of several types; give all the same")


def _rows(value: Any, kind: str) -> Iterator[Mapping[str, Any]]:
    """Yields the rows of a mapping by ids, or of an iterable of mappings, records or texts.

    Texts have no ids: they are numbered from 0, as their places in a list are.
    """
    if kind == "qrels" and isinstance(value, Mapping):
        yield from _judgements(value)
        return
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield {"id": name, **(each if isinstance(each, Mapping) else {"text": each})}
        return
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise DataError(f"is not an iterable of {kind}")
    for number, row in enumerate(value):
        if isinstance(row, Mapping):
            yield row
        elif isinstance(row, str) and kind != "qrels":
            yield {"id": str(number), "text": row}
        elif hasattr(row, "query_id") and hasattr(row, "text"):
            yield {"id": row.query_id, "text": row.text}
        elif hasattr(row, "doc_id") and hasattr(row, "text"):
            yield {"id": row.doc_id, "title": row.title, "text": row.text}
        else:
            raise DataError(f"row {number}: expected a mapping of its fields, not {_name(row)}")


def _judgements(qrels: Mapping[Any, Any]) -> Iterator[Mapping[str, Any]]:
    from raydist.records import DiversityQrels

    if isinstance(qrels, DiversityQrels):
        for query_id, grades in qrels.subtopics.items():
            for (doc_id, subtopic), grade in grades.items():
                row = {"query_id": query_id, "subtopic_id": subtopic}
                yield {**row, "doc_id": doc_id, "relevance": grade}
        return
    for query_id, judged in qrels.items():
        if not isinstance(judged, Mapping):
            raise DataError(
                f"{query_id!r} has a {_name(judged)}; expected a mapping from documents to grades"
            )
        for doc_id, grade in judged.items():
            yield {"query_id": query_id, "doc_id": doc_id, "relevance": grade}


def _scores(run: Mapping[Any, Any]) -> Iterator[tuple[str, str, float]]:
    for query_id, scores in run.items():
        if not isinstance(scores, Mapping):
            raise DataError(
                f"{query_id!r} has a {_name(scores)}; expected a mapping from documents to scores"
            )
        for doc_id, score in scores.items():
            try:
                yield str(query_id), str(doc_id), float(score)
            except (TypeError, ValueError):
                raise DataError(
                    f"{query_id!r}, {doc_id!r}: expected a number as score, not {score!r}"
                ) from None


def _run_of(value: Any) -> Any:
    """Returns the run of `{query: {document: score}}`, or of rows, by descending score."""
    import pyarrow as pa

    from raydist.data.formats.judgements import DOCUMENT, QUERY
    from raydist.records import RUN, Run

    if isinstance(value, Mapping):
        columns = list(zip(*_scores(value))) or [(), (), ()]
        return Run.sorted(pa.table([pa.array(c, f.type) for c, f in zip(columns, RUN)], schema=RUN))
    parts = list(_frames(value) if _is_frame(value) else _tables(_rows(value, "run")))
    if not parts:
        raise DataError("has no rows")
    table = frames.plain(pa.concat_tables(parts, promote_options="permissive"))
    columns = []
    for name, known in zip(RUN.names, (QUERY, DOCUMENT, ("score",))):
        usual = next((each for each in known if each in table.column_names), None)
        if usual is None:
            raise DataError(f"no column {name!r}; a run has {', '.join(RUN.names)}")
        columns.append(table[usual])
    return Run.sorted(pa.table(columns, RUN.names))
