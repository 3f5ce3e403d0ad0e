"""Publishing an output: written to a local folder first, then put as one generation.

    lease ─► local folder with the present generation ─► the verb ─► objects ─► manifest ─► sweep

The manifest is put under the condition that the one which the writer began from is still there, or
that there still is none. Until then readers have the old generation, whose objects have other
names; afterwards what no manifest names is removed. A reader that is copying the old generation
just then finds an object missing and goes over to the new one (`copies.py`), so nothing is kept for
its sake: what was deleted is gone from the bucket when the command ends.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from raydist import locks, log, on_demand
from raydist.errors import DataError, JobError, RaydistError
from raydist.locks import Holder
from raydist.stores import copies, nodes
from raydist.stores.generation import (
    MANIFESTS,
    Generation,
    digest,
    is_record,
    planned_names,
    read_generation,
    record,
    record_name,
)
from raydist.stores.lease import Lease
from raydist.stores.objects import ChangedError, Entry, Objects

_TRIES = 20


@contextlib.contextmanager
def staged(uri: str, wait: float, later: Sequence[str] = ()) -> Iterator[Path]:
    """Gives a local path for the output at a URI, and publishes what the block leaves there.

    The folder holds the present generation, or what an interrupted command over the same one left.

    Args:
        uri: of a folder or a file.
        wait: seconds to wait for another writer.
        later: patterns of files of the present generation that are fetched `on_demand`, JSON apart.

    Raises:
        JobError: another process writes, or has published meanwhile; the store does not answer.
    """
    head, name = uri.rstrip("/").rsplit("/", 1)
    if head.endswith(":/"):  # a whole bucket: it has nothing beside it
        head, name = uri.rstrip("/"), ""
    place = copies.staging_folder() / copies.key(uri)
    local = place / (name or posixpath.basename(head))
    with locks.writer(place, wait), Lease(Objects(head), name or "bucket", wait) as lease:
        writer = _Publication(Objects(uri), local, place / "base.json", lease)
        writer.prepare(later)
        nodes.remember(place, uri)
        log.stands_for(local, uri)
        try:
            with on_demand.serving(local, writer.absent, writer):
                yield local
        except RaydistError as error:
            # A mistake: an output that is there already stays as it is, and nothing continues.
            if error.exit_code == 2 and (writer.base is not None or not local.exists()):
                shutil.rmtree(place, ignore_errors=True)
            raise
        writer.publish()
        for beside in sorted(place.glob(f"{local.name}.*")):  # what a file is described by
            target = Objects(f"{head}/{beside.name}")
            _Publication(target, beside, place / "none", lease, read_generation(target)).publish()
        nodes.remove_areas(uri)
        shutil.rmtree(place, ignore_errors=True)


@dataclass
class _Publication:
    """An output on its way.

    Attributes:
        objects: where it goes.
        local: where it is written.
        note: the file that says which generation `local` came from.
        lease: held.
        base: the generation that the command began from.
        absent: names of its files that are not in the local folder.
    """

    objects: Objects
    local: Path
    note: Path
    lease: Lease
    base: Generation | None = None
    absent: set[str] = field(default_factory=set)

    def prepare(self, later: Sequence[str] = ()) -> None:
        """Makes the local folder hold the present generation, or keeps work over the same one.

        Args:
            later: patterns of the files that may be absent, JSON apart; their folders are there.
        """
        for _ in range(_TRIES):
            with contextlib.suppress(ChangedError):
                self.base = read_generation(self.objects)
                if self._can_continue():
                    names = (self._note() or {}).get("absent", ())
                    self.absent |= {n for n in names if not (self.local / n).exists()}
                    self.fetch([name for name in self.absent if not _matches(name, later)])
                    self.absent -= {name for name in self.absent if not _matches(name, later)}
                    return
                shutil.rmtree(self.note.parent, ignore_errors=True)
                self.local.parent.mkdir(parents=True, exist_ok=True)
                if self.base is not None:
                    self.absent = copies.fetch(
                        self.objects,
                        self.base,
                        self.local,
                        copies.present(self.objects.uri),
                        lambda name: _matches(name, later),
                    )
                    for name in self.absent:
                        (self.local / name).parent.mkdir(parents=True, exist_ok=True)
                self._remember()
                return
        raise DataError(f"{self.objects.uri}: objects of its manifest are missing")

    def fetch(self, names: Sequence[str]) -> None:
        """Puts absent files into the local folder; see `on_demand.Source`."""
        with self._unchanged():
            entries = self._base_entries()
            copies.download(self.objects, {name: entries[name] for name in names}, self.local)

    def read(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Returns parts of an absent file."""
        with self._unchanged():
            return self.objects.read_parts(name, spans, self._base_entries()[name])

    @contextlib.contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Raises JobError where the present generation was replaced, lease or not."""
        try:
            yield
        except ChangedError:
            current = read_generation(self.objects)
            raise JobError(_lost(self.objects.uri, self.base, current)) from None

    def publish(self) -> None:
        """Puts what is new, then the manifest; removes what no manifest names any more."""
        self.lease.check()
        if self.local.is_file():
            head, name = self.objects.uri.rsplit("/", 1)
            Objects(head).upload({name: self.local}, self.lease.check)
            return
        paths = {p.relative_to(self.local).as_posix(): p for p in _files(self.local)}
        manifest = next((name for name in MANIFESTS if name in paths), None)
        if manifest is None:
            self.objects.upload(paths, self.lease.check)
            return
        data = paths.pop(manifest).read_bytes()
        if self.base is not None and data == self.base.data:
            return
        # A folder that the verb removed took its absent files along.
        paths |= {n: self.local / n for n in self.absent if (self.local / n).parent.is_dir()}
        files = self._put_files(paths, data)
        before = set(self.objects.names())
        self._put_manifest(manifest, data)
        self._sweep({*files, manifest, record_name(data)}, before)

    def _put_files(self, paths: dict[str, Path], manifest: bytes) -> dict[str, Entry]:
        base, note = self._base_entries(), self._note() or {"times": {}, "absent": []}
        # What was absent is fetched or not, never changed.
        same = {name: base[name] for name in {*note["absent"]} & {*paths}}
        same |= {
            name: base[name]
            for name, path in paths.items()
            if name not in same and _is_same(path, base.get(name), note["times"].get(name))
        }
        new = {name: path for name, path in paths.items() if name not in same}
        name = record_name(manifest)
        self.objects.write(name, record({**same, **dict.fromkeys(new)}, Holder.here()))
        files = {**same, **self.objects.upload(new, self.lease.check)}
        self.objects.write(name, record(files, Holder.here()))
        return files

    def _put_manifest(self, name: str, data: bytes) -> None:
        self.lease.check()
        base = self.base
        try:
            if base is not None and base.manifest != name:
                raise ChangedError(f"{self.objects.uri}/{name}")
            self.objects.replace(name, data, base.entry if base else None)
        except ChangedError:
            current = read_generation(self.objects)
            if current is not None and current.data == data:
                return  # ours: the store's answer was lost and the request repeated
            shutil.rmtree(self.note.parent, ignore_errors=True)
            raise JobError(_lost(self.objects.uri, base, current)) from None

    def _sweep(self, names: set[str], before: set[str]) -> None:
        """Removes what earlier generations and crashed writers left, and nothing of anybody else.

        Args:
            names: what the new generation is made of.
            before: what the folder held before the manifest was put. Whoever put a record of files
                by then began from an older manifest and cannot publish any more.
        """
        records = {name for name in before if is_record(name)} - names
        stale = set(self._base_entries())
        for each in records:
            stale |= planned_names(self.objects, each)
        self.objects.delete(sorted((stale & before) - names))
        self.objects.delete(sorted(records))

    def _can_continue(self) -> bool:
        """Whether the local folder is work over the present generation, nothing refused."""
        if not self.local.exists():
            return False
        note = self._note()
        if note is None or note["base"] != (self.base.digest if self.base else None):
            return False
        # A manifest that was not published, of an output that others may change meanwhile.
        return self.base is None or all(
            digest((self.local / name).read_bytes()) == self.base.digest
            for name in MANIFESTS[:1]
            if (self.local / name).is_file()
        )

    def _remember(self) -> None:
        base = self.base
        present = [name for name in self._base_entries() if name not in self.absent]
        times = {name: (self.local / name).stat().st_mtime_ns for name in present}
        note: dict[str, Any] = {"base": base.digest if base else None, "times": times}
        note["absent"] = sorted(self.absent)
        self.note.write_text(json.dumps(note), encoding="utf-8")

    def _note(self) -> dict[str, Any] | None:
        try:
            note: dict[str, Any] = json.loads(self.note.read_text(encoding="utf-8"))
            return note if {"base", "times", "absent"} <= note.keys() else None
        except (OSError, ValueError):
            return None

    def _base_entries(self) -> dict[str, Entry]:
        return self.base.files if self.base else {}


def _is_same(path: Path, entry: Entry | None, changed: int | None) -> bool:
    """Whether a file is still the one that came from the store, changed then."""
    status = path.stat()
    return entry is not None and (status.st_size, status.st_mtime_ns) == (entry.size, changed)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not name.endswith(".json") and any(fnmatch(name, pattern) for pattern in patterns)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _lost(uri: str, base: Generation | None, current: Generation | None) -> str:
    """Returns what to tell a writer whose manifest was refused."""
    if current is None:
        return f"{uri}: was removed while this command ran; nothing of it was published"
    change = "was built" if base is None else "was changed"
    who = f" by {current.writer}" if current.writer else ""
    before, after = (_documents(each) for each in (base, current))
    counts = f" (documents: {before} -> {after})" if after else ""
    return (
        f"{uri}: {change}{who} while this command ran{counts}; nothing of this command was "
        "published, and nothing of the other's was lost; run it again"
    )


def _documents(generation: Generation | None) -> str:
    if generation is None:
        return "none"
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return f"{json.loads(generation.data)['documents']:,}"
    return ""
