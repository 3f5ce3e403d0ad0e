"""Model folders inside installed Python packages: `package:NAME/FOLDER`. Loads no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from raydist.errors import DataError

PACKAGE = "package:"


def packaged(name: str) -> Path:
    """Returns the folder of `package:NAME/FOLDER`, and any other name as a path.

    Raises:
        DataError: no such package is installed.
    """
    if not name.startswith(PACKAGE):
        return Path(name)
    package, _, inside = name.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise DataError(f"model {name}: no Python package {package!r} is installed")
    return Path(spec.origin).parent / inside
