"""A corpus read split by split by workers, and what the user is told of it in the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist import log
from raydist.data.ids import IdList, Missing, filter_documents
from raydist.data.readers import read_split


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
