"""Adds documents to an index: they become a further segment, and the statistics grow.

A search over the segments uses the statistics of all of them, so its rankings and scores are those
of an index that was built anew. Until the manifest is replaced, the index is the old one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydist.bow.build.create import build_index, check_duplicates, clean
from raydist.bow.format.segment import Segment
from raydist.bow.build.splits import Options, Read
from raydist.data.store import idhash
from raydist.data.store.build import concatenate
from raydist.disk import disk_errors, write_json
from raydist.errors import ConfigError, DataError
from raydist.fingerprints import value_fingerprint
from raydist.manifest import MANIFEST, differences, read_manifest
from raydist.shard_files import Split

_SUMS = ("documents", "empty", "rejected", "duplicates", "terms", "postings", "tokens", "bytes")


def append_to_index(
    splits: Sequence[Split],
    read: Read,
    folder: Path,
    options: Options,
    *,
    inputs: Mapping[str, str],
    max_docs: int = 0,
    duplicates: str = "error",
    workers: int = 0,
    cpus_per_worker: float = 1.0,
) -> dict[str, Any] | None:
    """Adds the documents of `splits`; returns the facts of the new manifest.

    Returns None if these inputs were appended before.

    Args:
        splits: as for `build_index`.
        read: as for `build_index`.
        folder: a complete index; what an interrupted append left there is gone on with.
        options: they must be those of the index.
        inputs: fingerprints of the inputs by name.
        max_docs: as for `build_index`.
        duplicates: as for `build_index`; also an id that the index has already.
        workers: as for `build_index`.
        cpus_per_worker: as for `build_index`.

    Raises:
        ArtifactError: there is no complete index.
        ConfigError: the index was built with other options.
        DataError: as for `build_index`.
    """
    manifest = read_manifest(folder, ["bow-index"])
    _same_options(manifest, options, folder)
    key = value_fingerprint([dict(inputs), max_docs])
    if key in manifest.get("appended", {}):
        return None
    side = folder / f".append-{key}"
    number = 1 + max(int(Path(name).parts[1]) for name in manifest["segments"])
    with disk_errors(folder):
        side.mkdir(exist_ok=True)
    facts = build_index(
        splits,
        read,
        side,
        options,
        max_docs=max_docs,
        duplicates=duplicates,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        name=f"{number:05d}",
    )
    with disk_errors(folder):
        new_store = f"store-{number:05d}"
        found = _join(folder, manifest, side, facts, new_store)
        try:
            check_duplicates(found, duplicates)
        except DataError:
            shutil.rmtree(folder / new_store, ignore_errors=True)
            raise
        target = folder / "segments" / f"{number:05d}"
        shutil.rmtree(target, ignore_errors=True)
        os.rename(side / "segments" / f"{number:05d}", target)
        for name in _SUMS:
            manifest[name] += facts[name]
        manifest["duplicates"] = found["duplicates"]
        manifest["text_bytes"] += facts["text_bytes"]
        manifest["segments"] += facts["segments"]
        old_store = manifest["store"]
        if old_store:
            manifest |= {"store": new_store, "store_bytes": found["store_bytes"]}
        appended = {"inputs": dict(inputs), "segments": facts["segments"]}
        manifest["appended"] = {**manifest.get("appended", {}), key: appended}
        write_json(folder / MANIFEST, {**manifest, "check": value_fingerprint(manifest)})
        if old_store:
            shutil.rmtree(folder / old_store, ignore_errors=True)
        clean(folder)
    of_this = ("seconds", "cpu_seconds", "text_bytes")
    return {**manifest, **{name: facts[name] for name in of_this}}


def _same_options(manifest: Mapping[str, Any], options: Options, folder: Path) -> None:
    there = {
        "analyzer": manifest["analyzer"],
        "compress": manifest["config"]["compress"],
        "block_size": manifest["config"]["block_size"],
        "store": bool(manifest["store"]),
    }
    here = {
        "analyzer": options.analyzer.to_dict(),
        "compress": options.compress,
        "block_size": options.block_size,
        "store": options.store,
    }
    changed = differences(there, here)
    if changed:
        shown = "\n  ".join(changed)
        raise ConfigError(
            f"{folder} was built with other settings; append with the same ones (there -> now):\n"
            f"  {shown}"
        )


def _join(
    folder: Path, manifest: Mapping[str, Any], side: Path, facts: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """Joins the stores, or only the ids; returns what was found about all documents."""
    if manifest["store"]:
        shutil.rmtree(folder / name, ignore_errors=True)
        joined = concatenate([folder / manifest["store"], side / "store"], folder / name)
        return {**joined, "store_bytes": joined["bytes"]}
    places = [folder / each for each in manifest["segments"]]
    places += [side / each for each in facts["segments"]]
    columns = [Segment.open(place).doc_ids.cast(pa.large_string()) for place in places]
    found = idhash.find_duplicates(pa.chunked_array(columns, pa.large_string()))
    return {"duplicates": found.count, "examples": [list(each) for each in found.examples]}
