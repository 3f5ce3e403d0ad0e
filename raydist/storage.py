"""Where outputs lie: local folders, or object stores by way of a local copy.

Verbs write and map local files. An `out=` that is a URI is written to a local folder first and then
put, its manifest last, so that what has a manifest is complete there too. A remote input folder is
copied to a cache first. Under a submitted job a relative `out=` lies below the storage root.

Environment: `RAYDIST_STORAGE` is the storage root where a command names none, `RAYDIST_CACHE` the
folder of local copies (`~/.cache/raydist`).
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from raydist.data.files import PathLike, filesystem, is_uri
from raydist.errors import ArtifactError, ConfigError, DataError, JobError

MANIFESTS = ("manifest.json", "store.json")
"""Files that say that a folder is complete: put last, compared first."""

_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set for the entrypoint of a submitted job


def in_submitted_job() -> bool:
    """Returns whether this process is the driver of a job that was submitted to a cluster."""
    return "job_submission_id" in os.environ.get(_JOB_VARIABLE, "")


def resolve(out: PathLike, storage: str | None = None) -> str:
    """Returns where an output goes: absolute paths and URIs as they are, others below the root.

    Args:
        out: the `out=` of a command.
        storage: the storage root, a path or URI; the environment's if None.

    Raises:
        ConfigError: a relative output of a submitted job without a storage root that is a URI or
            absolute: it would be lost with the job's temporary folder.
    """
    text = _expanded(os.fspath(out))
    if is_uri(text) or os.path.isabs(text):
        return text
    root = _expanded(storage or os.environ.get("RAYDIST_STORAGE") or "")
    if in_submitted_job() and not (is_uri(root) or os.path.isabs(root)):
        below = f" below storage = {root!r}" if root else ""
        raise ConfigError(
            f"out = {text!r}{below}: a submitted job has no folder of its own; set storage= or "
            "RAYDIST_STORAGE to an absolute path or URI that every node sees, or give an absolute "
            "out="
        )
    return posixpath.join(root, text)


def _expanded(text: str) -> str:
    """Returns a path with `~` spelled out."""
    return text if is_uri(text) else os.path.expanduser(text)


def spare_inputs(out: str, config: Mapping[str, Any]) -> None:
    """Raises ConfigError where an output file would replace a file that the command reads.

    Args:
        out: where the output goes, resolved.
        config: the whole configuration; what of its values are files is seen on the disk.
    """
    for name, value in _texts(config):
        if name not in ("out", "storage") and _is_file(out, value):
            raise ConfigError(
                f"out = {out}: is what {name} = {value} reads, which would be lost; "
                "choose another out="
            )


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, name)


def _is_file(out: str, text: str) -> bool:
    """Returns whether a path, glob or URI names the file `out`."""
    if is_uri(out) or is_uri(text):
        return out == text
    return os.path.isfile(out) and any(
        os.path.exists(path) and os.path.samefile(out, path) for path in [text, *glob.glob(text)]
    )


def cache_folder() -> Path:
    """Returns the folder of local copies, made if missing.

    Raises:
        ConfigError: it cannot be made.
    """
    folder = Path(os.environ.get("RAYDIST_CACHE") or Path.home() / ".cache" / "raydist")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"RAYDIST_CACHE = {folder}: cannot be made: {error}") from error
    return folder


@contextlib.contextmanager
def writing(out: str) -> Iterator[Path]:
    """Gives the local path to write an output to, and puts it where it belongs afterwards.

    A local output is its own path. For a URI it is a folder of the cache that stays after a crash,
    so that the same command goes on from there; it is put, manifest last, and removed when the
    block ends without an error.

    Args:
        out: a path, or the URI of a folder or file.

    Raises:
        JobError: the object store refuses.
    """
    if not is_uri(out) or out.startswith("file://"):
        yield Path(filesystem(out)[1]) if is_uri(out) else Path(out)
        return
    place = cache_folder() / "outputs" / _key(out)
    place.mkdir(parents=True, exist_ok=True)
    local_path = place / posixpath.basename(out.rstrip("/"))
    if not local_path.exists():
        # What is complete there already is fetched, so that a command can say so.
        with contextlib.suppress(DataError):
            if _manifests(*filesystem(out)):
                _get(out, local_path)
    yield local_path
    put(local_path, out)
    for beside in sorted(place.glob(f"{local_path.name}.*")):  # a file's manifest, for one
        put(beside, posixpath.join(posixpath.dirname(out.rstrip("/")), beside.name))
    shutil.rmtree(place, ignore_errors=True)


def leaves(path: PathLike) -> bool:
    """Returns whether `writing` gave a path that is only on its way to a URI."""
    return (cache_folder() / "outputs") in Path(path).absolute().parents


def put(source: PathLike, uri: str) -> None:
    """Copies a file or folder to a URI; manifests go last, and an old one is removed first.

    Raises:
        JobError: the object store refuses.
    """
    where, name = filesystem(uri)
    path = Path(source)
    try:
        if path.is_file():
            where.create_dir(posixpath.dirname(name), recursive=True)
            _put_file(where, path, name)
            return
        files = sorted(p for p in path.rglob("*") if p.is_file())
        last = [p for p in files if p.parent == path and p.name in MANIFESTS]
        where.create_dir(name, recursive=True)
        if last and _manifests(where, name):
            unchanged = all(
                _read(where, posixpath.join(name, p.name)) == p.read_bytes() for p in last
            )
            if unchanged:
                return
        for old in _manifests(where, name):
            where.delete_file(posixpath.join(name, old))
        for file in [p for p in files if p not in last] + last:
            target = posixpath.join(name, file.relative_to(path).as_posix())
            where.create_dir(posixpath.dirname(target), recursive=True)
            _put_file(where, file, target)
    except (OSError, pa.ArrowException) as error:
        raise JobError(f"{uri}: cannot be written: {error}") from error


def local(path: PathLike) -> Path:
    """Returns a local path of an input folder or file, copying a remote one to the cache first.

    A folder's copy is used again as long as the remote manifest is the same, byte for byte.

    Raises:
        DataError: nothing is there, or it cannot be read.
        ArtifactError: the remote folder has no manifest: it is not complete.
    """
    text = os.fspath(path)
    if not is_uri(text) or text.startswith("file://"):
        return Path(filesystem(text)[1]) if is_uri(text) else Path(text)
    where, name = filesystem(text)
    info = where.get_file_info(name)
    if info.type == pafs.FileType.NotFound:
        raise DataError(f"{text}: no such file or folder")
    place = cache_folder() / "inputs" / _key(text)
    target = place / posixpath.basename(text.rstrip("/"))
    if info.type == pafs.FileType.File:
        _get(text, target)
        return target
    manifests = _manifests(where, name)
    if not manifests:
        raise ArtifactError(f"{text}: no manifest.json: not complete, or not written by raydist")
    fresh = all(
        (target / m).is_file()
        and (target / m).read_bytes() == _read(where, posixpath.join(name, m))
        for m in manifests
    )
    if not fresh:
        _get(text, target)
    return target


def _get(uri: str, target: Path) -> None:
    """Copies a remote file or folder to a local path that appears only when it is complete."""
    where, name = filesystem(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        info = where.get_file_info(name)
        if info.type == pafs.FileType.File:
            _get_file(where, name, partial / target.name)
        else:
            selector = pafs.FileSelector(name, recursive=True)
            for each in where.get_file_info(selector):
                if each.type != pafs.FileType.File:
                    continue
                inside = posixpath.relpath(each.path, name)
                _get_file(where, each.path, partial / target.name / inside)
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(partial / target.name, target)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{uri}: cannot be copied to {target}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _get_file(where: pafs.FileSystem, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with where.open_input_stream(name) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out, 4 << 20)


def _put_file(where: pafs.FileSystem, source: Path, name: str) -> None:
    with open(source, "rb") as data, where.open_output_stream(name) as out:
        shutil.copyfileobj(data, out, 4 << 20)


def _manifests(where: pafs.FileSystem, name: str) -> list[str]:
    infos = where.get_file_info([posixpath.join(name, each) for each in MANIFESTS])
    return [m for m, info in zip(MANIFESTS, infos) if info.type == pafs.FileType.File]


def _read(where: pafs.FileSystem, name: str) -> bytes:
    with where.open_input_stream(name) as source:
        return bytes(source.read())


def _key(uri: str) -> str:
    return hashlib.blake2b(uri.rstrip("/").encode(), digest_size=10).hexdigest()
