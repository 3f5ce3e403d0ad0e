"""A raydist command that is killed at a known moment, however fast or slow the machine is."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from raydist.cli import main
from raydist.generations import Layout
from tests.outputs import results

_TIMES = ("seconds", "check")

_PROGRAM = """
import os, re, signal, sys

pattern = re.compile(sys.argv.pop(1))

def audit(event, arguments):
    if event == "os.rename" and pattern.search(os.fsdecode(arguments[1])):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(audit)
from raydist.cli import main
sys.exit(main(sys.argv[1:]))
"""

_PARENT = """
import json, os, signal, sys

from raydist.cli import main

def kill_at(moment, folder):
    left = moment
    def audit(event, arguments):
        nonlocal left
        place = {"os.rename": 1, "os.remove": 0, "shutil.rmtree": 0}.get(event)
        path = "" if place is None else os.path.abspath(os.fsdecode(arguments[place]))
        if not path.startswith(folder) or (place == 0 and not os.path.lexists(path)):
            return
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
    sys.addaudithook(audit)

os.fsync = lambda number: None  # nobody cuts the power
replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    moment, folder, words = json.loads(line)
    child = 0 if moment is None else os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    elif moment is None:
        code = main(words)
    else:
        kill_at(moment, folder)
        code = 99
        try:
            code = main(words)
        finally:
            os._exit(code)
    print(code, file=replies, flush=True)
"""


def run_until(pattern: str, *words: str) -> None:
    """Runs a command that dies by SIGKILL before it puts a file or folder in place.

    Args:
        pattern: matches the path at which the file or folder would have been.
        words: those of the command line.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, pattern, *words], stderr=subprocess.PIPE, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-3000:]


class Killer:
    """Kills commands at each change to a folder: what is put in place there, or removed.

    The commands are children of a process that has run them before, so that each takes a fraction
    of a second.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PARENT],
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # a child has none of its parent's threads
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Killer:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, words: Sequence[str]) -> int:
        """Runs a command to its end, and returns its exit code."""
        return self._run(None, "", words)

    def moments(self, folder: Path, words: Sequence[str]) -> Iterator[int]:
        """Yields 0, 1, ... each after the command died before its first, second, ... change.

        Ends when the command has no further change.

        Args:
            folder: what changes; it has to be as it was whenever the next moment is asked for.
            words: of the command line.
        """
        for moment in itertools.count():
            code = self._run(moment, str(folder), words)
            if code == 0:
                return
            assert code == -signal.SIGKILL, f"exit code {code}"
            yield moment

    def _run(self, moment: int | None, folder: str, words: Sequence[str]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([moment, folder, words]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


def encoded_change(change: str, inputs: Path, before: Path, start: Path) -> list[str]:
    """Copies an output of `embed` to `start`; returns the words that change it.

    Args:
        change: append, delete, or merge, which is of both.
        inputs: has `more.jsonl` and `ids.txt`.
        before: the output.
        start: created.
    """
    shutil.copytree(before, start)
    words = {
        "append": ["embed", f"corpus={inputs}/more.jsonl", "duplicates=last", "--append"],
        "delete": ["embed", f"delete={inputs}/ids.txt"],
        "merge": ["merge"],
    }
    if change == "merge":
        for each in ("append", "delete"):
            assert main([*words[each], f"out={start}"]) == 0
    return words[change]


def check_generations(
    killer: Killer,
    words: Sequence[str],
    start: Path,
    folder: Path,
    layout: Layout,
    answers: Callable[[Path], Any],
) -> None:
    """Kills a command at each change: the old generation or the new one is left, none between.

    When it is run again it ends in the bytes of one that nobody killed.

    Args:
        killer: runs it.
        words: of the command line, without `out`.
        start: a folder before the change.
        folder: where it is changed; what is beside it is removed.
        layout: of such folders.
        answers: returns what searches of a folder answer, and what it stores.
    """

    def begin() -> None:
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(start, folder)

    def written() -> tuple[dict[str, bytes], Any]:
        manifest = json.loads((folder / "manifest.json").read_text())
        return results(folder), {key: each for key, each in manifest.items() if key not in _TIMES}

    command = [*words, f"out={folder}"]
    begin()
    old = answers(folder)
    assert killer.run(command) == 0
    new, end = answers(folder), written()
    begin()
    seen = []
    for _ in killer.moments(folder.parent, command):
        seen.append("old" if (now := answers(folder)) == old else now == new and "new")
        assert main(command) == 0
        assert (answers(folder), *written()) == (new, *end)
        assert layout.leftovers(folder) == []
        begin()
    before = seen.count("old")
    assert 0 < before < len(seen) and seen == ["old"] * before + ["new"] * (len(seen) - before)
