"""Environments of peers: built once by pip, kept below the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from raydist.log import say

HERE = Path(__file__).parent
ENVIRONMENTS = tuple(sorted(file.stem for file in HERE.glob("*.txt")))
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raydist-benchmarks"
"""Where environments and exported models are kept, unless `peers=FOLDER` says otherwise."""


class Unavailable(Exception):
    """A peer that cannot run here; its message is recorded in place of the figures."""


def environment(name: str, cache: Path) -> Path:
    """Returns the folder with an environment's programs, built if it is missing.

    Its name holds a hash of its packages, so that other versions are another environment.

    Raises:
        Unavailable: pip could not install the packages.
    """
    packages = HERE / f"{name}.txt"
    digest = hashlib.sha256(packages.read_bytes()).hexdigest()[:8]
    folder = cache / f"{name}-{digest}"
    done = folder / "done"
    if not done.exists():
        say(f"building the environment of {name} in {folder}: some minutes")
        venv.create(folder, clear=True)
        # The list is whole, and leaves out what the peer does not need.
        pip = [sys.executable, "-m", "pip", "--python", folder, "install", "--quiet", "--no-deps"]
        result = subprocess.run([*pip, "--requirement", packages], capture_output=True, text=True)
        if result.returncode:
            shutil.rmtree(folder)
            raise Unavailable(f"{name}: {_reason(result.stderr)}")
        done.touch()
    return folder / "bin"


def _reason(stderr: str) -> str:
    """Returns pip's last error."""
    lines = stderr.strip().splitlines() or ["pip failed"]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines)[-1][:300]
