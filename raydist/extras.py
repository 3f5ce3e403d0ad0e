"""Packages beyond the core, by the extra that installs them: `pip install 'raydist[train]'`.

The core indexes, searches and evaluates. What a command needs beyond it is looked for before work
begins; a package that is missing all the same is named when it is imported.
"""

from __future__ import annotations

import functools
import importlib.util

from raydist import log
from raydist.errors import ConfigError

_PACKAGES = {
    "train": (
        *("torch", "transformers", "tokenizers", "safetensors", "peft", "deepspeed"),
        *("cloudpickle", "faiss", "huggingface_hub"),
    ),
    "serve": ("fastapi", "starlette", "uvicorn", "httpx"),
    "mcp": ("mcp",),
    "ray": ("ray",),
    "track": ("mlflow", "matplotlib", "sqlalchemy"),
}


def extra_of(package: str) -> str | None:
    """Returns the extra that installs a package, None for packages of no extra."""
    top = package.partition(".")[0]
    return next((extra for extra, packages in _PACKAGES.items() if top in packages), None)


def is_installed(package: str) -> bool:
    """Returns whether a package can be imported; it is not imported."""
    return importlib.util.find_spec(package) is not None


def require(what: str, *packages: str) -> None:
    """Raises ConfigError if one of the packages is missing.

    Args:
        what: needs them: a verb, or a key with its value.
        packages: names as they are imported.
    """
    for package in packages:
        if not is_installed(package):
            raise missing(package, what)


def missing(package: str, what: str) -> ConfigError:
    """Returns the error of a package that is missing, with the command that installs it."""
    extra = extra_of(package)
    name = package.partition(".")[0]
    command = f"pip install '{f'raydist[{extra}]' if extra else name}'"
    return ConfigError(f"{what} needs {name}, which is not installed: {command}")


@functools.cache
def has_mlflow() -> bool:
    """Returns whether MLflow is installed; says once that nothing is tracked without it."""
    if is_installed("mlflow"):
        return True
    log.say("not tracked: MLflow is not installed (pip install 'raydist[track]')")
    return False
