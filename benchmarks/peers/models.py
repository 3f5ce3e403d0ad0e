"""The models of the comparison in the forms that peers read, kept beside the environments."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.peers.environment import HERE, Unavailable, environment
from raydist.log import say


def exported(task: str, source: Path, max_length: int, cache: Path) -> Path:
    """Returns the folder with the forms of a model that `export.py` writes.

    Raises:
        Unavailable: the environment that exports cannot be built, or does not do it.
    """
    digest = hashlib.sha256((HERE / "export.py").read_bytes() + (HERE / "onnx.txt").read_bytes())
    digest.update(f"{task} {max_length} ".encode() + (source / "model.safetensors").read_bytes())
    folder = cache / f"{task}-{digest.hexdigest()[:8]}"
    if not folder.is_dir():
        python = environment("onnx", cache) / "python"
        say(f"exporting {source} into {folder}")
        with tempfile.TemporaryDirectory(dir=cache) as part:
            target = Path(part) / "model"
            words = [task, source, target, str(max_length)]
            result = subprocess.run(
                [python, HERE / "export.py", *words], capture_output=True, text=True
            )
            if result.returncode:
                lines = result.stderr.strip().splitlines() or ["failed"]
                raise Unavailable(f"export: {lines[-1][:300]}")
            say(f"fused: {result.stdout.strip()}")
            shutil.move(target, folder)
    return folder
