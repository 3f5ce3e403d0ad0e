"""Generations of an index: what a manifest names never changes, and its names are never used again.

A writer adds segments and a store under new names, then puts the manifest in place, then removes
what no manifest names. Until the manifest is replaced the index is the old one, and whoever has
opened it keeps it (`BowIndex.open` maps all files).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raydist.disk import remove, sync
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
    base = [manifest[name] for name in ("segments", "store", "inputs")]
    number = 1 + max(int(_segment(name).split("-")[0]) for name in manifest["segments"])
    return f"{number:05d}-{value_fingerprint([base, key])[:8]}"


def publish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Makes a generation the index, once all that its manifest names is on the disk."""
    sync(folder / "segments")
    if manifest["store"]:
        sync(folder / manifest["store"])
    write_manifest(folder, manifest)
    clean(folder)


def clean(folder: Path) -> None:
    """Removes what the manifest does not name: old generations, and what crashed writers left."""
    for path in _unnamed(folder, read_manifest(folder)):
        remove_unread(path)
    # The lock is held: a partial file is that of a writer which was killed.
    for path in (folder / WORK, *folder.glob(f"{_SIDE}*"), *folder.glob(".*.part")):
        remove(path)


def _unnamed(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Path]:
    segments, store = set(manifest["segments"]), manifest.get("store")
    tops = {_segment(name) for name in segments}
    for top in (folder / "segments").glob("*"):
        if top.name not in tops:
            yield top
        elif f"segments/{top.name}" not in segments:  # a folder of unmerged ones
            yield from (p for p in top.glob("*") if f"segments/{top.name}/{p.name}" not in segments)
    yield from (path for path in folder.glob("store*") if path.name != store and path.is_dir())


def _segment(name: str) -> str:
    return Path(name).parts[1]
