"""What becomes of a multi-vector index: the same as of a folder of vectors (`dense/changes.py`).

A merge copies codes and residuals as they are, and writes the lists anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.dense.changes import Segmented
from raydist.disk import remove
from raydist.generations import WORK
from raydist.late.assembly import assemble, write_lists
from raydist.late.documents import Documents
from raydist.late.format import CODES, LAYOUT, RESIDUALS
from raydist.late.token_shards import DOCUMENT, DOCUMENTS, read_documents
from raydist.shard_files import Split, Stats, Work, shard_path
from raydist.shards import sharded_map

_DOCUMENTS = 1 << 12
"""Documents that are copied together."""


def _write(
    folder: Path,
    part: Mapping[str, Any],
    start: int,
    stop: int,
    target: Path,
    *,
    workers: int,
    cpus_per_worker: float,
) -> dict[str, Any]:
    """Writes live documents of some segments as a new one; returns its facts."""
    splits = [
        {"start": a, "stop": min(a + _DOCUMENTS, stop)} for a in range(start, stop, _DOCUMENTS)
    ]
    copied = target / WORK
    sharded_map(
        splits,
        partial(_copier, folder, part),
        copied,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        label="merge",
        unit="document",
    )
    shards = [shard_path(copied, number) for number in range(len(splits))]
    about = assemble(target, shards, shards)
    remove(copied)
    return {name: about[name] for name in ("documents", "vectors")}


def _copier(folder: Path, part: Mapping[str, Any]) -> Work:
    documents = Documents.map(folder, part)

    def work(split: Split, target: Path) -> Stats:
        """Copies the documents of a split with their vectors, and lists them."""
        numbers = np.arange(int(split["start"]), int(split["stop"]))
        target.mkdir()
        tables, pairs, first = [], [], 0
        with open(target / CODES, "wb") as codes, open(target / RESIDUALS, "wb") as residuals:
            for segment, rows in documents.split(documents.at_numbers(numbers)):
                table = read_documents(segment.folder).take(pa.array(rows))
                lengths_n = table["vectors"].to_numpy().astype(np.int64)
                ends_n = np.cumsum(lengths_n)
                rows_t = np.repeat(segment.starts[rows] - ends_n + lengths_n, lengths_n)
                rows_t += np.arange(len(rows_t))
                own = segment.codes[rows_t]
                codes.write(own.data)
                residuals.write(segment.residuals[rows_t].data)
                owners_t = np.repeat(np.arange(first, first + len(rows)), lengths_n)
                pairs.append(own.astype(np.int64) << 32 | owners_t)
                tables.append(table)
                first += len(rows)
        with pa.ipc.new_file(str(target / DOCUMENTS), DOCUMENT) as writer:
            writer.write_table(pa.concat_tables(tables))
        write_lists(target, pairs, len(documents.segments[0].lists[0]) - 1)
        return {"documents": first}

    return work


LATE = Segmented(LAYOUT, Documents.map, _write)
"""Multi-vector indexes."""
