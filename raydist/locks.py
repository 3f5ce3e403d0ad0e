"""One writer per output at a time.

A lock file lies beside the output while it is written, and a small JSON file that says who writes.
The operating system lets go of the lock when its holder dies, whatever way, so nothing is to be
cleaned up by hand. A network file system that cannot lock gets a file that names its holder's
process instead, which protects the processes of one machine only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
import pwd
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from raydist import log
from raydist.disk import atomic, remove
from raydist.errors import ArtifactError, JobError

WAIT = 60.0
"""Seconds that a second writer waits, where nobody says otherwise."""

OWN_FILES = (".lock", ".lock.json")
"""What lies inside an output folder instead, where nothing may be created beside it."""

_COMMAND = 200  # characters
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)

_held = threading.local()  # the paths that this thread has locked, for nested calls


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes an output.

    Attributes:
        host: the machine's name.
        pid: the process.
        command: its command line, shortened.
        since: when it began, in UTC.
    """

    host: str
    pid: int
    command: str
    since: str

    @classmethod
    def here(cls) -> Holder:
        """Returns this process."""
        program = Path(sys.argv[0] if sys.argv else "").name
        words = ["raydist" if program == "__main__.py" else program, *sys.argv[1:]]
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return cls(socket.gethostname(), os.getpid(), shlex.join(words)[:_COMMAND], since)

    @classmethod
    def read(cls, data: Any) -> Holder | None:
        """Returns the holder that parsed JSON describes, None if it describes none."""
        try:
            return cls(**{name: data[name] for name in ("host", "pid", "command", "since")})
        except (KeyError, TypeError):
            return None

    def to_dict(self) -> dict[str, str | int]:
        """Returns what `read` reads."""
        return asdict(self)

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine that has ended."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's
            return False
        return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since} ({self.command})"


@contextlib.contextmanager
def writer(path: str | os.PathLike[str], wait: float = WAIT) -> Iterator[None]:
    """Holds the lock of an output while the block runs; inside another block of it, does nothing.

    Args:
        path: the folder or file that is written; it need not exist.
        wait: seconds to wait for another writer.

    Raises:
        JobError: another process still writes after `wait`, or the output cannot be locked.
    """
    output = Path(os.path.realpath(path))
    own = vars(_held).setdefault("paths", set())
    new = [each for each in output.parents if not each.exists()]
    lock_file = None if output in own else _lock_file(output)
    if lock_file is None:
        yield
        return
    record = lock_file.with_name(f"{lock_file.name}.json")  # as OWN_FILES says
    lock = _acquire(output, lock_file, record, wait)
    own.add(output)
    for partial in record.parent.glob(f".{glob.escape(record.name)}.*.part"):  # of a killed writer
        remove(partial)
    try:
        # A full disk: the lock holds without a name.
        with contextlib.suppress(OSError), atomic(record) as partial:
            partial.write_text(json.dumps(Holder.here().to_dict()), encoding="utf-8")
        yield
        new = []
    finally:
        own.discard(output)
        record.unlink(missing_ok=True)
        # While it is held: whoever waits for this file sees that it is gone and makes a new one.
        lock_file.unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # of a failure that wrote nothing no folder stays
            for each in new:
                each.rmdir()


def is_held(path: str | os.PathLike[str]) -> bool:
    """Returns whether another process writes an output now."""
    lock_file = _lock_file(Path(os.path.realpath(path)))
    try:
        number = os.open(lock_file or "", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(number)
    return False


@contextlib.contextmanager
def reader(folder: Path) -> Iterator[None]:
    """Keeps a folder that no manifest may name any more from being removed while the block runs.

    For what is opened later, or by other processes of this machine; what is open needs no lock.

    Raises:
        ArtifactError: it is gone, or about to be.
    """
    replaced = ArtifactError(f"{folder}: was replaced just now; run the same command again")
    try:
        number = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        raise replaced from None
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise replaced from None
        except OSError:  # a file system that cannot lock: the folder is not kept
            pass
        if not folder.is_dir() or not os.path.samestat(os.fstat(number), folder.stat()):
            raise replaced
        yield
    finally:
        os.close(number)


def remove_unread(folder: Path) -> None:
    """Removes a folder unless a `reader` keeps it; whoever removes next tries again."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(folder)
    except BlockingIOError:
        pass
    except OSError:  # a file system that cannot lock has no readers that could be seen
        remove(folder)
    finally:
        os.close(number)


def _lock_file(output: Path) -> Path | None:
    """Returns where the lock lies, None where nothing can be written anyway."""
    with contextlib.suppress(OSError):
        output.parent.mkdir(parents=True, exist_ok=True)
    if os.access(output.parent, os.W_OK | os.X_OK):
        return output.parent / f".{output.name}.lock"
    if output.is_dir() and os.access(output, os.W_OK | os.X_OK):  # a mounted disk, for one
        return output / OWN_FILES[0]
    return None


def _acquire(output: Path, lock_file: Path, record: Path, wait: float) -> FileLock:
    lock = FileLock(lock_file, mode=0o666)
    with contextlib.suppress(Timeout, OSError):
        lock.acquire(timeout=0)
        return lock
    _check_lockable(output, lock_file)
    holder = _describe(record)
    if wait:
        log.say(f"{output}: waiting up to {log.duration(wait)} for {holder}")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=wait, poll_interval=0.1)
            return lock
    raise busy(output, _describe(record), wait)


def _check_lockable(output: Path, lock_file: Path) -> None:
    """Refuses a lock file that nobody may lock here, which looks like one that is held.

    Raises:
        JobError: with the system's reason.
    """
    try:
        number = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(number)
    except BlockingIOError:
        return
    except OSError as error:
        if error.errno in _NO_LOCKS:  # filelock then has a file that names its holder
            return
        raise JobError(
            f"out = {output}: cannot be locked: {lock_file}: {error.strerror}{_owner(lock_file)}; "
            "have it allowed or choose another out=, then run the same command again"
        ) from error


def _owner(file: Path) -> str:
    """Returns whose a file is, where it is another user's; empty otherwise."""
    try:
        number = file.stat().st_uid
    except OSError:
        return ""
    if number == os.geteuid():
        return ""
    try:
        return f" (it is {pwd.getpwuid(number).pw_name}'s)"
    except KeyError:
        return f" (it is user {number}'s)"


def busy(output: object, holder: object, wait: float) -> JobError:
    """Returns the error of a writer that waited in vain."""
    return JobError(
        f"out = {output}: is being written by {holder}; this command waited {log.duration(wait)} "
        "(lock_wait); run it again when the other has finished"
    )


def _describe(record: Path) -> str:
    try:
        holder = Holder.read(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        holder = None
    return str(holder or "another process")
