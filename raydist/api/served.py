"""The process of a service, `python -m raydist.api.served FILE`: it ends with the one it serves.

Its standard input is a pipe from the process that started it. A byte from there stops the service
as SIGTERM does, and so does the end of the pipe: it closes when that process ends, however it ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from raydist.cli import main


def _stop() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop, name="lifeline", daemon=True).start()
    sys.exit(main(["serve", *sys.argv[1:]]))
