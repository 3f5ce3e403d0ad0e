"""Standard input and pipes, which are read once, as files that are read as often as needed.

What comes through one is copied to a file below the temporary folder (`TMPDIR`) that is named for
its content: the same content is the same file, for a second command and for one that continues. It
is removed when the last process that uses it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

from raydist import log
from raydist.disk import disk_errors
from raydist.errors import DataError

STDIN = "-"

_PIECE = 1 << 20
_ANONYMOUS = re.compile(r"/dev/(stdin|fd/\d+)|/proc/(self|\d+)/fd/\d+")

_spooled: dict[str, str] = {}


def is_stream(path: str) -> bool:
    """Returns whether a path is standard input (`-`), a named pipe, or `<(command)`."""
    if path == STDIN or path in _spooled:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def spooled(path: str) -> str:
    """Returns the file with everything that comes through a stream; the same one for each call.

    Raises:
        DataError: it cannot be read.
        JobError: the temporary folder is full.
    """
    if path not in _spooled:
        try:
            with open(0 if path == STDIN else path, "rb", closefd=path != STDIN) as source:
                copy = _spooled[path] = _copy(source, _name(path))
            log.stands_for(copy, _called(path))
        except OSError as error:
            raise DataError(f"{_called(path)}: cannot be read: {error.strerror}") from error
    return _spooled[path]


def is_spooled(path: str) -> bool:
    """Returns whether a file, of this or of another machine, holds what came through a stream."""
    return f"/{_folder().name}/" in path


def _called(path: str) -> str:
    return "standard input" if path == STDIN else path


def _name(path: str) -> str:
    """Returns the name of the copy: a pipe's own, the same for all that have none."""
    anonymous = path == STDIN or _ANONYMOUS.fullmatch(path)
    return "stdin" if anonymous else os.path.basename(path)


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"raydist-spool-{os.getuid()}"


def _copy(source: BinaryIO, name: str) -> str:
    root = _folder()
    with disk_errors(root):
        root.mkdir(mode=0o700, exist_ok=True)
        if root.stat().st_uid != os.getuid():
            raise DataError(f"{root}: belongs to another user; set TMPDIR to a folder of yours")
        with _Lock(root, fcntl.LOCK_EX):
            _sweep(root)
            folder = Path(tempfile.mkdtemp(dir=root))
            lock = _Lock(folder, fcntl.LOCK_SH)
        with contextlib.ExitStack() as failure:
            failure.callback(lock.remove)
            digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8)
            with open(folder / name, "wb") as out:
                while data := source.read(_PIECE):
                    digest.update(data)
                    out.write(data)
            lock, final = _publish(folder, lock, root / digest.hexdigest())
            failure.pop_all()
    atexit.register(lock.remove)
    return str(final / name)


def _publish(folder: Path, lock: _Lock, target: Path) -> tuple[_Lock, Path]:
    """Gives the copy its name, or takes the one of another process that has the same content."""
    while True:
        try:
            os.rename(folder, target)
            lock.folder = target
            return lock, target
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with contextlib.suppress(FileNotFoundError):
            other = _Lock(target, fcntl.LOCK_SH)
            if other.is_current():  # not removed while this process waited for the lock
                lock.remove()
                return other, target
            other.close()


def _sweep(root: Path) -> None:
    """Removes what killed processes left."""
    for folder in root.iterdir():
        with contextlib.suppress(FileNotFoundError):
            _Lock(folder).remove()


class _Lock:
    """A lock on a folder, which ends with the process that holds it."""

    def __init__(self, folder: Path, kind: int | None = None) -> None:
        self._number = os.open(folder, os.O_RDONLY)
        self.folder = folder
        if kind is not None:
            fcntl.flock(self._number, kind)

    def __enter__(self) -> _Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def is_current(self) -> bool:
        """Returns whether the folder of this name is still the locked one."""
        return os.path.samestat(os.fstat(self._number), os.stat(self.folder))

    def remove(self) -> None:
        """Removes the folder if nobody else holds it."""
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        os.close(self._number)
