"""A generation of a remote output: its manifest, and the exact objects that it is made of.

Beside each manifest lies `.files-<hash of the manifest>.json`, which names the output's objects by
size and tag, and who put them there. It is put twice: before the objects, so that what a crash
leaves is known, and complete, before the manifest. An output without one, put there by other means,
is what its folder holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raydist.errors import ArtifactError
from raydist.locks import Holder
from raydist.stores.objects import Entry, Objects

MANIFESTS = ("manifest.json", "store.json")
"""Files that say that a folder is complete; the first that is there is put last, compared first."""

_FILES = ".files-"


@dataclass(frozen=True, slots=True)
class Generation:
    """What a remote output holds.

    Attributes:
        manifest: the name of its manifest.
        data: the manifest.
        entry: what the store knows of it.
        files: all other objects, by name.
        writer: who published it, None if that is not known.
        listed: whether `files` is what the folder held, for want of a record.
    """

    manifest: str
    data: bytes
    entry: Entry
    files: dict[str, Entry]
    writer: Holder | None = None
    listed: bool = False

    @property
    def digest(self) -> str:
        """What tells this generation from others: a hash of its manifest."""
        return digest(self.data)


def digest(data: bytes) -> str:
    """Returns a hash of a manifest."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def read_generation(objects: Objects) -> Generation | None:
    """Returns the present generation of the output at `objects`, None if there is no manifest.

    Raises:
        JobError: the object store does not answer.
        ArtifactError: its record of files is damaged.
    """
    while True:
        manifest = _manifest(objects)
        if manifest is None:
            return None
        name, data, entry = manifest
        record = objects.read(record_name(data))
        if record is not None:
            files, writer, complete = _parse(objects, record[0])
            if complete:
                return Generation(name, data, entry, files, writer)
        listing = objects.names()
        if listing.get(name) == entry or objects.head(name) == entry:
            files = {n: e for n, e in listing.items() if n != name and not _is_ours(n)}
            return Generation(name, data, entry, files, listed=True)
        # Replaced between the two requests: look again.


def record_name(manifest: bytes) -> str:
    """Returns the name of the record of files that belongs to a manifest."""
    return f"{_FILES}{digest(manifest)}.json"


def is_record(name: str) -> bool:
    """Returns whether an object is a record of files."""
    return name.startswith(_FILES) and name.endswith(".json")


def _is_ours(name: str) -> bool:
    return is_record(name) or name.endswith(".lease.json")


def record(files: Mapping[str, Entry | None], writer: Holder) -> bytes:
    """Returns a record of files; None stands for an object that is still to be put."""
    entries = {name: list(entry) if entry else None for name, entry in files.items()}
    return json.dumps({"writer": writer.to_dict(), "files": entries}).encode()


def planned_names(objects: Objects, name: str) -> set[str]:
    """Returns the names that a record of files holds, put or not."""
    data = objects.read(name)
    return set() if data is None else set(_load(objects, data[0])["files"])


def _manifest(objects: Objects) -> tuple[str, bytes, Entry] | None:
    for name in MANIFESTS:
        if (manifest := objects.read(name)) is not None:
            return name, *manifest
    return None


def _parse(objects: Objects, data: bytes) -> tuple[dict[str, Entry], Holder | None, bool]:
    parsed = _load(objects, data)
    files = {name: Entry(*entry) for name, entry in parsed["files"].items() if entry}
    return files, Holder.read(parsed.get("writer")), len(files) == len(parsed["files"])


def _load(objects: Objects, data: bytes) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads(data)
        if isinstance(parsed["files"], dict):
            return parsed
    except (ValueError, KeyError, TypeError):
        pass
    raise ArtifactError(f"{objects.uri}: its record of files is damaged; put the output anew")
