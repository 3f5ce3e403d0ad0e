"""Rewrites an index or vectors without deleted documents, in as many segments as you want.

    raydist merge IDX
    raydist merge out=IDX segments=8 workers=4
    raydist merge VEC
    raydist merge LIDX

The result is what a build of the remaining documents would have written, and nothing of the deleted
ones is left, on an object store either. Until it is complete the index is the old one, and whoever
has opened it keeps it. A merge that was interrupted begins again. Appends merge by themselves when
there are more than ten segments (`raydist index ... auto_merge=false` does not). The approximate
index of vectors is built anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist import log
from raydist.commands.growth.changes import merge_segments, segmented
from raydist.config.base import Flags
from raydist.config.lifecycle import MergeConfig

if TYPE_CHECKING:
    from raydist.dense.changes import Segmented

Config = MergeConfig
ON_DEMAND = ("segments/*", "store*")


def run(config: MergeConfig, flags: Flags) -> None:
    """Replaces the segments and the store, and reports what they are now."""
    from raydist.bow.fields import changing, folders_of
    from raydist.manifest import read_manifest
    from raydist.storage import local

    place = local(config.out) if flags.dry_run else Path(config.out)
    vectors = segmented(read_manifest(place)["kind"])
    if vectors is not None:
        _merge_vectors(vectors, place, config, flags)
        return
    if flags.dry_run:
        for folder in folders_of(place):
            _merge(folder, config, flags)
        return
    with changing(place) as folders:
        for folder in folders:
            _merge(folder, config, flags)


def _merge(folder: Path, config: MergeConfig, flags: Flags) -> None:
    from raydist.bow.build import segments
    from raydist.bow.index import BowIndex

    index = BowIndex.open(folder)
    before = len(index.segments), index.end - len(index)
    needed = bool(segments.plan_merge(index, config.merging.segments))
    del index

    def rows(facts: Mapping[str, Any]) -> list[tuple[str, object]]:
        store = log.size(facts["store_bytes"]) if facts["store"] else "none"
        return [("index", log.size(facts["bytes"])), ("store", store)]

    merge = partial(segments.merge_segments, folder, config.merging)
    merge_segments(folder, before, config.merging.segments, needed, merge, flags, rows)


def _merge_vectors(vectors: Segmented, folder: Path, config: MergeConfig, flags: Flags) -> None:
    from raydist.dense.changes import merge_into, planned_runs
    from raydist.dense.segments import segments_of
    from raydist.manifest import read_manifest

    manifest = read_manifest(folder, [vectors.layout.kind])
    plan = merge_into(config.merging.segments)
    before = len(segments_of(manifest)), int(manifest.get("deleted", 0))
    needed = bool(planned_runs(folder, manifest, plan))
    merge = partial(
        vectors.merge,
        folder,
        plan,
        workers=config.merging.workers,
        cpus_per_worker=config.merging.cpus_per_worker,
    )
    merge_segments(folder, before, config.merging.segments, needed, merge, flags)
