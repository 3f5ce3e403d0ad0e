"""Generations of an output that grows: what a manifest names never changes.

A writer adds folders under new names, which are never used again, then puts the manifest in place,
then removes what no manifest names. Until the manifest is replaced the output is the old one, and
whoever has opened it keeps it: readers map all files when they open them.

    segments/00000, segments/00001-3f…   documents, in order
    deletions/00002-9a…/00000            which documents of a segment are deleted
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist import locks
from raydist.checks import Report
from raydist.data.store.idhash import hash_ids
from raydist.disk import disk_errors, remove, sync, sync_folder
from raydist.errors import ConfigError
from raydist.fingerprints import value_fingerprint
from raydist.log import count
from raydist.manifest import read_manifest, write_manifest

WORK = ".work"
"""Where a build keeps its shards until it is complete."""

MANY = 10
"""An append merges some of the segments where there are more than these."""

LARGEST = 10_000_000
"""An append leaves segments of more documents alone."""

_SIDE = ".append-"

Manifest = Mapping[str, Any]
Runs = tuple[tuple[int, int, int], ...]
"""Consecutive segments to write anew: the first, the end, and how many they become."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the generations of a kind of output are made of.

    Attributes:
        kind: in the manifest.
        places: globs of the folders that manifests may name.
        named: returns the folders that a manifest names.
    """

    kind: str
    places: tuple[str, ...]
    named: Callable[[Path, Manifest], set[Path]]

    def publish(self, folder: Path, manifest: Manifest) -> None:
        """Makes a generation the output, once all that its manifest names is on the disk."""
        new = self.named(folder, manifest) - self.named(folder, read_manifest(folder))
        for path in sorted(new):
            sync(path)
        for parent in {folder, *(each.parent for each in new), *(each.parents[1] for each in new)}:
            sync_folder(parent)
        write_manifest(folder, manifest)
        self.clean(folder)

    def clean(self, folder: Path) -> None:
        """Removes what the manifest does not name: old generations, what crashed writers left."""
        for path in list(self._unnamed(folder, read_manifest(folder))):
            locks.remove_unread(path)
        for path in _unfinished(folder):  # the lock is held: of a writer that was killed
            remove(path)

    def leftovers(self, folder: Path) -> list[Path]:
        """Returns what `clean` would remove, unless somebody reads it."""
        return [*self._unnamed(folder, read_manifest(folder)), *_unfinished(folder)]

    def report_pending(self, folder: Path, deleted: int, report: Report) -> None:
        """Reports what a merge would remove: deleted documents, and what other commands left."""
        if deleted:
            what = count(deleted, "deleted document")
            report.pending.append(f"raydist merge out={folder} removes {what}")
        if left := self.leftovers(folder):
            report.pending.append(
                f"{count(len(left), 'leftover')} of other commands, the first: {left[0].name}: the "
                f"next writer removes what nobody reads, or raydist merge out={folder}"
            )

    def _unnamed(self, folder: Path, manifest: Manifest) -> Iterator[Path]:
        named = self.named(folder, manifest)
        parents = {path.parent for path in named}
        for top in (path for place in self.places for path in folder.glob(place)):
            if top in parents:  # a folder of several
                yield from (path for path in top.glob("*") if path not in named)
            elif top not in named and top.is_dir():
                yield top

    def append(
        self,
        folder: Path,
        key: Sequence[Any],
        build: Callable[[Manifest, Path, str], dict[str, Any]],
        join: Callable[[Manifest, Path, dict[str, Any], str], dict[str, Any]],
        *,
        inputs: Mapping[str, str],
        duplicates: str,
        work: Sequence[Any] = (),
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Adds documents; returns the new manifest and the facts of what was added.

        Returns None if the same were appended before, and the same again would change nothing.

        Args:
            folder: a complete output; an interrupted append of the same documents is continued.
            key: what decides which documents are added.
            build: writes them beside the output, called with the manifest, a folder and the
                segment's name; returns facts, `segments` among them.
            join: puts what was built into the output, called with the manifest, that folder, the
                facts and the name; returns what changes in the manifest.
            inputs: fingerprints of the inputs by name.
            duplicates: what becomes of ids that are there already.
            work: how it is done: an interrupted append is continued where that is the same too.
        """
        way = {"error": [], "last": ["last"]}.get(duplicates, ["first"])  # warn is first
        fingerprint = value_fingerprint([*key, *way])
        with locks.writer(folder):
            manifest = read_manifest(folder, [self.kind])
            # What was appended later may have replaced some of these documents.
            latest = duplicates != "last" or manifest.get("latest") == fingerprint
            if latest and fingerprint in manifest.get("appended", {}):
                return None
            name = next_name(manifest, fingerprint)
            side = folder / f"{_SIDE}{value_fingerprint([fingerprint, *work])[:16]}"
            with disk_errors(folder):
                side.mkdir(exist_ok=True)
            try:
                added = build(manifest, side, name)
            except ConfigError:  # before any work
                remove(side)
                raise
            with disk_errors(folder):
                manifest |= join(manifest, side, added, name)
                appended = {"inputs": dict(inputs), "segments": added["segments"]}
                manifest["appended"] = {**manifest.get("appended", {}), fingerprint: appended}
                manifest["latest"] = fingerprint
                self.publish(folder, manifest)
        return manifest, added

    def delete(
        self, folder: Path, ids: pa.Array, mark: Callable[[Manifest, str], dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Deletes documents; returns the new manifest.

        Returns None if the output's latest change was to delete the same ones.

        Args:
            folder: a complete output.
            ids: of the documents, each once.
            mark: writes the deletions, called with the manifest and the generation's name; returns
                what changes in the manifest.
        """
        with locks.writer(folder):
            manifest = read_manifest(folder, [self.kind])
            key = hashlib.blake2b(np.sort(hash_ids(ids)).data).hexdigest()
            if manifest.get("latest") == key:
                return None
            name = next_name(manifest, key)
            with disk_errors(folder):
                manifest |= mark(manifest, name)
                manifest.pop("appended", None)  # what was deleted may be appended again
                manifest["latest"] = key
                self.publish(folder, manifest)
        return manifest


def next_name(manifest: Manifest, key: str) -> str:
    """Returns the name of the next generation's folders.

    Two writers that began from one generation, on two machines, have different names unless they do
    the same, and so has whoever comes after a writer that crashed.

    Args:
        manifest: of the present generation.
        key: what the writer is about to do.
    """
    base = [manifest.get(name) for name in ("segments", "store", "inputs", "deletions")]
    number = 1 + max(map(_number, manifest.get("segments", ())), default=0)
    return f"{number:05d}-{value_fingerprint([base, key])[:8]}"


def _number(segment: str) -> int:
    parts = Path(segment).parts
    return int(parts[1].split("-")[0]) if len(parts) > 1 else 0


def _unfinished(folder: Path) -> list[Path]:
    work = folder / WORK
    return [*([work] if work.exists() else []), *folder.glob(f"{_SIDE}*"), *folder.glob(".*.part")]


def purge_runs(live: Sequence[int], documents: Sequence[int]) -> Runs:
    """Returns the segments of which documents are deleted, each by itself.

    Args:
        live: documents of each segment that are not deleted.
        documents: of each segment.
    """
    pairs = enumerate(zip(live, documents))
    return tuple((number, number + 1, int(a > 0)) for number, (a, b) in pairs if a < b)


def merge_runs(live: Sequence[int], documents: Sequence[int], segments: int) -> Runs:
    """Returns what makes so many segments; where there are as many they are only purged."""
    if segments == sum(1 for each in live if each):
        return purge_runs(live, documents)
    return ((0, len(live), segments),)


def tail_runs(live: Sequence[int], sizes: Sequence[int]) -> Runs:
    """Returns the last segments that an append merges into one.

    Args:
        live: documents of each segment that are not deleted.
        sizes: of each segment, whatever counts.
    """
    first = tail(sizes)
    while first < len(live) and sum(live[first:]) > LARGEST:
        first += 1
    some = any(live[first:])
    return ((first, len(live), int(some)),) if first < len(live) - 1 else ()


def tail(sizes: Sequence[int]) -> int:
    """Returns where what is to be merged begins; the number of sizes if nothing is to be.

    Where there are more than MANY, it begins with the first that is no larger than all behind it
    together. So each is larger than all behind it, there are hardly more than the logarithm of
    their sizes, and a document is written about as often.
    """
    behind = sum(sizes)
    for number, size in enumerate(sizes) if len(sizes) > MANY else ():
        behind -= size
        if size <= behind:
            return number
    return len(sizes)
