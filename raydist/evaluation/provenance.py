"""Where a run comes from: code, versions, machine."""

from __future__ import annotations

import getpass
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from raydist import __version__

_PACKAGES = (
    "ray", "torch", "transformers", "deepspeed", "pyarrow", "ir-measures", "mlflow", "numpy",
)  # fmt: skip


def git_state(folder: Path | None = None) -> dict[str, str]:
    """Returns commit, branch and whether tracked files differ from it; empty outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {
        "mlflow.source.git.commit": commit,
        "git.branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "git.dirty": str(bool(_git(folder, "status", "--porcelain", "-uno"))).lower(),
    }


def facts(folder: Path | None = None) -> dict[str, str]:
    """Returns tags of a run: git state, versions of raydist and its main packages, the machine."""
    found = {"raydist.version": __version__, "python.version": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[f"{name}.version"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found["host"] = platform.node()
    found["mlflow.source.name"] = " ".join(["raydist", *sys.argv[1:]])[:5000]
    try:
        found["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        found["mlflow.user"] = "unknown"
    return found | git_state(folder)


def _git(folder: Path | None, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
