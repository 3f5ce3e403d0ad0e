"""What becomes of a folder of vectors: documents are added, deleted, and segments merged.

Folders of one vector a document and multi-vector indexes change alike (`Segmented`). Added vectors
become a further segment, with an approximate index of its own where the folder has them. Deleted
ones are marked; a merge writes the rest anew, as it is stored. Exact searches afterwards are those
of vectors that were embedded at once, to the bit. Until the manifest is replaced, the folder is the
old one.

Legend: D documents to delete.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist import locks, on_demand
from raydist.data.columns import columns_of
from raydist.data.store.repeats import Rows
from raydist.dense.files import VectorWriter
from raydist.dense.passages import documents_of, superfluous, vectors_of
from raydist.dense.segments import (
    ANN,
    FORM,
    LAYOUT,
    SHARDS,
    lives_of,
    segment_facts,
    segments_of,
    write_live,
)
from raydist.dense.spec import AnnSpec
from raydist.dense.vectors import Stored, VectorShards
from raydist.disk import disk_errors, remove
from raydist.errors import ConfigError, DataError
from raydist.fingerprints import value_fingerprint
from raydist.generations import WORK, Layout, Runs, merge_runs, next_name, tail_runs
from raydist.kernels.bits import Bits
from raydist.log import count
from raydist.manifest import read_manifest
from raydist.shard_files import Split, Stats, Work
from raydist.shards import sharded_map

_ROWS = 1 << 16
"""Vectors of a merged shard."""
_TOGETHER = 1 << 12  # written at once

Manifest = Mapping[str, Any]
Build = Callable[[Path], dict[str, Any]]
"""Embeds what is added into a folder; returns its facts."""
Plan = Callable[[list[int], list[int]], Runs]
"""Returns what to write anew, of the live documents and of all documents of each segment."""


class Write(Protocol):
    """Writes rows of some segments as a new one; returns its facts."""

    def __call__(
        self,
        folder: Path,
        part: Manifest,
        start: int,
        stop: int,
        target: Path,
        *,
        workers: int,
        cpus_per_worker: float,
    ) -> dict[str, Any]:
        """Writes the live rows `start` to `stop` of the segments that `part` names."""
        ...


@dataclass(frozen=True, slots=True)
class Segmented:
    """A kind of output whose documents lie in segments.

    Attributes:
        layout: of its generations.
        rows: maps what a manifest names.
        write: writes a merged segment.
    """

    layout: Layout
    rows: Callable[[Path, Manifest], Rows]
    write: Write

    def append(
        self,
        build: Build,
        folder: Path,
        *,
        key: Sequence[Any],
        inputs: Mapping[str, str],
        duplicates: str,
        work: Sequence[Any] = (),
    ) -> dict[str, Any] | None:
        """Adds documents; returns the facts of the new manifest, and `new_documents`.

        Returns None if the same were appended before, and the same again would change nothing.

        Args:
            build: embeds them by the settings of the folder.
            folder: a complete output; an interrupted append of the same is continued.
            key: what decides which documents are added.
            inputs: fingerprints of the inputs by name.
            duplicates: `last` replaces documents whose ids the folder has; or error, first, warn.
            work: how they are embedded, as for `Layout.append`.

        Raises:
            ArtifactError: no complete output.
            DataError: a bad document, or an id twice.
        """

        def build_segment(manifest: Manifest, side: Path, name: str) -> dict[str, Any]:
            added = build(side)
            if not added["documents"]:
                raise DataError("the corpus has no documents")
            return {**added, "segments": [f"segments/{name}"]}

        def join(
            manifest: Manifest, side: Path, added: dict[str, Any], name: str
        ) -> dict[str, Any]:
            (segment,) = added["segments"]
            alone = {key: value for key, value in added.items() if key != "segments"}
            rows, more = self.rows(folder, manifest), self.rows(side, alone)
            gone = superfluous(rows, duplicates, more)
            target = folder / segment
            remove(target)
            target.parent.mkdir(exist_ok=True)
            remove(side / WORK)
            os.rename(side, target)
            joint = {**manifest, **segment_facts({**segments_of(manifest), segment: alone})}
            summed = ("tokens", "rejected", "seconds")
            joint |= {each: manifest[each] + added[each] for each in summed}
            joint["blank_id"] = manifest.get("blank_id") or added["blank_id"]
            joint |= columns_of([manifest, added], ["the folder", "what is added"])
            return {**joint, **mark_deleted(folder, joint, gone, name)}

        grown = self.layout.append(
            folder, key, build_segment, join, inputs=inputs, duplicates=duplicates, work=work
        )
        if grown is None:
            return None
        manifest, added = grown
        return {**manifest, "new_documents": added["documents"], "new_seconds": added["seconds"]}

    def mark_repeats(self, folder: Path, facts: Manifest, duplicates: str) -> dict[str, Any]:
        """Deletes documents that repeat an id of a new build; returns what changes in its facts.

        Raises:
            DataError: there are some, and `duplicates` is `error`.
        """
        gone = superfluous(self.rows(folder, facts), duplicates)
        return mark_deleted(folder, facts, gone, "00000") if len(gone) else {}

    def delete(self, folder: Path, doc_ids: Iterable[str] | pa.Array) -> dict[str, Any] | None:
        """Deletes documents and returns the facts of the new manifest.

        Returns None if the folder's latest change was to delete the same ones.

        Args:
            folder: a complete output.
            doc_ids: their ids.

        Raises:
            ArtifactError: the folder is incomplete or damaged.
            DataError: an id that it does not have, or nothing would be left.
        """
        ids = doc_ids if isinstance(doc_ids, pa.Array) else pa.array(doc_ids, pa.large_string())
        ids = pc.unique(ids.cast(pa.large_string()))

        def mark(manifest: Manifest, name: str) -> dict[str, Any]:
            documents = documents_of(self.rows(folder, manifest))
            positions_D = documents.find(ids)
            unknown = ids.filter(pa.array(positions_D < 0))
            if len(unknown):
                raise DataError(
                    f"{folder} lacks {len(unknown):,} of {count(len(ids), 'document id')}, the "
                    f"first: {unknown[0].as_py()!r}"
                )
            if len(positions_D) == len(documents):
                raise DataError(f"{folder}: no document would be left; delete the folder instead")
            return mark_deleted(folder, manifest, vectors_of(documents, positions_D), name)

        return self.layout.delete(folder, ids, mark)

    def merge(
        self, folder: Path, plan: Plan, *, workers: int = 0, cpus_per_worker: float = 1.0
    ) -> dict[str, Any] | None:
        """Writes segments anew without deleted documents; returns the new manifest.

        Returns None where nothing is to be merged; what no manifest names is removed all the same.

        Args:
            folder: a complete output.
            plan: chooses the segments.
            workers: Ray actors; 0 = in this process.
            cpus_per_worker: CPUs of an actor.

        Raises:
            ArtifactError: no complete output, or a damaged one.
            ConfigError: more segments than documents.
        """
        with locks.writer(folder):
            manifest = read_manifest(folder, [self.layout.kind])
            runs = planned_runs(folder, manifest, plan)
            if not runs:
                self.layout.clean(folder)
                return None
            name = next_name(manifest, value_fingerprint(["merge", runs]))
            target = folder / "segments" / name
            with disk_errors(folder), contextlib.ExitStack() as undo:
                remove(target)
                undo.callback(remove, target)
                write = partial(self.write, workers=workers, cpus_per_worker=cpus_per_worker)
                manifest |= self._merge_runs(folder, manifest, runs, name, write)
                undo.pop_all()
                self.layout.publish(folder, manifest)
        return manifest

    def _merge_runs(
        self, folder: Path, manifest: Manifest, runs: Runs, name: str, write: Callable[..., Any]
    ) -> dict[str, Any]:
        """Writes the segments of all runs; returns what changes in the manifest."""
        old = segments_of(manifest)
        names, deletions = list(old), manifest.get("deletions", {})
        new = sum(number for _, _, number in runs)
        written: dict[str, dict[str, Any]] = {}
        result: dict[str, dict[str, Any]] = {}
        done = 0
        for first, last, number in runs:
            result |= {each: old[each] for each in names[done:first]}
            done = last
            part = {**manifest, **segment_facts({each: old[each] for each in names[first:last]})}
            if not number:
                continue
            for each in names[first:last]:
                on_demand.fetch(folder / each)
            rows = len(self.rows(folder, part))
            for start, stop in _cuts(rows, number):
                place = f"segments/{name}" + (f"/{len(written):05d}" if new > 1 else "")
                written[place] = write(folder, part, start, stop, folder / place)
                result[place] = written[place]
        result |= {each: old[each] for each in names[done:]}
        places = {each: place for each, place in deletions.items() if each in result}
        facts = {**manifest, **segment_facts(result), "deletions": places}
        built = [each[ANN] for each in written.values() if ANN in each]
        if built:
            facts[ANN] = built[0]
        return {**facts, **_counts(folder, facts)}


def mark_deleted(
    folder: Path, manifest: Manifest, positions_D: npt.NDArray[np.int64], name: str
) -> dict[str, Any]:
    """Writes the deletions of some documents; returns what changes in the manifest.

    Args:
        folder: where the deletions of the manifest lie.
        manifest: the present one.
        positions_D: of live documents, without repetition.
        name: of the generation that is written.
    """
    segments, lives = segments_of(manifest), lives_of(folder, manifest)
    places = dict(manifest.get("deletions", {}))
    remove(folder / "deletions" / name)
    base = live_total = 0
    for number, (segment, facts) in enumerate(segments.items()):
        live, size = lives[number], int(facts["documents"])
        own = positions_D[(positions_D >= base) & (positions_D < base + size)] - base
        if len(own):
            live = (Bits.full(size) if live is None else live).without(own)
            places[segment] = f"deletions/{name}/{number:05d}"
            write_live(folder / places[segment], live)
        base += size
        live_total += size if live is None else live.count
    return {
        **segment_facts(segments),
        "documents": live_total,
        "deleted": base - live_total,
        "deletions": places,
    }


def merge_into(segments: int) -> Plan:
    """Returns the plan for so many segments; a folder that has as many is only purged."""

    def plan(live: list[int], documents: list[int]) -> Runs:
        if segments > sum(live):
            raise ConfigError(
                f"segments = {segments}: there are {count(sum(live), 'document')}; expected at "
                "most as many segments"
            )
        return merge_runs(live, documents, segments)

    return plan


def merge_tail(live: list[int], documents: list[int]) -> Runs:
    """Returns the plan of what an append merges."""
    return tail_runs(live, live)


def planned_runs(folder: Path, manifest: Manifest, plan: Plan) -> Runs:
    """Returns what a merge of a folder would write anew."""
    documents = [int(facts["documents"]) for facts in segments_of(manifest).values()]
    lives = lives_of(folder, manifest)
    live = [n if bits is None else bits.count for n, bits in zip(documents, lives)]
    return plan(live, documents)


def _counts(folder: Path, manifest: Manifest) -> dict[str, int]:
    documents = [int(facts["documents"]) for facts in segments_of(manifest).values()]
    gone = [0 if bits is None else bits.size - bits.count for bits in lives_of(folder, manifest)]
    return {"documents": sum(documents) - sum(gone), "deleted": sum(gone)}


def _cuts(rows: int, parts: int) -> list[tuple[int, int]]:
    edges = [rows * number // parts for number in range(parts + 1)]
    return list(pairwise(edges))


def _write(
    folder: Path,
    part: Manifest,
    start: int,
    stop: int,
    target: Path,
    *,
    workers: int,
    cpus_per_worker: float,
) -> dict[str, Any]:
    """Writes rows of some segments as a new one, with its approximate index; returns its facts."""
    splits = [{"start": a, "stop": min(a + _ROWS, stop)} for a in range(start, stop, _ROWS)]
    stats = sharded_map(
        splits,
        partial(_make_worker, folder, part),
        target / SHARDS,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        label="merge",
        unit="document",
    )
    facts = {name: part[name] for name in FORM if name in part}
    facts |= {"shards": len(stats), "documents": stop - start}
    settings = part.get("config", {}).get(ANN, {"kind": "none"})
    if settings["kind"] != "none":
        from raydist.dense.ann import build_ann

        spec = AnnSpec(**settings)
        facts[ANN] = build_ann(
            target, facts, spec, workers=workers, cpus_per_worker=cpus_per_worker
        )
    return facts


def _make_worker(folder: Path, part: Manifest) -> Work:
    shards = VectorShards.map(folder, part)

    def work(split: Split, target: Path) -> Stats:
        start, stop = int(split["start"]), int(split["stop"])
        rescore = part.get("rescore_precision", "none")
        with VectorWriter(target, shards.dimension, shards.precision, rescore) as writer:
            for first in range(start, stop, _TOGETHER):
                rows = first, min(first + _TOGETHER, stop)
                writer.append_stored(*_joined(shards.stored(*rows)))
                if writer.fine is not None:
                    writer.fine.append_stored(*_joined(shards.finest.stored(*rows)))
        return {"documents": writer.rows}

    return work


def _joined(parts: Iterable[Stored]) -> Stored:
    ids, vectors, scales, columns = zip(*parts, strict=True)
    scale_n = None if scales[0] is None else np.concatenate(scales)
    joint = None if columns[0] is None else pa.concat_tables(columns)
    return Stored(pa.concat_arrays(ids), np.concatenate(vectors), scale_n, joint)


VECTORS = Segmented(LAYOUT, VectorShards.map, _write)
"""Folders of one vector a document."""
