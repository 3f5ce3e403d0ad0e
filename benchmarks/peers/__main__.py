"""Builds the environments of the peers: `python -m benchmarks.peers [names=onnx] [peers=FOLDER]`.

Benchmarks build what they need by themselves; this builds all ahead. One that the package registry
does not give is left out with a line that says why, and its figures are null.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.environment import CACHE, ENVIRONMENTS, Unavailable, environment
from benchmarks.report import arguments


def main() -> None:
    options = arguments({"names": ",".join(ENVIRONMENTS), "peers": str(CACHE)})
    for name in options["names"].split(","):
        if name not in ENVIRONMENTS:
            raise SystemExit(f"names={name}: expected {', '.join(ENVIRONMENTS)}")
        try:
            print(f"{name}: {environment(name, Path(options['peers'])).parent}", flush=True)
        except Unavailable as error:
            print(f"{name}: left out: {error}", flush=True)


if __name__ == "__main__":
    main()
