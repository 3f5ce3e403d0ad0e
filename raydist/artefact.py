"""The life of an output, from a dry run to its manifest: the same for every verb.

    ARTEFACT = Artefact("bow-index", progress=".work/splits/*.done", scratch=(".work",))

    with ARTEFACT.open(config.out, config, inputs=..., plan="index ...", dry_run=...) as output:
        if output.done:  # a dry run, or already built: the user has been told
            return
        output.finish(**build(output.folder))

An output is complete once it has a manifest, which is written last and atomically. Until then
`.job.json` says what it will be. Another command never continues from what it finds: it refuses
what an interrupted one has finished, and discards what cannot be continued, since a mistake ended
it or nothing of it was finished.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

import raydist
from raydist import log
from raydist.disk import atomic, disk_errors, is_stream, remove, sync, write_json
from raydist.errors import ArtifactError, ConfigError, DataError, RaydistError
from raydist.fingerprints import value_fingerprint
from raydist.locks import OWN_FILES
from raydist.manifest import FORMAT, MANIFEST, UNFINISHED, content, read_manifest, write_manifest
from raydist.sameness import Extension, Inputs, changes

_PACKAGES = ("ray", "torch", "transformers", "deepspeed", "pyarrow", "numba", "numpy")


def planned(dry_run: bool, plan: str) -> bool:
    """Says in a dry run what the command would do, and returns whether it is a dry run.

    Args:
        dry_run: whether nothing is to be written.
        plan: the command's verb and its objects: `index 3 splits of c.jsonl into IDX`.
    """
    if dry_run:
        log.say(f"would {plan}")
    return dry_run


class Configuration(Protocol):
    """The configuration of a verb, e.g. a `Block` of `raydist.config`."""

    def identity(self) -> dict[str, Any]:
        """Returns what decides the result."""

    def resolved(self) -> dict[str, Any]:
        """Returns every value as JSON."""

    def lenient(self) -> tuple[tuple[str, ...], ...]:
        """Returns places in the identity of fields with which a stricter job can be continued."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """What a verb writes.

    Attributes:
        kind: what the manifest calls it.
        is_file: `out` is a file, and `OUT.raydist` beside it the folder with its manifest.
        replaces: each command writes the whole output anew, over an earlier one of its kind.
        saves_config: the folder gets a `config.json` with which the command can be repeated.
        progress: a glob of what a restart continues from; an output that fails without any is
            deleted.
        unit: what `progress` counts.
        evidence: a glob of what is kept of a failed output without progress, to be looked at.
        scratch: globs of what only a restart needs, deleted once the output is complete.
    """

    kind: str
    is_file: bool = False
    replaces: bool = False
    saves_config: bool = True
    progress: str = MANIFEST
    unit: str = "shard"
    evidence: str = MANIFEST
    scratch: tuple[str, ...] = ()

    @contextlib.contextmanager
    def open(
        self,
        out: str | os.PathLike[str],
        config: Configuration,
        *,
        inputs: Callable[[], Inputs],
        plan: str = "",
        dry_run: bool = False,
        identity: Mapping[str, Any] | None = None,
        extension: Extension = Extension(),  # noqa: B008  frozen
    ) -> Iterator[Output]:
        """Gives the output to write, or says why there is nothing to do (`output.done`).

        Args:
            out: a local path; what it holds already decides the output's state.
            config: of the verb.
            inputs: returns fingerprints of the inputs by name; not called in a dry run.
            plan: what a dry run says would be done, as for `planned`.
            dry_run: write nothing.
            identity: what decides the result, where that is not `config.identity()`.
            extension: how the configuration may differ from that of what is continued.

        Raises:
            ConfigError: `out` cannot be written.
            ArtifactError: it holds something else, or the result or the progress of another
                configuration.
        """
        path = Path(out)
        self.check(path)
        folder = Path(f"{out}.raydist") if self.is_file else path
        if planned(dry_run, plan):
            yield Output(path, folder, "planned", {}, self.scratch)
            return

        def prepare(folder: Path) -> Output:
            output = Output.open(
                folder,
                kind=self.kind,
                config=config.identity() if identity is None else identity,
                inputs=inputs(),
                resolved=config.resolved() if self.saves_config else None,
                artefact=self,
                deleted=self.is_file and not path.exists(),
                extension=replace(extension, lenient=config.lenient()),
            )
            return replace(output, path=path if self.is_file else folder, scratch=self.scratch)

        if self.replaces:
            with disk_errors(path), atomic(path) as partial:
                yield prepare(partial)
            return
        output = prepare(folder)
        if output.state == "complete" and path.exists():
            output.clean()
            log.say(f"{out}: already built with the same configuration")
        elif output.state != "new":
            output = replace(output, state="resumed")
            for partial in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
                remove(partial)
        try:
            yield output
        except RaydistError as error:
            if not output.done:
                self._leave(output, error)
            raise

    def _leave(self, output: Output, error: RaydistError) -> None:
        """Leaves of a failed output what can be continued, or looked at, and why it failed.

        A mistake (`failed`) has to be corrected, so only another command can follow.
        """
        if not any(any(output.folder.glob(each)) for each in (self.progress, self.evidence)):
            remove(output.folder)
            return
        key = "failed" if isinstance(error, ConfigError | DataError) else "error"
        record = output.folder / UNFINISHED
        with contextlib.suppress(OSError):
            if record.exists():
                reason = str(error).partition("\n")[0]
                write_json(record, {**output.job, key: reason})

    def discard(self, folder: Path, old: Mapping[str, Any], changed: Sequence[str]) -> None:
        """Empties an unfinished output of another configuration, and says what is lost.

        Raises:
            ArtifactError: it was interrupted, and has what its own command can continue from.
        """
        finished = log.count(len(list(folder.glob(self.progress))), self.unit)
        if "failed" in old:
            log.say(
                f"{folder}: discards {finished} of another configuration, which failed: "
                f"{old['failed']}"
            )
        elif old.get("kind") != self.kind:
            raise ArtifactError(_refusal(folder, old, self.kind, changed))
        elif any(folder.glob(self.progress)):
            lines = "\n  ".join(changed)
            raise ArtifactError(
                f"out = {folder}: an interrupted command of another configuration has finished "
                f"{finished} here: run that one again to continue, or delete the folder to start "
                f"over. What differs (old -> new):\n  {lines}"
            )
        with disk_errors(folder):
            for each in folder.iterdir():
                if each.name not in OWN_FILES:
                    remove(each)

    def check(self, out: str | os.PathLike[str]) -> None:
        """Raises what `open` would raise if `out` cannot be written: a check before long work."""
        path = Path(out)
        if self.is_file and path.is_dir():
            raise ConfigError(f"out = {path}: is a folder, expected the file to write")
        if self.is_file and is_stream(path):
            raise ConfigError(
                f"out = {path}: is a device or FIFO; this command keeps its progress beside its "
                "output, so name a file"
            )
        if self.is_file and path.exists() and not Path(f"{path}.raydist").exists():
            raise ConfigError(
                f"out = {path}: exists, and no {path.name}.raydist beside it says that this "
                "command wrote it; delete it, or choose another out="
            )
        if self.replaces and path.exists():
            if not path.is_dir():
                raise ConfigError(f"out = {path}: is a file, expected a folder")
            if any(path.iterdir()):
                read_manifest(path, [self.kind])


State = Literal["planned", "new", "resumed", "complete"]


@dataclass(frozen=True, slots=True)
class Output:
    """What one command writes.

    Attributes:
        path: the file to write; the folder, if the output is one.
        folder: the folder of the manifest.
        state: `planned` in a dry run; `new`; `resumed`, where an interrupted run of the same
            command is continued; `complete`, where the same command has built it.
        job: kind, config, inputs and versions, as they go into the manifest.
        scratch: globs of what only a restart needs.
    """

    path: Path
    folder: Path
    state: State
    job: Mapping[str, Any]
    scratch: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether there is nothing to write."""
        return self.state in ("planned", "complete")

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        kind: str,
        config: Mapping[str, Any],
        inputs: Inputs,
        resolved: Mapping[str, Any] | None = None,
        artefact: Artefact | None = None,
        deleted: bool = False,
        extension: Extension = Extension(),  # noqa: B008  frozen
    ) -> Output:
        """Prepares a folder for writing.

        Args:
            folder: where the manifest will lie.
            kind: what is written, e.g. `bow-index`.
            config: what decides the result (`Block.identity()`), compared with an earlier run's.
            inputs: fingerprints of the inputs by name.
            resolved: the whole configuration, saved as `config.json`, if given.
            artefact: says which files of an unfinished output are progress.
            deleted: the file that the folder describes was deleted.
            extension: how the configuration may differ from that of what is continued.

        Raises:
            ConfigError: `folder` cannot be a folder.
            ArtifactError: it holds something else, or the result of another configuration.
        """
        path = Path(folder)
        for part in (path, *path.parents):
            if part.exists() and not part.is_dir():
                raise ConfigError(f"out = {folder!s}: {part} is a file, expected a folder")
        job = _Job(kind, json.loads(json.dumps(config, default=str)), inputs)
        artefact = artefact or Artefact(kind)
        if (path / MANIFEST).exists():
            old = read_manifest(path)
            if extended := job.extends(old, extension, path):
                return cls._extended(path, extended, resolved)
            if changed := job.changes(old):
                if not deleted:
                    raise ArtifactError(_refusal(path, old, kind, changed))
                remove(path)
            else:
                return cls(path, path, "complete", job.record(old))
        old = _read_job(path / UNFINISHED) if (path / UNFINISHED).exists() else {}
        if extended := job.extends(old, extension, path, finished=False):
            return cls._extended(path, extended, resolved)
        if old and (changed := job.changes(old)):
            artefact.discard(path, old, changed)
            old = {}
        if not old and path.is_dir():
            for partial in path.glob(f".{UNFINISHED}.*.part"):  # of a command killed right here
                remove(partial)
            if any(each.name not in OWN_FILES for each in path.iterdir()):
                raise ArtifactError(
                    f"out = {folder!s}: the folder holds other files; choose a new or an empty one"
                )
        record = job.record(old)
        with disk_errors(path):
            Path(os.path.realpath(path)).mkdir(parents=True, exist_ok=True)  # a link may dangle
            if record != old:  # first: without it, what an interrupted command left is not its own
                write_json(path / UNFINISHED, record)
            if resolved is not None and not (path / "config.json").exists():
                write_json(path / "config.json", resolved)
        return cls(path, path, "resumed" if old else "new", record)

    @classmethod
    def _extended(
        cls, path: Path, record: Mapping[str, Any], resolved: Mapping[str, Any] | None
    ) -> Output:
        """Returns an earlier output to be continued: from now on it is not complete."""
        with disk_errors(path):
            write_json(path / UNFINISHED, record)
            if resolved is not None:
                write_json(path / "config.json", resolved)
            (path / MANIFEST).unlink(missing_ok=True)
        return cls(path, path, "resumed", record)

    def finish(self, **facts: Any) -> None:
        """Writes the manifest: from now on the output is complete."""
        with disk_errors(self.folder):
            for each in self.folder.iterdir():  # what the manifest names is on the disk before it
                if not each.name.startswith("."):
                    sync(each)
            created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            if self.path != self.folder:
                facts |= {"out": self.path.name, "content": content(self.path)}
            if (self.folder / "config.json").exists():
                facts |= {"config_file": content(self.folder / "config.json")}
            write_manifest(self.folder, {**self.job, "created": created, **facts})
            (self.folder / UNFINISHED).unlink(missing_ok=True)
        self.clean()

    def clean(self) -> None:
        """Deletes what only a restart needs."""
        for pattern in self.scratch:
            for path in self.folder.glob(pattern):
                remove(path)


_RECORDED = ("format", "kind", "config_hash", "config", "inputs", "versions")


@dataclass(frozen=True, slots=True)
class _Job:
    """What a command writes, from what, and how: `config` is JSON."""

    kind: str
    config: Mapping[str, Any]
    inputs: Inputs

    def changes(self, old: Mapping[str, Any]) -> list[str]:
        """Returns one line per difference of an earlier job."""
        if old.get("kind") != self.kind:
            return [f"kind: {json.dumps(old.get('kind'))} -> {json.dumps(self.kind)}"]
        return changes(old, self.config, self.inputs)

    def extends(
        self, old: Mapping[str, Any], extension: Extension, path: Path, *, finished: bool = True
    ) -> dict[str, Any] | None:
        """Returns the record of an earlier job as this one's; None unless this one extends it."""
        config = extension.of(old, self.config, self.inputs, path) if old else None
        if config is None and not finished and old.get("kind") == self.kind:
            relaxes = extension.relaxes(old, self.config, self.inputs)
            config = dict(self.config) if relaxes else None
        if config is None:
            return None
        return {**self.record(old), "config": config, "config_hash": value_fingerprint(config)}

    def record(self, old: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what an earlier, equal job recorded, a new record if there is none."""
        if old:
            return {name: old.get(name) for name in _RECORDED}
        return {
            "format": FORMAT,
            "kind": self.kind,
            "config_hash": value_fingerprint(self.config),
            "config": self.config,
            "inputs": {name: str(each) for name, each in self.inputs.items()},
            "versions": _versions(),
        }


def _refusal(path: Path, old: Mapping[str, Any], kind: str, changed: Sequence[str]) -> str:
    if old.get("kind") != kind:
        return (
            f"out = {path}: the folder holds a {old.get('kind')}, this command writes a {kind}; "
            "choose another out="
        )
    lines = "\n  ".join(changed)
    return (
        f"out = {path}: the folder was written with another configuration; choose another out= "
        f"or delete it. What differs (old -> new):\n  {lines}"
    )


def _read_job(path: Path) -> dict[str, Any]:
    try:
        job = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is corrupted: {error}; delete {path.parent}") from None
    if not isinstance(job, dict):
        raise ArtifactError(f"{path} is corrupted: {job!r}; delete {path.parent}")
    return job


def _versions() -> dict[str, str]:
    versions = {"raydist": raydist.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
