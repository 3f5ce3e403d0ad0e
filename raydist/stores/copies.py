"""Local copies of remote outputs and files, one of each generation, in the cache.

Any number of processes of a machine that open one remote folder make one copy of it: the first
copies, the others wait. A copy appears only when it is complete, holds exactly one generation and
never changes; the next generation is another folder, which links what both have.

What was used least recently is removed where all copies together are larger than the limit, and a
copy that a newer one replaces some time later: not before `GRACE`, since a process that was given
its path may not have opened it yet. (One that has opened it has mapped it, and needs it no more.)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock, Timeout

from raydist import log
from raydist.disk import atomic, disk_errors, write_json
from raydist.errors import ArtifactError, ConfigError, DataError
from raydist.stores.generation import Generation, digest, read_generation
from raydist.stores.objects import ChangedError, Entry, Objects

GRACE = 3600.0
"""Seconds after its last use for which a copy is never removed."""

_LIMIT_GB = 200.0
_RECORD = ".files.json"  # of a copy, written last; its time says when the copy was last used
_TRIES = 20  # generations that may pass by while one copy is made


def cache_folder() -> Path:
    """Returns the folder of local copies, created if missing.

    Raises:
        ConfigError: it cannot be created.
    """
    folder = Path(os.environ.get("RAYDIST_CACHE") or Path.home() / ".cache" / "raydist")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"RAYDIST_CACHE = {folder}: cannot be created: {error}") from error
    return folder


def staging_folder() -> Path:
    """Returns the folder below which remote outputs are written before they are put."""
    return cache_folder() / "outputs"


def key(uri: str) -> str:
    """Returns the name of a URI's folder in the cache."""
    return hashlib.blake2b(uri.rstrip("/").encode(), digest_size=10).hexdigest()


def copy(uri: str, patterns: Sequence[str] | None = None) -> Path:
    """Returns the local copy of the present generation of a remote folder, or of a remote file.

    With `patterns` a folder has its manifest and the files that match one of them, alone.

    Raises:
        DataError: there is nothing, or it cannot be copied.
        ArtifactError: a folder without a manifest: it is not complete.
        JobError: the object store does not answer.
    """
    inputs = cache_folder() / "inputs"
    with disk_errors(inputs), _locked(inputs, key(uri), uri) as place:
        objects = Objects(uri)
        for _ in range(_TRIES):
            generation = read_generation(objects)
            with contextlib.suppress(ChangedError):
                if generation is None:
                    path = _copy_file(uri, place)
                else:
                    path = _copy_folder(objects, generation, place, patterns)
                break
        else:
            raise DataError(
                f"{uri}: objects that its manifest names are missing, or it keeps changing"
            )
    evict(inputs)
    log.stands_for(path, uri)
    return path


def fetch(
    objects: Objects,
    generation: Generation,
    folder: Path,
    copies: Mapping[Path, _Record],
    later: Callable[[str], bool] = lambda name: False,
) -> set[str]:
    """Puts the files of a generation into a local folder, the manifest last.

    Returns the names of those that were left out.

    Args:
        objects: where it lies.
        generation: which one.
        folder: what is there already, of the right size, is taken to be of this generation.
        copies: folders of other generations, whose files are linked where they are the same.
        later: whether a file is left out unless a copy has it.

    Raises:
        ChangedError: the generation was replaced, and something of it is gone.
    """
    missing = dict(generation.files)
    for other, record in copies.items():
        for name in [n for n, entry in missing.items() if record.files.get(n) == entry]:
            with contextlib.suppress(OSError):
                _link(other / name, folder / name)
                del missing[name]
    if not generation.listed:  # what a crash left half-done has other names
        for name in [n for n, entry in missing.items() if _size(folder / n) == entry.size]:
            del missing[name]
    left = {name for name in missing if later(name)} if not generation.listed else set()
    download(objects, {n: entry for n, entry in missing.items() if n not in left}, folder)
    if generation.listed:
        manifest = objects.head(generation.manifest)
        if manifest is None or manifest.tag != generation.entry.tag:
            raise ChangedError(objects.uri)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / generation.manifest) as partial:
        partial.write_bytes(generation.data)
    return left


def download(objects: Objects, entries: Mapping[str, Entry], folder: Path) -> None:
    """Puts files into a local folder, each whole or not at all."""
    targets = {name: partial_path(folder / name) for name in entries}
    objects.download(entries, targets)
    for name, target in targets.items():
        os.replace(target, folder / name)


def present(uri: str) -> dict[Path, _Record]:
    """Returns the copies of all generations of a remote folder that lie in the cache."""
    place = cache_folder() / "inputs" / key(uri)
    records = {each: _Record.of(each) for each in (place.iterdir() if place.is_dir() else ())}
    return {each / record.folder: record for each, record in records.items() if record is not None}


def held(uri: str, patterns: Sequence[str]) -> int:
    """Returns how many bytes of a remote folder's files that match a pattern are copied here."""

    def size(record: _Record) -> int:
        return sum(
            entry.size
            for name, entry in record.files.items()
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        )

    return max(map(size, present(uri).values()), default=0)


def _copy_folder(
    objects: Objects, generation: Generation, place: Path, patterns: Sequence[str] | None
) -> Path:
    parent = place / generation.digest
    if patterns is not None and _Record.of(parent) is None:
        chosen = {
            name: entry
            for name, entry in generation.files.items()
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        }
        generation = replace(generation, files=chosen)
        parent = place / f"{generation.digest}-{digest(json.dumps(sorted(chosen)).encode())}"
    target = parent / posixpath.basename(objects.uri)
    if _Record.of(parent) is None:
        if generation.listed:
            shutil.rmtree(parent, ignore_errors=True)
        fetch(objects, generation, target, present(objects.uri))
        _Record(generation.files, target.name).write(parent)
    else:
        os.utime(parent / _RECORD)
    return target


def _copy_file(uri: str, place: Path) -> Path:
    head, name = uri.rstrip("/").rsplit("/", 1)
    objects = Objects(head)
    entry = objects.head(name)
    if entry is None:
        if Objects(uri).names():
            raise ArtifactError(f"{uri}: no manifest.json: not complete, or not written by raydist")
        raise DataError(f"{uri}: no such file or folder")
    parent = place / digest(entry.tag.encode())
    if _Record.of(parent) is None:
        parent.mkdir(parents=True, exist_ok=True)
        with atomic(parent / name) as partial:
            objects.download({name: entry}, {name: partial})
        _Record({name: entry}, "").write(parent)
    else:
        os.utime(parent / _RECORD)
    return parent / name


def evict(inputs: Path) -> None:
    """Removes copies that newer ones replaced, and what is over the limit, oldest use first.

    `RAYDIST_CACHE_GB` is the limit. What was used within `GRACE` stays.
    """
    limit = _limit()
    now = time.time()
    copies = []
    for path in inputs.glob(f"*/*/{_RECORD}"):
        with contextlib.suppress(OSError):
            record = _Record.of(path.parent)
            size = sum(entry.size for entry in record.files.values()) if record else 0
            copies.append((path.stat().st_mtime, size, path.parent))
    newest = {parent.parent: _generation(parent) for _, _, parent in sorted(copies)}
    total = sum(size for _, size, _ in copies)
    for used, size, parent in sorted(copies):
        replaced = _generation(parent) != newest[parent.parent]
        if now - used > GRACE and (replaced or total > limit) and _remove(parent, used):
            total -= size


def _limit() -> float:
    text = os.environ.get("RAYDIST_CACHE_GB") or str(_LIMIT_GB)
    try:
        return float(text) * 1e9
    except ValueError:
        raise ConfigError(f"RAYDIST_CACHE_GB = {text!r}: expected a number of gigabytes") from None


def _generation(parent: Path) -> str:
    """Returns which generation a copy is of, whole or in part."""
    return parent.name.partition("-")[0]


def _remove(parent: Path, used: float) -> bool:
    """Removes a copy unless somebody copies, or uses it after all; returns whether it is gone."""
    lock = FileLock(parent.parent.with_name(f"{parent.parent.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            if (parent / _RECORD).stat().st_mtime != used:
                return False
            (parent / _RECORD).unlink()  # first: what has no record is not complete
            shutil.rmtree(parent, ignore_errors=True)
            return True
    except (Timeout, OSError):
        return False


@contextlib.contextmanager
def _locked(inputs: Path, name: str, uri: str) -> Iterator[Path]:
    """Holds the lock of a folder of copies; the lock file stays, beside it."""
    inputs.mkdir(parents=True, exist_ok=True)
    lock = FileLock(inputs / f"{name}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        log.say(f"{uri}: waiting for another process of this machine that copies it")
        lock.acquire(poll_interval=0.1)
    try:
        yield inputs / name
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class _Record:
    """What a copy is made of.

    Attributes:
        files: its files by name.
        folder: the folder's name, empty for a file.
    """

    files: dict[str, Entry]
    folder: str

    @classmethod
    def of(cls, parent: Path) -> _Record | None:
        """Returns the record of a copy, None if it is not complete."""
        try:
            data = json.loads((parent / _RECORD).read_bytes())
            return cls({name: Entry(*each) for name, each in data["files"].items()}, data["folder"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, parent: Path) -> None:
        """Completes a copy: from now on it is used."""
        entries = {name: list(entry) for name, entry in self.files.items()}
        write_json(parent / _RECORD, {"files": entries, "folder": self.folder})


def partial_path(path: Path) -> Path:
    """Returns a new hidden path beside another, whose folder exists from now on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    os.link(source, target)
