"""The process of a service, `python -m raydist.api.served FILE`: it ends with the one it serves.

Its standard input is a pipe from the process that started it. The pipe closes when that one ends,
however it ends, and the service then stops as after SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from raydist.cli import main


def _stop_at_the_end() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_at_the_end, name="lifeline", daemon=True).start()
    sys.exit(main(["serve", *sys.argv[1:]]))
