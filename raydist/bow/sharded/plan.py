"""Which shard has which segments of an index, and the search of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from raydist import storage
from raydist.bow.format.files import header_of
from raydist.bow.index import KIND
from raydist.bow.sharded.search import ShardedSearch
from raydist.bow.sharded.shard import Part, Shard
from raydist.bow.spec import BowSearchSpec
from raydist.errors import ArtifactError, ConfigError
from raydist.log import Waiting, count
from raydist.manifest import read_manifest
from raydist.protocols import Group

Launch = Callable[[Sequence[Callable[[], Any]]], Group]
"""Makes the objects somewhere, each by its function, which may be called again."""

HEADERS = ["*/segment.json", "*/deletions.json"]
"""Patterns of the files that a plan needs."""


def open_shards(
    folder: str, spec: BowSearchSpec, shards: int, launch: Launch, *, texts: bool = False
) -> ShardedSearch:
    """Returns the search of an index by so many shards.

    Args:
        folder: the index, or its URI.
        spec: how it is searched; its feedback is the caller's.
        shards: how many; each has consecutive segments of about the same size together.
        launch: opens them.
        texts: whether they open the documents' texts, if the index has any.

    Raises:
        ConfigError: the index has fewer segments than that, or cannot be asked what `spec` asks.
        ArtifactError: it is no complete bag-of-words index.
    """
    while True:
        local = storage.local(folder, HEADERS)
        manifest = read_manifest(local, [KIND])
        try:
            return _opened(folder, local, manifest, spec, shards, launch, texts)
        except ArtifactError:
            if read_manifest(storage.local(folder, HEADERS), [KIND]) == manifest:
                raise


def check(folder: str, manifest: Mapping[str, Any], spec: BowSearchSpec, shards: int) -> None:
    """Raises ConfigError where an index cannot be searched by so many shards."""
    segments = len(manifest["segments"])
    if segments < shards:
        has = count(segments, "segment")
        raise ConfigError(
            f"shards = {shards}: {folder} has {has}, and each shard takes one or more; "
            f"raydist merge {folder} segments={shards} cuts it"
        )
    if spec.effort < 1:
        raise ConfigError(
            "shards: with effort below 1 the documents that are missed would depend on the shards; "
            "leave one of them out"
        )


def _opened(
    folder: str,
    local: Path,
    manifest: Mapping[str, Any],
    spec: BowSearchSpec,
    shards: int,
    launch: Launch,
    texts: bool,
) -> ShardedSearch:
    check(folder, manifest, spec, shards)  # the generation may be another by now
    names = manifest["segments"]
    headers = [header_of(local / name) for name in names]
    sizes = [sum(file["bytes"] for file in header["files"].values()) for header in headers]
    starts = list(accumulate((header["documents"] for header in headers), initial=0))
    lives = list(accumulate(_live_documents(local, manifest, headers), initial=0))
    makers = [
        partial(
            Shard,
            Part(folder, manifest, tuple(names[a:z])),
            starts[a],
            spec,
            range(lives[a], lives[z]) if texts else None,
        )
        for a, z in pairwise(cuts(sizes, shards))
    ]
    group = launch(makers)
    with Waiting(f"opening {count(shards, 'shard')} of {folder}"):
        facts = group.ask("facts", [()] * shards)
    if spec.feedback is not None and not all(each.has_vectors for each in facts):
        where = " on an object store" if storage.is_remote(folder) else ""
        raise ConfigError(
            f"shards: feedback{where} takes documents' terms from the forward index, and {folder} "
            "has none; build it with forward=true, or leave shards out"
        )
    return ShardedSearch(group, facts, local, manifest, spec)


def _live_documents(
    local: Path, manifest: Mapping[str, Any], headers: Sequence[Mapping[str, Any]]
) -> list[int]:
    """Returns how many documents of each segment are not deleted."""
    deletions = manifest.get("deletions", {})
    return [
        header["documents"]
        - (header_of(local / deletions[name], "deletions")["documents"] if name in deletions else 0)
        for name, header in zip(manifest["segments"], headers)
    ]


def cuts(sizes: Sequence[int], parts: int) -> list[int]:
    """Returns where consecutive things of some sizes are cut into parts of about the same size.

    Each part has one or more of them.
    """
    ends = list(accumulate(sizes))
    places = [0]
    for number in range(1, parts):
        first, last = places[-1] + 1, len(sizes) - (parts - number)
        goal = ends[-1] * number / parts
        places.append(min(range(first, last + 1), key=lambda place: abs(ends[place - 1] - goal)))
    return [*places, len(sizes)]
