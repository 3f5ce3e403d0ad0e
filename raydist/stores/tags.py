"""What object stores say of inputs: size, tag and version, by listings instead of file by file."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from raydist.errors import DataError
from raydist.stores.objects import Entry, Objects

_SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl")
_FEW = 16  # files that are requested one by one; more are listed, a thousand a request


def has_tags(uri: str) -> bool:
    """Returns whether a path names an object of a store that tags its objects."""
    return urlsplit(uri).scheme in _SCHEMES and "?" not in uri


def object_tags(uris: Sequence[str]) -> list[str]:
    """Returns size, tag and version of each object, as one text.

    Raises:
        DataError: there is no such object, or its store has no tag of it.
        JobError: the object store does not answer.
    """
    buckets = defaultdict(list)
    for uri in uris:
        buckets[urlsplit(uri)[:2]].append(uri)
    entries: dict[str, Entry | None] = {}
    for inside in buckets.values():
        entries |= _ask(inside) if len(inside) <= _FEW else _list(inside)
    tags = []
    for uri in uris:
        entry = entries.get(uri)
        if entry is None:
            raise DataError(f"{uri}: no such file")
        if not entry.tag:
            raise DataError(f"{uri}: its object store has no tag of it")
        tags.append(f"{entry.size} {entry.tag} {entry.version}")
    return tags


def _ask(uris: Sequence[str]) -> dict[str, Entry | None]:
    def ask(uri: str) -> Entry | None:
        folder, name = uri.rsplit("/", 1)
        return Objects(folder).head(name)

    with ThreadPoolExecutor(_FEW) as pool:
        return dict(zip(uris, pool.map(ask, uris)))


def _list(uris: Sequence[str]) -> dict[str, Entry | None]:
    folder = posixpath.commonpath([uri.split("//", 1)[1].rsplit("/", 1)[0] for uri in uris])
    root = f"{uris[0].split('//', 1)[0]}//{folder}"
    return {f"{root}/{name}": entry for name, entry in Objects(root).names().items()}
