"""Where local models lie: folders, training runs, and folders of installed packages.

`package:NAME/FOLDER` is a folder inside an installed Python package. Nothing is loaded here.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from raydist.errors import DataError

PACKAGE = "package:"
FINISHED = "checkpoint-final"
ADAPTER_CONFIG = "adapter_config.json"


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


def local_folder(name: str, path: Path | None = None) -> Path | None:
    """Returns the folder of a local model or training run, None for a name on the hub.

    Args:
        name: a path, or a name.
        path: of the local copy of a URI.

    Raises:
        DataError: there is no such folder, or it holds no model.
    """
    path = packaged(name) if path is None else path
    if path.is_dir():
        if (path / FINISHED).is_dir():
            path = path / FINISHED
        known = (path / "modules.json", path / ADAPTER_CONFIG)
        problem = _no_model(path / "config.json")
        if any(file.is_file() for file in known) or not problem:
            return path
        if (path / "metrics.jsonl").is_file():
            raise DataError(f"model {path}: a training run without {FINISHED}: it has not finished")
        raise DataError(f"model {path}: {problem}")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise DataError(f"model {name}: no such folder")
    return None


def _no_model(config: Path) -> str:
    """Returns why a file is no model's configuration (a run's has the same name), or nothing."""
    try:
        record = json.loads(config.read_text(encoding="utf-8"))
    except OSError:
        return "this folder has no config.json of a model"
    except ValueError as error:
        return f"its config.json is not JSON ({error})"
    if isinstance(record, dict) and record.get("model_type"):
        return ""
    return "its config.json names no model_type, so it is no model of transformers"
