"""Rewrites an index or vectors without deleted documents, in as many segments as you want.

    raydist merge IDX
    raydist merge out=IDX segments=8 workers=4
    raydist merge VEC

The result is what a build of the remaining documents would have written, and nothing of the deleted
ones is left, on an object store either. Until it is complete the index is the old one, and whoever
has opened it keeps it. A merge that was interrupted begins again. Appends merge by themselves when
there are more than ten segments (`raydist index ... auto_merge=false` does not). The approximate
index of vectors is built anew.
"""

from __future__ import annotations

import time
from pathlib import Path

from raydist import log
from raydist.artefact import planned
from raydist.config.base import Flags
from raydist.config.lifecycle import MergeConfig

Config = MergeConfig
ON_DEMAND = ("segments/*", "store*")


def run(config: MergeConfig, flags: Flags) -> None:
    """Replaces the segments and the store, and reports what they are now."""
    from raydist.bow.fields import changing, folders_of
    from raydist.dense.segments import KIND
    from raydist.manifest import read_manifest
    from raydist.storage import local

    place = local(config.out) if flags.dry_run else Path(config.out)
    if read_manifest(place)["kind"] == KIND:
        _merge_vectors(place, config, flags)
        return
    if flags.dry_run:
        for folder in folders_of(local(config.out)):
            _merge(folder, config, flags)
        return
    with changing(Path(config.out)) as folders:
        for folder in folders:
            _merge(folder, config, flags)


def _merge(folder: Path, config: MergeConfig, flags: Flags) -> None:
    from raydist.bow.build.segments import merge_segments, plan_merge
    from raydist.bow.index import BowIndex

    index = BowIndex.open(folder)
    before, deleted = len(index.segments), index.end - len(index)
    needed = bool(plan_merge(index, config.merging.segments))
    del index
    what = f"{log.count(before, 'segment')}, {log.count(deleted, 'deleted document')}"
    if not needed:
        if not flags.dry_run:
            merge_segments(folder, config.merging)  # removes what others left
        log.say(f"{folder}: {what}: nothing to merge")
        return
    goal = log.count(config.merging.segments, "segment")
    if planned(flags.dry_run, f"merge {folder} ({what}) into {goal}"):
        return
    clock, cpu = time.monotonic(), time.process_time()
    facts = merge_segments(folder, config.merging)
    if facts is None:
        log.say(f"{folder}: nothing to merge: another command has merged it")
        return
    rows: list[tuple[str, object]] = [
        ("segments", f"{before:,} -> {len(facts['segments']):,}"),
        ("deleted documents", f"{deleted:,} removed"),
        ("documents", f"{facts['documents']:,}"),
        ("index", log.size(facts["bytes"])),
        ("store", log.size(facts["store_bytes"]) if facts["store"] else "none"),
        ("time", log.duration(time.monotonic() - clock)),
        ("CPU time", log.duration(time.process_time() - cpu)),
    ]
    log.table(f"merged {folder}", ["what", "value"], rows)


def _merge_vectors(folder: Path, config: MergeConfig, flags: Flags) -> None:
    from raydist.dense.changes import merge_into, merge_vectors, planned_runs
    from raydist.dense.segments import KIND, segments_of
    from raydist.manifest import read_manifest

    manifest = read_manifest(folder, [KIND])
    plan = merge_into(config.merging.segments)
    before, deleted = len(segments_of(manifest)), manifest.get("deleted", 0)
    what = f"{log.count(before, 'segment')}, {log.count(deleted, 'deleted document')}"
    if flags.dry_run and planned_runs(folder, manifest, plan):
        goal = log.count(config.merging.segments, "segment")
        log.say(f"would merge {folder} ({what}) into {goal}")
        return
    clock = time.monotonic()
    facts = None
    if not flags.dry_run:
        facts = merge_vectors(
            folder,
            plan,
            workers=config.merging.workers,
            cpus_per_worker=config.merging.cpus_per_worker,
        )
    if facts is None:
        log.say(f"{folder}: {what}: nothing to merge")
        return
    rows: list[tuple[str, object]] = [
        ("segments", f"{before:,} -> {len(facts['segments']):,}"),
        ("deleted documents", f"{deleted:,} removed"),
        ("documents", f"{facts['documents']:,}"),
        ("time", log.duration(time.monotonic() - clock)),
    ]
    log.table(f"merged {folder}", ["what", "value"], rows)
