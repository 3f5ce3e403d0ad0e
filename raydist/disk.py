"""Writing to a disk: atomically, and with errors that a user can act on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raydist.errors import ConfigError, JobError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
}
_FULL = 1 << 20  # bytes; a disk with less room than that is full


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str], *, replace: bool = True) -> Iterator[Path]:
    """Gives a hidden path beside `path`; what is written to it becomes `path` when the block ends.

    Readers see the old content or the new, after a power failure too. Where the block raises,
    nothing is left behind and `path` stays as it was. A symbolic link is followed: what it points
    to is replaced. What is written for a device or FIFO goes into it when the block ends.

    Args:
        path: the file or folder to write, in a folder that exists.
        replace: False keeps what another process has written in the meantime.
    """
    if is_stream(path):
        with _poured_into(Path(path)) as partial:
            yield partial
        return
    target = Path(os.path.realpath(path))
    # Unique among processes and machines: two writers of one path must not share their partial.
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        yield partial
        sync(partial)
        if partial.is_dir():
            _move_folder(partial, target, replace)
        elif replace or not target.exists():
            os.replace(partial, target)
        sync_folder(target.parent)
    finally:
        remove(partial)


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is a device or FIFO, which cannot be replaced, only written to.

    Raises:
        ConfigError: it is a disk or a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        kind = "block device" if stat.S_ISBLK(mode) else "socket"
        raise ConfigError(f"out = {path}: is a {kind}, expected a file, folder, device or FIFO")
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


@contextlib.contextmanager
def _poured_into(stream: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="raydist-") as folder:
        partial = Path(folder) / stream.name
        yield partial
        if partial.is_dir():
            raise ConfigError(f"out = {stream}: is a device or FIFO, expected a folder")
        with open(partial, "rb") as source, open(stream, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)


def _move_folder(partial: Path, target: Path, replace: bool) -> None:
    """Renames a folder; one that is not empty cannot be replaced, so an old one steps aside."""
    old = partial.with_suffix(".old")
    if replace and target.exists():
        os.replace(target, old)
    try:
        os.rename(partial, target)
    except OSError as error:
        if replace or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    remove(old)


def sync(path: Path) -> None:
    """Waits until a file, or a folder with all that is in it, is on the disk."""
    if not path.is_dir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        return
    for each in path.iterdir():
        sync(each)
    sync_folder(path)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    with contextlib.suppress(OSError):  # not every network file system can
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def remove(path: Path) -> None:
    """Deletes a file or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    with atomic(path) as partial:
        partial.write_text(json_text(value), encoding="utf-8")


def json_text(value: Any) -> str:
    """Returns what `write_json` writes."""
    return json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"


@contextlib.contextmanager
def disk_errors(what: object) -> Iterator[None]:
    """Turns a full or read-only disk, or a lack of permission, into a JobError that names the file.

    Args:
        what: what is being written, for errors that do not name a file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        file = error.filename or what
        if error.errno == errno.EACCES:  # reading or writing
            raise JobError(
                f"{file}: {_REASONS[errno.EACCES]}; have it allowed or name another file or "
                "folder, then run the same command again"
            ) from error
        raise _cannot_write(file, _REASONS[error.errno]) from error
    except RuntimeError as error:  # torch does not say why it could not write
        if not (isinstance(what, str | os.PathLike) and _is_full(Path(what))):
            raise
        raise _cannot_write(what, _REASONS[errno.ENOSPC]) from error


def _cannot_write(what: object, reason: str) -> JobError:
    return JobError(
        f"writing {what}: {reason}; "
        f"make room or choose another out=, then run the same command again"
    )


def _is_full(path: Path) -> bool:
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
    status = os.statvfs(nearest)
    return status.f_bavail * status.f_frsize < _FULL
