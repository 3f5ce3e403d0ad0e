"""Merging the segments of an index: written anew without what is deleted, as one new generation.

The result is what a build of the remaining documents would have written. Until the manifest is
replaced, the index is the old one, and whoever has opened it keeps it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist import locks, on_demand
from raydist.bow.build.delete import forward_facts, statistics
from raydist.bow.build.generation import LAYOUT
from raydist.bow.build.merge import merge, plan_cuts
from raydist.bow.build.sources import SegmentSource
from raydist.bow.format.forward import has_forward
from raydist.bow.format.segment import Segment, open_segments
from raydist.bow.index import KIND, BowIndex
from raydist.bow.spec import MergeSpec
from raydist.data.store import idhash
from raydist.data.store.build import compact
from raydist.data.store.reader import DocumentStore, join
from raydist.disk import disk_errors, remove
from raydist.fingerprints import value_fingerprint
from raydist.generations import WORK, Runs, merge_runs, next_name, purge_runs, tail, tail_runs
from raydist.kernels.bits import Bits
from raydist.manifest import read_manifest


@dataclass(frozen=True, slots=True)
class Plan:
    """What is written anew.

    Attributes:
        runs: consecutive segments, and how many they become.
        pieces: folders of the store from this one on become one; None leaves the store.
    """

    runs: Runs
    pieces: int | None

    def __bool__(self) -> bool:
        return bool(self.runs) or self.pieces is not None


def merge_segments(folder: Path, spec: MergeSpec) -> dict[str, Any] | None:
    """Makes an index of `spec.segments`, without deleted documents; returns the new manifest.

    Returns None where nothing is to be merged; what no manifest names is removed all the same.

    Raises:
        ArtifactError: no complete index, or a damaged one.
        ConfigError: more segments than documents, or too few for a segment's limit.
    """
    with locks.writer(folder):
        manifest = read_manifest(folder, [KIND])
        index = BowIndex.open(folder)
        return _rewrite(folder, manifest, index, plan_merge(index, spec.segments), spec)


def purge(folder: Path, spec: MergeSpec) -> dict[str, Any] | None:
    """Removes the bytes of deleted documents: their segments and texts are written anew.

    Returns the new manifest, None where nothing is deleted.
    """
    with locks.writer(folder):
        manifest = read_manifest(folder, [KIND])
        index = BowIndex.open(folder)
        return _rewrite(folder, manifest, index, plan_purge(index), spec)


def merge_tail(folder: Path, spec: MergeSpec) -> dict[str, Any] | None:
    """Merges the last segments where appends have left many; returns the new manifest, if so."""
    with locks.writer(folder):
        manifest = read_manifest(folder, [KIND])
        if not manifest["config"].get("merge", True):
            return None
        index = BowIndex.open(folder)
        return _rewrite(folder, manifest, index, plan_tail(index), spec)


def plan_merge(index: BowIndex, segments: int) -> Plan:
    """Returns the plan for so many segments; an index that has as many is only purged."""
    if segments == sum(1 for each in index.segments if each.live_documents):
        plan = plan_purge(index)
        many = index.store is not None and len(index.store.pieces) > 1
        return Plan(plan.runs, 0) if many else plan
    runs = merge_runs(*_counts(index), segments)
    return Plan(runs, None if index.store is None or _is_whole(index.store) else 0)


def plan_purge(index: BowIndex) -> Plan:
    """Returns the plan that removes all bytes of deleted documents."""
    runs = purge_runs(*_counts(index))
    store = index.store
    if store is None or store.live is None or store.live.count == store.live.size:
        return Plan(runs, None)
    lives = enumerate(store.lives)
    return Plan(runs, next(n for n, live in lives if live is not None and live.count < live.size))


def plan_tail(index: BowIndex) -> Plan:
    """Returns the plan of what an append merges."""
    sizes = [each.live_postings + each.live_documents for each in index.segments]
    pieces = [] if index.store is None else [len(each) for each in index.store.pieces]
    piece = tail(pieces)
    return Plan(tail_runs(_counts(index)[0], sizes), piece if piece < len(pieces) - 1 else None)


def _counts(index: BowIndex) -> tuple[list[int], list[int]]:
    """Returns how many documents each segment has, the live ones and all."""
    segments = index.segments
    return [each.live_documents for each in segments], [each.documents for each in segments]


def _is_whole(store: DocumentStore) -> bool:
    return store.live is None and len(store.pieces) == 1


def _rewrite(
    folder: Path, manifest: dict[str, Any], index: BowIndex, plan: Plan, spec: MergeSpec
) -> dict[str, Any] | None:
    if not plan:
        LAYOUT.clean(folder)
        return None
    _fetch(folder, manifest, index, plan)
    name = next_name(manifest, value_fingerprint(["merge", plan.runs, plan.pieces]))
    targets = [folder / f"{kind}-{name}" for kind in ("store", "joined")]
    targets.append(folder / "segments" / name)
    with disk_errors(folder), contextlib.ExitStack() as undo:
        for each in targets:
            remove(each)
            undo.callback(remove, each)
        segments = _merge_runs(folder, manifest, index, plan.runs, name, spec)
        manifest = {**manifest, **_facts(folder, manifest, index, segments)}
        if plan.pieces is not None:
            manifest |= _merge_pieces(folder, index, plan.pieces, name)
        undo.pop_all()
        LAYOUT.publish(folder, manifest)
    return manifest


def _fetch(folder: Path, manifest: Mapping[str, Any], index: BowIndex, plan: Plan) -> None:
    """Has all of a remote index on the disk that is written anew."""
    names = (name for first, last, _ in plan.runs for name in manifest["segments"][first:last])
    on_demand.fetch(*(folder / name for name in names))
    if index.store is not None and plan.pieces is not None:
        on_demand.fetch(*(piece.folder for piece in index.store.pieces[plan.pieces :]))


def _merge_runs(
    folder: Path,
    manifest: Mapping[str, Any],
    index: BowIndex,
    runs: Runs,
    name: str,
    spec: MergeSpec,
) -> list[str]:
    """Writes the segments of all runs; returns the names of all segments of the index."""
    old, deletions = list(manifest["segments"]), manifest.get("deletions", {})
    new = sum(count for _, _, count in runs)
    names = [f"segments/{name}/{i:05d}" for i in range(new)] if new > 1 else [f"segments/{name}"]
    written: list[str] = []
    result: list[str] = []
    done = 0
    for first, last, count in runs:
        result += old[done:first]
        done = last
        if not count:
            continue
        mine, names = names[:count], names[count:]
        places = [
            (folder / each, folder / deletions[each] if each in deletions else None)
            for each in old[first:last]
        ]
        sources = partial(_open_sources, places)
        merge(
            sources,
            plan_cuts(sources(), count),
            [folder / each for each in mine],
            work=folder / WORK / f"{name}-{len(written)}",
            compress=index.segments[first].compress,
            block_size=index.segments[first].block_size,
            positions=index.segments[first].has_positions,
            memory=spec.memory_per_worker,
            forward=has_forward(index.segments[first]),
            weighted=bool(index.unit),
            reordered=index.segments[first].order_N is not None,
            workers=spec.workers,
            cpus_per_worker=spec.cpus_per_worker,
        )
        written += mine
        result += mine
    return result + old[done:]


def _open_sources(places: Sequence[tuple[Path, Path | None]]) -> list[SegmentSource]:
    return [SegmentSource(Segment.open(*place)) for place in places]


def _facts(
    folder: Path, manifest: Mapping[str, Any], index: BowIndex, names: Sequence[str]
) -> dict[str, Any]:
    """Returns what the manifest says of the segments."""
    deletions = {k: v for k, v in manifest.get("deletions", {}).items() if k in names}
    segments: list[Segment] = open_segments(folder, {"segments": names, "deletions": deletions})
    facts: dict[str, Any] = {
        **statistics(segments),
        **forward_facts(segments),
        "terms": sum(each.size for each in segments),
        "bytes": sum(
            entry["bytes"] for each in segments for entry in each.files.header["files"].values()
        ),
        "segments": list(names),
        "deletions": deletions,
    }
    if manifest.get("duplicates"):
        ids = pa.chunked_array([index.doc_ids.cast(pa.large_string())])
        facts["duplicates"] = idhash.find_duplicates(ids).count
    return facts


def _merge_pieces(folder: Path, index: BowIndex, first: int, name: str) -> dict[str, Any]:
    """Joins the store's folders from `first` on into one, without deleted texts."""
    store = index.store
    assert store is not None
    target = folder / f"store-{name}"
    lives = store.lives
    compact(list(zip(store.pieces, lives))[first:], target)
    names = [piece.folder.name for piece in store.pieces[:first]]
    facts: dict[str, Any] = {"store": target.name}
    if names:
        before = [
            Bits.full(len(p)) if b is None else b for p, b in zip(store.pieces, lives[:first])
        ]
        with DocumentStore.open(target) as merged:
            before.append(Bits.full(len(merged)))
        live = Bits.of(np.concatenate([each.flags for each in before]))
        joined = folder / f"joined-{name}"
        join(joined, [*names, target.name], None if live.count == live.size else live)
        facts["store"] = joined.name
    with DocumentStore.open(folder / facts["store"]) as written:
        facts["store_bytes"] = written.facts["bytes"]
    return facts
