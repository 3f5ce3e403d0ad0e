"""Builds a bag-of-words index: splits of a corpus become spills, the spills become one segment.

    corpus ─ splits ─► read, analyse, invert ─► spills ─► merge by ranges of terms ─► segments/00000
                                            └─► stores ────────── link ───────────► store

The result depends on the documents alone: not on the number of workers, the order in which they
finish, their memory, or crashes. A restart redoes the splits without a done marker.

Legend: N documents.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydist.bow.build.delete import forward_facts, mark_deleted
from raydist.bow.build.merge import MAX_DOCUMENTS, merge_spills
from raydist.bow.build.spills import Spill
from raydist.bow.build.splits import LEAST_MEMORY, Read, SplitWorker, limit_documents
from raydist.bow.format.segment import Segment
from raydist.bow.index import BowIndex
from raydist.bow.spec import IndexSpec
from raydist.data.columns import columns_of
from raydist.data.store.build import concatenate
from raydist.data.store.idhash import Duplicates, find_duplicates
from raydist.data.store.repeats import REMEDY, description, repeats_within
from raydist.disk import disk_errors
from raydist.errors import ConfigError, DataError
from raydist.generations import WORK
from raydist.log import count, warn
from raydist.run_writer import warn_of_blank
from raydist.shard_files import Split, Stats, shard_path
from raydist.shards import sharded_map


def build_index(
    splits: Sequence[Split],
    read: Read,
    folder: Path,
    spec: IndexSpec = IndexSpec(),  # noqa: B008  frozen
) -> dict[str, Any]:
    """Writes an index into a folder; returns the facts for the manifest.

    Args:
        splits: descriptors of the corpus, fixed by the data.
        read: turns a split into tables.
        folder: the index; an interrupted build of the same splits is continued.
        spec: how it is built; of one field at most (fields.py builds several).

    Raises:
        DataError: a bad document, no documents at all, or an id twice.
        JobError: a split keeps failing, or the disk is full.
    """
    facts = build_parts(splits, read, folder, spec, "00000")
    if facts.pop("repeats"):
        with disk_errors(folder):
            index = BowIndex.of(folder, facts)
            superfluous = repeats_within(index).superfluous(spec.duplicates)
            facts |= mark_deleted(folder, facts, index, superfluous, "00000")
    return facts


def build_parts(
    splits: Sequence[Split], read: Read, folder: Path, spec: IndexSpec, name: str
) -> dict[str, Any]:
    """Writes `folder/segments/` and `folder/store/`, documents that share an id included.

    Returns the facts for the manifest, and `repeats`, how many documents repeat an id.

    Args:
        splits: as for `build_index`.
        read: as for `build_index`.
        folder: as for `build_index`.
        spec: as for `build_index`.
        name: of the merged segment, or of the folder of unmerged ones, in `segments`.

    Raises:
        DataError: as for `build_index`.
        JobError: as for `build_index`.
    """
    memory, workers = spec.memory_per_worker, spec.workers
    if memory < LEAST_MEMORY:
        raise ConfigError(f"memory_per_worker = {memory}: at least {LEAST_MEMORY} bytes are needed")
    clock, began, cpu = time.time(), time.monotonic(), time.process_time()
    if spec.max_docs:
        splits, read = limit_documents(splits, read, spec.max_docs)
    work = folder / WORK
    shards = work / "splits"
    stats = sharded_map(
        splits,
        partial(SplitWorker, read, spec),
        shards,
        workers=workers,
        cpus_per_worker=spec.cpus_per_worker,
        label="indexing",
    )
    inverted = time.monotonic()
    facts = _totals(stats)
    if not facts["documents"]:
        raise DataError("the corpus has no documents")
    if spec.merge and facts["documents"] >= MAX_DOCUMENTS:
        raise DataError(
            f"{facts['documents']:,} documents: a segment numbers them with 32 bits; use "
            "merge=false, or build several indexes"
        )
    facts |= columns_of(stats, [split.get("path", "the corpus") for split in splits])
    parts = [shard_path(shards, i) / part for i, each in enumerate(stats) for part in each["parts"]]
    segments = folder / "segments"
    with disk_errors(folder), ThreadPoolExecutor(1) as pool:
        # With workers there are cores to spare: texts and ids are checked during the merge.
        checks = pool.submit(_check_documents, parts, shards, len(stats), folder, spec)
        if workers < 2:
            facts |= checks.result()
        _report_empty(facts, spec)
        warn_of_blank(facts["blank_id"])
        segments.mkdir(exist_ok=True)
        target = segments / name
        shutil.rmtree(target, ignore_errors=True)
        if spec.merge:
            merged = merge_spills(
                parts,
                target,
                work=work / "ranges",
                compress=spec.compress,
                block_size=spec.block_size,
                positions=spec.positions,
                memory=memory,
                forward=spec.forward,
                reordered=spec.reorder,
                workers=workers,
                cpus_per_worker=spec.cpus_per_worker,
            )
            facts |= {**merged, "segments": [f"segments/{name}"]}
        else:
            facts |= _keep_segments(parts, target)
        facts |= checks.result()
    facts |= forward_facts(Segment.open(folder / each) for each in facts["segments"])
    facts["seconds"] = {
        "start": round(max(0.0, min(each.get("began", clock) for each in stats) - clock), 3),
        "splits": round(inverted - began, 3),
        "merge": round(time.monotonic() - inverted, 3),
    }
    # Workers in this process are part of its own time.
    facts["cpu_seconds"] = round(
        time.process_time() - cpu + sum(each["cpu_seconds"] for each in stats if workers), 3
    )
    facts["analyzer"] = spec.analyzer.build().to_dict()
    if spec.fields:
        (facts["field"],) = spec.fields
    return facts


def _totals(stats: Sequence[Stats]) -> dict[str, Any]:
    first = next((s["first_empty"] for s in stats if s["first_empty"] is not None), None)
    names = ("documents", "bytes", "empty", "rejected")
    totals = {name: sum(int(each[name]) for each in stats) for name in names}
    totals["text_bytes"] = totals.pop("bytes")
    blank = next((each["blank_id"] for each in stats if each["blank_id"] is not None), None)
    return {**totals, "first_empty": first, "blank_id": blank}


def _check_documents(
    parts: Sequence[Path], shards: Path, count: int, folder: Path, spec: IndexSpec
) -> dict[str, Any]:
    """Joins the stores, if any, and looks for ids that occur twice."""
    if spec.store:
        target = folder / "store"
        shutil.rmtree(target, ignore_errors=True)
        joined = concatenate([shard_path(shards, i) / "store" for i in range(count)], target)
        facts = {"store": "store", "store_bytes": joined["bytes"]}
        repeats = Duplicates(joined["duplicates"], joined["examples"])
    else:
        facts, repeats = {"store": None}, find_duplicates(partial(_ids, parts, spec.merge))
    if repeats.count and spec.duplicates == "error":
        raise DataError(f"{description(repeats.count, *repeats.examples[0])} ({REMEDY})")
    return {**facts, "repeats": repeats.count}


def _ids(parts: Sequence[Path], merge: bool) -> Iterator[pa.Array]:
    for part in parts:
        yield Spill(part).doc_ids if merge else Segment.open(part).doc_ids


def _report_empty(facts: dict[str, Any], spec: IndexSpec) -> None:
    first = facts.pop("first_empty")
    if facts["empty"] and not spec.fields:
        warn(f"{count(facts['empty'], 'document')} without terms, the first is {first!r}")


def _keep_segments(parts: Sequence[Path], target: Path) -> dict[str, Any]:
    """Links segments to their final names: a restart still finds them under the old ones."""
    target.mkdir(parents=True)
    facts: dict[str, Any] = {"terms": 0, "postings": 0, "tokens": 0, "bytes": 0, "segments": []}
    for number, part in enumerate(parts):
        final = target / f"{number:05d}"
        shutil.copytree(part, final, copy_function=_link)
        facts["segments"].append(final.relative_to(target.parents[1]).as_posix())
        segment = Segment.open(final)
        facts["terms"] += segment.size
        facts["postings"] += segment.postings_total
        facts["tokens"] += segment.tokens
        facts["bytes"] += sum(each.stat().st_size for each in final.iterdir())
    return facts


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
