"""Adds documents to an index: they become a further segment, and the statistics grow.

A search over the segments uses the statistics of all of them, so its rankings and scores are those
of an index of all documents built at once. Until the manifest is replaced, it is the old index.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raydist import locks
from raydist.bow.build.create import build_index, check_duplicates
from raydist.bow.build.generation import next_name, publish, side_folder
from raydist.bow.build.splits import Read
from raydist.bow.index import KIND, BowIndex
from raydist.bow.spec import IndexSpec
from raydist.data.store.reader import join
from raydist.disk import disk_errors, remove
from raydist.errors import ConfigError
from raydist.fingerprints import value_fingerprint
from raydist.kernels.bits import Bits
from raydist.manifest import differences, read_manifest
from raydist.shard_files import Split

_SUMS = ("documents", "empty", "rejected", "terms", "postings", "tokens", "bytes")


def append_to_index(
    splits: Sequence[Split],
    read: Read,
    folder: Path,
    spec: IndexSpec,
    *,
    inputs: Mapping[str, str],
) -> dict[str, Any] | None:
    """Adds the documents of `splits`; returns the facts of the new manifest.

    Returns None if these inputs were appended before.

    Args:
        splits: as for `build_index`.
        read: as for `build_index`.
        folder: a complete index; an interrupted append of these inputs is continued.
        spec: what decides the result as for the index; an id that it already has is a duplicate.
        inputs: fingerprints of the inputs by name.

    Raises:
        ArtifactError: no complete index.
        ConfigError: the index was built with other spec.
        DataError: as for `build_index`.
    """
    key = value_fingerprint([dict(inputs), spec.max_docs])
    with locks.writer(folder):
        manifest = read_manifest(folder, [KIND])
        _check_settings(manifest, spec, folder)
        if key in manifest.get("appended", {}):
            return None
        side, name = side_folder(folder, key), next_name(manifest, key)
        with disk_errors(folder):
            side.mkdir(exist_ok=True)
        facts = build_index(splits, read, side, spec, name=name)
        with disk_errors(folder):
            joined = _join(folder, manifest, side, facts, name, spec.duplicates)
            target = folder / "segments" / name
            remove(target)
            os.rename(side / "segments" / name, target)
            for each in _SUMS:
                manifest[each] += facts[each]
            manifest |= joined
            manifest["text_bytes"] += facts["text_bytes"]
            manifest["segments"] += facts["segments"]
            appended = {"inputs": dict(inputs), "segments": facts["segments"]}
            manifest["appended"] = {**manifest.get("appended", {}), key: appended}
            publish(folder, manifest)
    of_this = ("seconds", "cpu_seconds", "text_bytes")
    return {**manifest, **{name: facts[name] for name in of_this}}


def _check_settings(manifest: Mapping[str, Any], spec: IndexSpec, folder: Path) -> None:
    built = {
        "analyzer": manifest["analyzer"],
        "compress": manifest["config"]["compress"],
        "block_size": manifest["config"]["block_size"],
        "store": bool(manifest["store"]),
    }
    wanted = {
        "analyzer": spec.analyzer.build().to_dict(),
        "compress": spec.compress,
        "block_size": spec.block_size,
        "store": spec.store,
    }
    changed = differences(built, wanted)
    if changed:
        lines = "\n  ".join(changed)
        raise ConfigError(
            f"{folder} was built with other settings; append with the same ones (there -> now):\n"
            f"  {lines}"
        )


def _join(
    folder: Path,
    manifest: Mapping[str, Any],
    side: Path,
    facts: Mapping[str, Any],
    name: str,
    duplicates: str,
) -> dict[str, Any]:
    """Joins the stores, or only the ids; returns what the manifest says of all documents."""
    index = BowIndex.open(folder)
    new = BowIndex.of(side, facts)
    ids = new.doc_ids
    positions = index.find(ids)
    again = np.flatnonzero(positions >= 0)
    examples = [(ids[int(i)].as_py(), int(positions[i]), index.end + int(i)) for i in again[:1]]
    check_duplicates({"duplicates": len(again), "examples": examples}, duplicates)
    joined: dict[str, Any] = {"duplicates": manifest["duplicates"] + len(again)}
    if index.store is not None and new.store is not None:
        piece, store = folder / f"store-{name}", folder / f"joined-{name}"
        remove(piece)
        remove(store)
        os.rename(side / "store", piece)
        pieces = [each.folder.name for each in index.store.pieces]
        live = index.store.live
        if live is not None:
            live = Bits.of(np.append(live.flags, np.ones(len(new.store), np.bool_)))
        join(store, [*pieces, piece.name], live)
        joined |= {"store": store.name}
        joined |= {"store_bytes": manifest["store_bytes"] + facts["store_bytes"]}
    return joined
