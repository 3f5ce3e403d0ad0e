"""A corpus read split by split by workers, and what the user is told of it in the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydist import log
from raydist.data.ids import IdList, filter_documents
from raydist.data.readers import read_split
from raydist.errors import DataError

__all__ = ["collect_rejects", "read_kept", "report_absent"]


def read_kept(
    arguments: Mapping[str, Any],
    ids: str | None,
    exclude_ids: str | None,
    split: Mapping[str, Any],
    rejects: Any,
) -> Iterable[pa.Table]:
    """Yields those documents of a split that are asked for, as tables of the schema DOCUMENTS.

    Args:
        arguments: of `read_split`.
        ids: a file of the ids to keep.
        exclude_ids: a file of the ids to leave out.
        split: a descriptor of `plan_splits`.
        rejects: where skipped lines go, as for `read_split`.
    """
    tables = read_split(split, rejects=rejects, **arguments)
    if ids is None and exclude_ids is None:
        return tables
    keep, drop = (None if path is None else IdList.read(path) for path in (ids, exclude_ids))
    return filter_documents(tables, keep, drop, missing="ignore")


def report_absent(ids: str | None, found: int, missing: str) -> None:
    """Complains if fewer documents than ids to keep were found, which no single split can know.

    Args:
        ids: the file of ids, None for no such file.
        found: distinct documents of all splits.
        missing: `error`, `warn` or `ignore`.

    Raises:
        DataError: ids are missing and `missing` is `error`.
    """
    if ids is None or missing == "ignore":
        return
    wanted = len(IdList.read(ids).ids)
    if found >= wanted:
        return
    message = f"{ids}: {wanted - found:,} of {wanted:,} ids are not in the corpus"
    if missing == "error":
        raise DataError(f"{message} (corpus.missing=warn goes on)")
    log.warn(message)


def collect_rejects(files: Iterable[Path], target: str | None) -> int:
    """Says how many lines the splits skipped, puts them into one file, and returns their number.

    Args:
        files: the splits' rejects, in the order of the corpus; those that are absent count nothing.
        target: the file that has them all in the end; None leaves them where they are.
    """
    present = [file for file in files if file.is_file() and file.stat().st_size]
    count = 0
    for file in present:
        with open(file, "rb") as lines:
            count += sum(1 for _ in lines)
    if not count:
        return 0
    with open(present[0], encoding="utf-8") as source:
        first = json.loads(source.readline())
    where = f"; all are in {target}" if target else ""
    log.warn(
        f"{count:,} bad lines skipped, the first: {first['file']}, line {first['line']}: "
        f"{first['reason']}{where}"
    )
    if target is not None:
        with open(target, "wb") as out:
            for file in present:
                with open(file, "rb") as lines:
                    shutil.copyfileobj(lines, out)
    return count
