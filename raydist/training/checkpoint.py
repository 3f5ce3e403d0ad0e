"""Where a run's state is kept so that it can go on: atomic, complete or not there.

A checkpoint is a folder: what the engine wrote (weights and optimizer, each rank its shard),
`loop.json` (the sampler's two integers, the listeners' states) and nothing of the random state,
which is a function of (seed, step, rank).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from raydist.disk import disk_errors, write_json
from raydist.errors import ArtifactError

STATE = "loop.json"
_NAME = re.compile(r"step-(\d+)")


class CheckpointStore(Protocol):
    """Keeps checkpoints; called by every rank at the same steps."""

    def save(self, step: int, write: Callable[[Path], None], state: Mapping[str, Any]) -> None:
        """Keeps a checkpoint: `write` puts this rank's files into the folder that it is given."""
        ...

    def latest(self) -> Path | None:
        """Returns the newest complete checkpoint's folder, None if there is none."""
        ...


def read_state(folder: Path) -> dict[str, Any]:
    """Returns a checkpoint's `loop.json`.

    Raises:
        ArtifactError: the folder is not a complete checkpoint.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: not a complete checkpoint ({error})") from None
    assert isinstance(state, dict)
    return state


class LocalCheckpoints:
    """Checkpoints in a folder that every rank sees: `FOLDER/step-00000100`.

    All ranks write into a folder of another name; rank 0 renames it when all are done, so that a
    checkpoint is complete or not there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 2,
        rank: int = 0,
        barrier: Callable[[], None] = lambda: None,
    ) -> None:
        """Keeps the newest `keep` checkpoints; `barrier` waits for all ranks."""
        self.folder = folder
        self._keep = keep
        self._first = rank == 0
        self._barrier = barrier

    def save(self, step: int, write: Callable[[Path], None], state: Mapping[str, Any]) -> None:
        """Writes a checkpoint and removes the oldest ones beyond `keep`."""
        target = self.folder / f"step-{step:08}"
        partial = self.folder / f".{target.name}.part"
        with disk_errors(self.folder):
            if self._first:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            self._barrier()
            write(partial)
            self._barrier()
            if self._first:
                write_json(partial / STATE, state)
                shutil.rmtree(target, ignore_errors=True)
                os.replace(partial, target)
                for old in self._complete()[: -self._keep]:
                    shutil.rmtree(old)
            self._barrier()

    def latest(self) -> Path | None:
        """Returns the newest checkpoint's folder, None if there is none."""
        found = self._complete()
        return found[-1] if found else None

    def _complete(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        found = [f for f in self.folder.iterdir() if _NAME.fullmatch(f.name)]
        return sorted((f for f in found if (f / STATE).exists()), key=lambda f: f.name)
