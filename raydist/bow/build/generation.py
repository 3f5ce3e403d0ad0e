"""Generations of an index: what a manifest names never changes, and its names are never used again.

A writer adds segments, deletions and stores under new names, then puts the manifest in place, then
removes what no manifest names. Until the manifest is replaced the index is the old one, and whoever
has opened it keeps it (`BowIndex.open` maps all files).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raydist.data.store.reader import piece_names
from raydist.disk import remove, sync, sync_folder
from raydist.fingerprints import value_fingerprint
from raydist.locks import remove_unread
from raydist.manifest import read_manifest, write_manifest

WORK = ".work"
"""Where a build keeps its shards until it is complete."""

_SIDE = ".append-"


def side_folder(folder: Path, key: str) -> Path:
    """Returns where the documents that are added are built; a restart continues there."""
    return folder / f"{_SIDE}{key}"


def next_name(manifest: Mapping[str, Any], key: str) -> str:
    """Returns the name of the next generation's segment and store.

    Two writers that began from one generation, on two machines, have different names unless they do
    the same, and so has whoever comes after a writer that crashed.

    Args:
        manifest: of the present generation.
        key: what the writer is about to do.
    """
    base = [manifest.get(name) for name in ("segments", "store", "inputs", "deletions")]
    number = 1 + max(int(_segment(name).split("-")[0]) for name in manifest["segments"])
    return f"{number:05d}-{value_fingerprint([base, key])[:8]}"


def publish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Makes a generation the index, once all that its manifest names is on the disk."""
    new = _named(folder, manifest) - _named(folder, read_manifest(folder))
    for path in sorted(new):
        sync(path)
    for parent in {folder, *(each.parent for each in new), *(each.parents[1] for each in new)}:
        sync_folder(parent)
    write_manifest(folder, manifest)
    clean(folder)


def clean(folder: Path) -> None:
    """Removes what the manifest does not name: old generations, and what crashed writers left."""
    for path in list(_unnamed(folder, read_manifest(folder))):
        remove_unread(path)
    for path in _unfinished(folder):  # the lock is held: of a writer that was killed
        remove(path)


def leftovers(folder: Path) -> list[Path]:
    """Returns what `clean` would remove, unless somebody reads it."""
    return [*_unnamed(folder, read_manifest(folder)), *_unfinished(folder)]


def _unfinished(folder: Path) -> list[Path]:
    work = folder / WORK
    return [*([work] if work.exists() else []), *folder.glob(f"{_SIDE}*"), *folder.glob(".*.part")]


def _named(folder: Path, manifest: Mapping[str, Any]) -> set[Path]:
    """Returns the folders that a manifest names."""
    names = {*manifest["segments"], *manifest.get("deletions", {}).values()}
    store = manifest.get("store")
    if store:
        names |= {store, *piece_names(folder / store)}
    return {folder / name for name in names}


def _unnamed(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Path]:
    named = _named(folder, manifest)
    parents = {path.parent for path in named}
    for top in (*folder.glob("segments/*"), *folder.glob("deletions/*")):
        if top in parents:  # a folder of several
            yield from (path for path in top.glob("*") if path not in named)
        elif top not in named:
            yield top
    stores = (*folder.glob("store*"), *folder.glob("joined-*"))
    yield from (path for path in stores if path not in named and path.is_dir())


def _segment(name: str) -> str:
    return Path(name).parts[1]
