"""A raydist command that is killed at a known moment, however fast or slow the machine is."""

from __future__ import annotations

import signal
import subprocess
import sys

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
