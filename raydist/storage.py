"""Where outputs lie: local folders, or object stores by way of a local copy.

Verbs write and map local files, one writer an output at a time. An `out=` that is a URI is written
to a local folder first and then published, its manifest last, so that what has a manifest is
complete there too. A remote input folder is copied to a cache first. Under a submitted job a
relative `out=` lies below the storage root.

Environment: `RAYDIST_STORAGE` is the storage root where a command names none, `RAYDIST_CACHE` the
folder of local copies (`~/.cache/raydist`), `RAYDIST_CACHE_GB` how large it may grow (200).
"""

from __future__ import annotations

import contextlib
import glob
import os
import posixpath
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from raydist import locks
from raydist.data.files import PathLike, filesystem, is_uri
from raydist.disk import is_stream
from raydist.errors import ConfigError, JobError
from raydist.locks import WAIT
from raydist.stores.copies import cache_folder

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


def spare_inputs(out: str, inputs: Mapping[str, Iterable[str]]) -> None:
    """Raises ConfigError where an output file would replace a file that the command reads.

    Args:
        out: where the output goes, resolved.
        inputs: where what is read lies, by its key.
    """
    for name, paths in inputs.items():
        for path in paths:
            if _is_file(out, path):
                raise ConfigError(
                    f"out = {out}: is what {name} = {path} reads, which would be lost; "
                    "choose another out="
                )


def _is_file(out: str, text: str) -> bool:
    """Returns whether a path, glob or URI names the file `out`."""
    if is_uri(out) or is_uri(text):
        return out == text
    return os.path.isfile(out) and any(
        os.path.exists(path) and os.path.samefile(out, path) for path in [text, *glob.glob(text)]
    )


@contextlib.contextmanager
def writing(out: str, wait: float = WAIT, later: Sequence[str] = ()) -> Iterator[Path]:
    """Gives the local path to write an output to, and puts it where it belongs afterwards.

    The path is this command's alone while the block runs. A local output is its own path. For a URI
    it is a folder of the cache, which stays after a crash, so that the same command continues from
    there; it is published when the block ends without an error.

    Args:
        out: a path, or the URI of a folder or file.
        wait: seconds to wait for another writer.
        later: patterns of files that the path may lack until they are read (`on_demand`).

    Raises:
        JobError: another process writes; the object store refuses, or has another's by now.
    """
    if not is_remote(out):
        path = Path(filesystem(out)[1]) if is_uri(out) else Path(out)
        with contextlib.nullcontext() if is_stream(path) else locks.writer(path, wait):
            yield path
        return
    from raydist.stores.publish import staged

    with staged(out, wait, later) as path:
        yield path


def is_remote(path: PathLike) -> bool:
    """Returns whether a path is the URI of an object store, not of a local file."""
    return is_uri(path) and not os.fspath(path).startswith("file://")


def leaves(path: PathLike) -> bool:
    """Returns whether `writing` gave a path that is only on its way to a URI."""
    return (cache_folder() / "outputs") in Path(path).absolute().parents


def local(path: PathLike, patterns: Sequence[str] | None = None) -> Path:
    """Returns a local path of an input folder or file, copying a remote one to the cache first.

    A copy is used again as long as the remote manifest is the same, byte for byte, and never
    changes: a new remote generation has a new copy.

    Args:
        path: of the input.
        patterns: of the files of a remote folder that are needed, relative to it; None is all.

    Raises:
        DataError: nothing is there, or it cannot be read.
        ArtifactError: the remote folder has no manifest: it is not complete.
        JobError: the object store does not answer.
    """
    text = os.fspath(path)
    if not is_remote(text):
        return Path(filesystem(text)[1]) if is_uri(text) else Path(text)
    from raydist.stores.copies import copy

    return copy(text, patterns)


def held(path: PathLike, patterns: Sequence[str]) -> int | None:
    """Returns how many bytes of a remote folder's files this machine has copied, None of others.

    Args:
        path: of the input.
        patterns: of the files that count, relative to it.
    """
    if not is_remote(path):
        return None
    from raydist.stores import copies

    return copies.held(os.fspath(path), patterns)


def seen(folder: Path) -> Path:
    """Returns the folder of an input that the driver has opened.

    Raises JobError where this node does not see it.
    """
    if not folder.is_dir():
        raise JobError(
            f"{folder}: the worker on {socket.gethostname()} does not see this folder; it must be "
            "a path that every node sees, or on an object store"
        )
    return folder
