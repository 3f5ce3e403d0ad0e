"""One folder per command, complete once it has a manifest.

`Output.open` says whether a folder is new, can be gone on with, or is complete; `finish` writes
`manifest.json` last and atomically. While a folder is being written, `.job.json` holds what it will
be, so that a restart with another configuration is refused instead of mixing two results.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import raydist
from raydist.disk import disk_errors, write_json
from raydist.errors import ArtifactError, ConfigError
from raydist.fingerprints import value_fingerprint

FORMAT = 1
MANIFEST = "manifest.json"
_JOB = ".job.json"
_PACKAGES = ("ray", "torch", "transformers", "deepspeed", "pyarrow", "numba", "numpy")


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
        if (Path(folder) / _JOB).exists():
            raise ArtifactError(
                f"{folder} is not complete: the command that writes it was interrupted; "
                f"run the same command again to finish it"
            ) from None
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
        raise ArtifactError(f"{folder} is a {data['kind']}, expected {' or '.join(kinds)}")
    return data


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns one line per field that differs, `a.b: OLD -> NEW`."""
    lines = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(
                f"{prefix}{key}: {json.dumps(a, default=str)} -> {json.dumps(b, default=str)}"
            )
    return lines


@dataclass(frozen=True, slots=True)
class Output:
    """A folder that a command writes.

    Attributes:
        folder: where it is.
        complete: whether it was already built by the same configuration from the same inputs.
        resumed: whether an interrupted run of the same command is being continued.
        job: kind, config, inputs and versions, as they go into the manifest.
    """

    folder: Path
    complete: bool
    resumed: bool
    job: dict[str, Any]

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        kind: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        resolved: Mapping[str, Any] | None = None,
    ) -> Output:
        """Prepares a folder for writing.

        Args:
            folder: the `out=` of a command.
            kind: what is written, e.g. `bow-index`.
            config: what decides the result (`Block.identity()`), compared with an earlier run's.
            inputs: fingerprints of the inputs by name.
            resolved: the whole configuration, saved as `config.json`, if given.

        Raises:
            ConfigError: `folder` cannot be a folder.
            ArtifactError: it holds something else, or the result of another configuration.
        """
        path = Path(folder)
        for part in (path, *path.parents):
            if part.exists() and not part.is_dir():
                raise ConfigError(f"out = {folder!s}: {part} is a file, expected a folder")
        config, inputs = json.loads(json.dumps([config, inputs], default=str))
        job = {
            "format": FORMAT,
            "kind": kind,
            "config_hash": value_fingerprint(config),
            "config": config,
            "inputs": dict(inputs),
            "versions": _versions(),
        }
        if (path / MANIFEST).exists():
            _same(path, read_manifest(path), job)
            return cls(path, True, True, job)
        resumed = (path / _JOB).exists()
        if resumed:
            _same(path, _read_job(path / _JOB), job)
        elif path.is_dir():
            for left in path.glob(f".{_JOB}.*.part"):  # of a command that was killed right here
                left.unlink(missing_ok=True)
            if any(path.iterdir()):
                raise ArtifactError(
                    f"out = {folder!s}: the folder holds other files; choose a new or an empty one"
                )
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            if not resumed:  # first: without it, what an interrupted command left is not its own
                write_json(path / _JOB, job)
            if resolved is not None and not (path / "config.json").exists():
                write_json(path / "config.json", resolved)
        return cls(path, False, resumed, job)

    def discard(self) -> None:
        """Deletes a folder whose work cannot start, so that the mended command finds it free."""
        assert not self.complete and not self.resumed, self.folder
        shutil.rmtree(self.folder)

    def finish(self, **facts: Any) -> None:
        """Writes the manifest: from now on the folder is complete."""
        with disk_errors(self.folder):
            created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            manifest = {**self.job, "created": created, **facts}
            manifest = json.loads(json.dumps(manifest, default=str))
            manifest["check"] = value_fingerprint(manifest)
            write_json(self.folder / MANIFEST, manifest)
            (self.folder / _JOB).unlink(missing_ok=True)


def _read_job(path: Path) -> dict[str, Any]:
    try:
        job = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is corrupted: {error}; delete {path.parent}") from None
    if not isinstance(job, dict):
        raise ArtifactError(f"{path} is corrupted: {job!r}; delete {path.parent}")
    return job


def _same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    if old.get("kind") != new["kind"]:
        raise ArtifactError(
            f"out = {path}: the folder holds a {old.get('kind')}, this command writes a "
            f"{new['kind']}; choose another out="
        )
    changed = differences(old.get("config", {}), new["config"])
    changed += differences(old.get("inputs", {}), new["inputs"], "content of ")
    if changed:
        shown = "\n  ".join(changed)
        raise ArtifactError(
            f"out = {path}: the folder was made with another configuration; choose another out= "
            f"or delete it. What differs (there -> now):\n  {shown}"
        )


def _versions() -> dict[str, str]:
    versions = {"raydist": raydist.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
