from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from raydist import locks
from raydist.errors import JobError

HOLD = """
import sys, time
from raydist import locks
with locks.writer(sys.argv[1], 5):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path: Path, seconds: float = 60) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_holds_the_output(tmp_path: Path) -> None:
    process = holder(tmp_path / "out")
    try:
        began = time.monotonic()
        with pytest.raises(JobError) as failure, locks.writer(tmp_path / "out", 0):
            pass
        assert time.monotonic() - began < 1
        message = str(failure.value)
        assert f"out = {tmp_path / 'out'}: is being written by process {process.pid} on " in message
        assert "lock_wait" in message and " since 20" in message
        with pytest.raises(JobError, match=r"waited 0\.3 s"), locks.writer(tmp_path / "out", 0.3):
            pass
    finally:
        process.kill()
        process.wait()


def test_a_second_writer_waits_for_its_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = holder(tmp_path / "out", 0.5)
    with locks.writer(tmp_path / "out", 20):
        pass
    assert process.wait(10) == 0
    assert f"waiting up to 20.0 s for process {process.pid}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_was_killed_is_taken_over_at_once(tmp_path: Path) -> None:
    process = holder(tmp_path / "out")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.lock", ".out.lock.json"]
    (tmp_path / "..out.lock.json.0123456789ab.part").touch()  # of one killed a moment earlier
    with locks.writer(tmp_path / "out", 0):
        assert str(os.getpid()) in (tmp_path / ".out.lock.json").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_nested_call_of_the_same_thread_does_not_wait_for_itself(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    refused: list[str] = []

    def other() -> None:
        try:
            with locks.writer(tmp_path / "out", 0):
                pass
        except JobError as error:
            refused.append(str(error))

    with locks.writer(tmp_path / "out", 0):
        with locks.writer(tmp_path / "link", 0):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert (tmp_path / ".out.lock").exists()
    assert len(refused) == 1
    with locks.writer(tmp_path / "out", 0):
        pass


def test_many_writers_of_one_output_take_turns(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from raydist import locks
for _ in range(20):
    with locks.writer(sys.argv[1], 60):
        count = Path(sys.argv[1] + ".count")
        value = int(count.read_text() or 0) if count.exists() else 0
        time.sleep(0.001)
        count.write_text(str(value + 1))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert (tmp_path / "out.count").read_text() == "80"


def test_where_the_parent_cannot_be_written_the_lock_lies_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "closed/out"
    out.mkdir(parents=True)
    # Root may write everywhere, so the answer is that which another user gets.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out.parent)
    with locks.writer(out, 0):
        assert (out / ".lock").exists()
        assert not (out.parent / ".out.lock").exists()


AS_NOBODY = """
import os, sys
import filelock
from raydist import locks
from raydist.errors import JobError
with locks.writer(sys.argv[1] + "/first", 0):  # loads what nobody may not read
    pass
os.setgid(65534), os.setuid(65534)
try:
    with locks.writer(sys.argv[1] + "/out", 60):
        print("held")
except JobError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_lock_file_of_another_user_is_no_writer(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as place:  # other users cannot enter pytest's folder
        os.chmod(place, 0o1777)
        lock = Path(place, ".out.lock")
        lock.touch(0o644)
        command = [sys.executable, "-c", AS_NOBODY, place]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert result.stdout == (
            f"out = {place}/out: cannot be locked: {lock}: Permission denied (it is root's); "
            "have it allowed or choose another out=, then run the same command again\n"
        ), result.stderr


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_cannot_be_locked_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Immutable folders and mounts that turned read-only pass the check of permissions."""
    real = os.open

    def refuse(path: str, flags: int, *args: int, **keys: int) -> int:
        if str(path).endswith(".out.lock"):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *args, **keys)

    monkeypatch.setattr(os, "open", refuse)
    reason = f"cannot be locked: .*: {os.strerror(number)}; have it"
    with pytest.raises(JobError, match=reason), locks.writer(tmp_path / "out", 60):
        pass
