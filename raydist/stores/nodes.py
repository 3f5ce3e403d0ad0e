"""An area of the object store through which the nodes of a cluster work without a shared disk.

The driver writes an output that goes to an object store to a folder of its own cache. Workers on
other nodes do not see it. So each worker puts its shards, the done marker last, into the area
`.NAME.work/` beside the output, by their names below the driver's folder; the driver copies them,
and so do nodes that need them later. What the driver has on its disk is also there: a restart, on
another machine too, continues from the markers. The area is removed once the output is published.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from raydist.disk import atomic, remove
from raydist.fingerprints import value_fingerprint
from raydist.stores import copies
from raydist.stores.objects import Entry, Objects

_WHERE = "where.json"  # beside a staged output: its URI
_JOB = ".job.json"
_UNUSED = 86400.0  # seconds after which a node's copies of an area are removed
_THREADS = 8


class Area(NamedTuple):
    """Where the nodes meet.

    Attributes:
        uri: of the area.
        root: the driver's folder, to which all names are relative.
        token: the name of a file in it that no other folder has.
    """

    uri: str
    root: Path
    token: str

    @classmethod
    def of(cls, folder: Path) -> Area | None:
        """Returns the area of a folder that is on its way to an object store, None for others."""
        staging = copies.staging_folder().absolute()
        path = folder.absolute()
        if staging not in path.parents:
            return None
        root = staging / path.relative_to(staging).parts[0]
        try:
            uri = json.loads((root / _WHERE).read_text(encoding="utf-8"))["uri"]
        except OSError:
            return None
        if uri.startswith("memory://"):  # of this process alone
            return None
        token = f".driver-{uuid.uuid4().hex}"
        (root / token).touch()
        return cls(f"{area_uri(uri)}/{_job(path, root)}", root, token)

    @property
    def here(self) -> Path:
        """The folder that stands for the driver's here: the same, if this node sees it."""
        if (self.root / self.token).exists():
            return self.root
        parent = copies.cache_folder() / "nodes"
        folder = parent / copies.key(self.uri)
        if not folder.is_dir():
            for old in parent.glob("*"):
                with contextlib.suppress(OSError):
                    if time.time() - old.stat().st_mtime > _UNUSED:
                        remove(old)
            folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        return folder

    def name(self, path: Path) -> str:
        """Returns the name of a path below `here`."""
        return path.absolute().relative_to(self.here).as_posix()

    def read(self, name: str) -> bytes | None:
        """Returns a small object."""
        data = Objects(self.uri).read(name)
        return None if data is None else data[0]

    def names(self, below: str = "") -> set[str]:
        """Returns the names of all objects below a name."""
        return set(Objects(self.uri).names(below))

    def put(self, *names: str) -> None:
        """Puts files and folders, each in turn."""
        objects, here = Objects(self.uri), self.here
        for name in names:
            path = here / name
            files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
            objects.upload({each.relative_to(here).as_posix(): each for each in files})

    def offer(self, names: Iterable[str]) -> None:
        """Puts files and folders of the driver that are not there yet."""
        known = self.names()
        known |= {parent.as_posix() for name in known for parent in Path(name).parents}
        self.put(*(name for name in names if name not in known and (self.root / name).exists()))

    def fetch(self, name: str) -> Path:
        """Returns the local path of what the driver offers, copied as far as it is missing."""
        here = self.here
        if here != self.root:
            with FileLock(here / ".fetch.lock"):
                objects = Objects(self.uri)
                entries = objects.names(name)
                if not entries and (entry := objects.head(name)) is not None:
                    entries = {name: entry}
                entries = {n: e for n, e in entries.items() if not (here / n).exists()}
                partial = {n: copies.partial_path(here / n) for n in entries}
                objects.download(entries, partial)
                for each, path in partial.items():
                    os.replace(path, here / each)
        return here / name

    def fetch_shards(self, folder: Path, numbers: Iterable[str]) -> None:
        """Copies shards of a folder, each before its done marker."""

        def fetch(number: str) -> None:
            for path in (folder / number, folder / f"{number}.done"):
                if not path.exists():
                    self.copy(path)

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(fetch, numbers))

    def copy(self, path: Path) -> None:
        """Copies a file or folder from the area, whole or not at all."""
        objects, name = Objects(self.uri), self.name(path)
        entries: dict[str, Entry] = objects.names(name)
        with atomic(path, replace=False) as partial:
            if entries:
                objects.download(entries, {n: partial / n[len(name) + 1 :] for n in entries})
                partial.mkdir(exist_ok=True)
            else:
                entry = objects.head(name)
                if entry is None:
                    raise FileNotFoundError(f"{self.uri}/{name}")
                objects.download({name: entry}, {name: partial})


def fetched(area: Area, name: str) -> Path:
    """Returns the path in this process of what the driver calls `name`."""
    return area.fetch(name)


def area_uri(uri: str) -> str:
    """Returns where the areas of an output lie."""
    head, name = uri.rstrip("/").rsplit("/", 1)
    return f"{uri.rstrip('/')}/.work" if head.endswith(":/") else f"{head}/.{name}.work"


def remember(place: Path, uri: str) -> None:
    """Notes in the folder of a staged output where it goes."""
    (place / _WHERE).write_text(json.dumps({"uri": uri}), encoding="utf-8")


def remove_areas(uri: str) -> None:
    """Removes all areas of an output: its writer has published, or begins anew."""
    objects = Objects(area_uri(uri))
    objects.delete(sorted(objects.names()))


def _job(path: Path, root: Path) -> str:
    """Returns what tells a job from others that write the same output."""
    for folder in path.parents:
        if (folder / _JOB).is_file():
            job = json.loads((folder / _JOB).read_text(encoding="utf-8"))
            return value_fingerprint([job.get(key) for key in ("kind", "config", "inputs")])
        if folder == root:
            break
    return "parts"
