"""Manifests: an output is complete once it has one, which is written last and atomically."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from raydist.disk import write_json
from raydist.errors import ArtifactError
from raydist.fingerprints import value_fingerprint

FORMAT = 1
MANIFEST = "manifest.json"
UNFINISHED = ".job.json"
"""What an output that is not complete has instead of the manifest."""

Opened = TypeVar("Opened")


@contextmanager
def opening_generation(
    name: str, folder: Path, manifest: Mapping[str, Any], kinds: Sequence[str]
) -> Iterator[None]:
    """Opens files of a folder as its manifest was; says so if they are damaged for another's sake.

    Args:
        name: the folder in messages.
        folder: where it is here.
        manifest: of the generation whose files are opened.
        kinds: the kinds that are accepted.

    Raises:
        ArtifactError: as within; or the folder is of another generation now.
    """
    try:
        yield
    except ArtifactError:
        if read_manifest(folder, kinds) == manifest:
            raise
        raise ArtifactError(
            f"{name}: another generation has replaced the one that is searched; search again"
        ) from None


def read_manifest(folder: str | os.PathLike[str], kinds: Sequence[str] = ()) -> dict[str, Any]:
    """Returns a complete folder's manifest.

    Args:
        folder: what a verb wrote as `out=`.
        kinds: the kinds that are accepted; any if empty.

    Raises:
        ArtifactError: no folder, incomplete, corrupted, of a newer version or of another kind.
    """
    path = Path(folder) / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if (Path(folder) / UNFINISHED).exists():
            raise ArtifactError(
                f"{folder} is not complete: the command that writes it was interrupted; "
                f"run the same command again to finish it"
            ) from None
        if not Path(folder).exists():
            raise ArtifactError(f"{folder}: no such folder") from None
        what = "has no manifest.json" if Path(folder).is_dir() else "is not a folder"
        raise ArtifactError(f"{folder} {what}: expected what a raydist verb wrote") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is corrupted: {error}; build {folder} again") from None
    if not isinstance(data, dict) or not {"format", "kind"} <= data.keys():
        raise ArtifactError(f"{path} is corrupted: no format and kind; build {folder} again")
    if not isinstance(data["format"], int) or data["format"] > FORMAT:
        raise ArtifactError(
            f"{path} has format {data['format']!r}, this raydist reads up to {FORMAT}: "
            f"use a newer raydist"
        )
    if data.pop("check", None) != value_fingerprint(data):
        raise ArtifactError(f"{path} is corrupted: its checksum does not match; build it again")
    if kinds and data["kind"] not in kinds:
        remedy = ""
        if data["kind"] == "bow-fields":
            remedy = f": name the index of one field, such as {Path(folder) / data['fields'][0]}"
        expected = " or ".join(kinds)
        raise ArtifactError(f"{folder} is a {data['kind']}, expected {expected}{remedy}")
    return data


def is_manifest(data: Any) -> bool:
    """Returns whether parsed JSON is what a verb writes as its manifest."""
    return isinstance(data, dict) and {"format", "kind", "check"} <= data.keys()


def is_output(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a verb has written a folder, or has begun to."""
    return any((Path(folder) / name).exists() for name in (MANIFEST, UNFINISHED))


def open_generation(
    folder: str | os.PathLike[str],
    kinds: Sequence[str],
    opened: Callable[[Mapping[str, Any]], Opened],
) -> Opened:
    """Returns what `opened` makes of a manifest, of the newest one where a writer replaces it.

    Args:
        folder: what a verb wrote as `out=`.
        kinds: as for `read_manifest`.
        opened: opens everything that the manifest names.

    Raises:
        ArtifactError: as for `read_manifest`, or whatever is wrong with the files.
    """
    manifest = read_manifest(folder, kinds)
    while True:
        try:
            return opened(manifest)
        except ArtifactError:
            newer = read_manifest(folder, kinds)
            if newer == manifest:
                raise
            manifest = newer


def content(path: Path) -> dict[str, int | str]:
    """Returns what tells a file's content from any other: its bytes and a hash of all of them."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        return {"bytes": file.tell(), "blake2b": digest.hexdigest()}


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replaces a folder's manifest atomically: what it names must be on the disk by then."""
    manifest = json.loads(json.dumps(manifest, default=str))
    write_json(folder / MANIFEST, {**manifest, "check": value_fingerprint(manifest)})
