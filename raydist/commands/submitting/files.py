"""Which files of the working directory travel with a job."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from raydist import log
from raydist.errors import ConfigError

_LARGEST_FILE = 10 << 20
_LARGEST_PACKAGE = 100 << 20
_SKIP = {"__pycache__", "venv", "node_modules", "out", "build", "dist", "mlruns"}


def package_files(root: Path) -> list[Path]:
    """Returns the files of the working directory that travel with a job.

    Raises:
        ConfigError: a file or the whole is too large: data is to be named by path or URI.
    """
    files = _git_files(root)
    if files is None:
        files = [
            path
            for path in sorted(root.rglob("*"))
            if path.is_file()
            and not any(p.startswith(".") or p in _SKIP for p in path.relative_to(root).parts)
        ]
    sizes = {path: path.stat().st_size for path in files}
    for path, nbytes in sizes.items():
        if nbytes > _LARGEST_FILE:
            raise ConfigError(
                f"submit: {path.relative_to(root)} has {log.size(nbytes)}: data does not travel "
                f"with a job; put it on storage that the cluster sees, or ignore it in .gitignore"
            )
    if sum(sizes.values()) > _LARGEST_PACKAGE:
        raise ConfigError(
            f"submit: the working directory has {log.size(sum(sizes.values()))}, at most "
            f"{log.size(_LARGEST_PACKAGE)} travel with a job; ignore what it does not need"
        )
    return files


def check_travels(names: Sequence[str], root: Path, files: Sequence[Path]) -> None:
    """Raises ConfigError for a name that the job would not find in its own working directory."""
    travelling = set(files)
    for name in names:
        if os.path.isabs(name) or Path(os.path.normpath(root / name)) not in travelling:
            raise ConfigError(
                f"submit: {name}: does not travel with the job: expected a file below the working "
                f"directory {root}, named from there, that git does not ignore"
            )


def _git_files(root: Path) -> list[Path] | None:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    paths = [root / os.fsdecode(name) for name in listed.split(b"\0") if name]
    return [path for path in paths if path.is_file()]
