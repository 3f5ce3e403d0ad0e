"""An index of several fields: a folder with a whole index of each, over the same documents.

    FDX/manifest.json   names the fields, and the generation of each
    FDX/title/          an index of the titles, and the texts of the documents
    FDX/text/           an index of the texts

A document has the same number among the live ones in all of them; positions and segments may
differ. Each has its own postings, lengths, norms and statistics, and can be opened alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydist import locks
from raydist.bow.index import KIND, BowIndex
from raydist.bow.spec import IndexSpec
from raydist.disk import disk_errors
from raydist.errors import ArtifactError, ConfigError
from raydist.fingerprints import value_fingerprint
from raydist.manifest import open_generation, read_manifest, write_manifest

FIELDS = "bow-fields"
"""The kind in the manifest of an index of fields."""


def specs_of(folder: Path, spec: IndexSpec) -> list[tuple[Path, IndexSpec]]:
    """Returns the folders of an index with what is built in each: itself, or one of each field.

    The first has the documents' texts.
    """
    if not spec.fields:
        return [(folder, spec)]
    return [
        (folder / name, replace(spec, fields=(name,), store=spec.store and not number))
        for number, name in enumerate(spec.fields)
    ]


def folders_of(folder: Path) -> list[Path]:
    """Returns the folder of an index, or those of its fields.

    Raises ArtifactError where it is neither.
    """
    manifest = read_manifest(folder, [KIND, FIELDS])
    return [folder / name for name in manifest.get("fields", ())] or [folder]


def facts_of(folder: Path, fields: Sequence[str]) -> dict[str, Any]:
    """Returns what the manifest says of the fields as they are now."""
    manifests = {name: read_manifest(folder / name, [KIND]) for name in fields}
    first = manifests[fields[0]]
    return {
        "fields": list(fields),
        "documents": first["documents"],
        "bytes": sum(each["bytes"] for each in manifests.values()),
        "store_bytes": first.get("store_bytes", 0),
        "generations": {name: value_fingerprint(each) for name, each in manifests.items()},
    }


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[list[Path]]:
    """Gives the folders of an index to change each alike; then its fields belong together again.

    If the block fails in between, searches refuse the index until the same change is repeated.
    """
    folders = folders_of(folder)
    if folders == [folder]:
        yield folders
        return
    with locks.writer(folder):
        yield folders
        manifest = read_manifest(folder, [FIELDS])
        with disk_errors(folder):
            write_manifest(folder, {**manifest, **facts_of(folder, manifest["fields"])})


def check_fields(folder: Path, fields: Sequence[str]) -> None:
    """Raises ConfigError if an index has other fields than these, or none."""
    there = read_manifest(folder, [KIND, FIELDS]).get("fields", [])
    if list(fields) != there:
        names = f"fields={','.join(there)}" if there else "no fields"
        raise ConfigError(f"{folder} was built with {names}; append with the same")


def open_fields(folder: Path, *, in_memory: bool = False) -> dict[str, BowIndex]:
    """Opens the indexes of the fields, of one generation.

    While a command changes one field after the other, it waits for the end of that.

    Raises:
        ArtifactError: no complete index of fields, or its fields do not belong together.
    """

    def opened(manifest: Mapping[str, Any]) -> dict[str, BowIndex]:
        manifests = {name: read_manifest(folder / name, [KIND]) for name in manifest["fields"]}
        for name, each in manifests.items():
            if value_fingerprint(each) != manifest["generations"][name]:
                raise ArtifactError(
                    f"{folder}: field {name} is of another generation than the rest: a command "
                    "that changed the index was interrupted, or still runs; run it again"
                )
        return {
            name: BowIndex.of(folder / name, each, in_memory=in_memory)
            for name, each in manifests.items()
        }

    end = time.monotonic() + locks.WAIT
    while True:
        changed = locks.is_held(folder)
        try:
            return open_generation(folder, [FIELDS], opened)
        except ArtifactError:
            if not changed or time.monotonic() > end:
                raise
        time.sleep(0.1)
