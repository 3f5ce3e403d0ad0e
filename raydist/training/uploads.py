"""Checkpoints of a run that goes to an object store, put beside training.

Every rank writes its part of a checkpoint to its own disk, and a thread puts it while training goes
on; before the next one, and at the end, each waits for its own. A part is marked when it is there,
and a checkpoint counts once its state and the marks of all ranks are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock

from raydist.disk import disk_errors, remove
from raydist.errors import ArtifactError
from raydist.fingerprints import value_fingerprint
from raydist.stores.copies import partial_path
from raydist.stores.objects import Objects
from raydist.training.checkpoint import CHECKPOINTS, STATE
from raydist.training.nodes import MARK, RunFolder, complete, files_of

_RESUME = ".resume"


class AreaCheckpoints:
    """States in a run's area; the interface of `Checkpoints`.

    Args:
        run: the run's folder.
        keep: how many of the newest are kept.
        rank: of this process.
        world_size: number of processes.
        barrier: waits for all ranks.
        broadcast: returns rank 0's value.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        keep: int = 2,
        rank: int = 0,
        world_size: int = 1,
        barrier: Callable[[], None] = lambda: None,
        broadcast: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        self._run = run
        self._keep = keep
        self._rank = rank
        self._world = world_size
        self._barrier = barrier
        self._broadcast = broadcast
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None
        self._latest: tuple[Path | None] | None = None

    def save(self, step: int, write: Callable[[Path], None], state: Mapping[str, Any]) -> None:
        """Writes a checkpoint and begins to put it; what is older than the newest `keep` goes.

        Args:
            step: optimizer steps done.
            write: writes this rank's files to the given folder.
            state: JSON values, put by rank 0.

        Raises:
            JobError: this rank's part of the last checkpoint could not be put.
        """
        self.finish()
        objects, target = self._run.objects, f"{CHECKPOINTS}/step-{step:08}"
        partial = self._run.here / f".step-{step:08}-rank-{self._rank:05}.part"
        if self._rank == 0:
            _delete(objects, objects.names(target))  # of an attempt that did not end
        self._barrier()
        with disk_errors(self._run.here):
            remove(partial)
            write(partial)
            files = {
                f"{target}/{path.relative_to(partial).as_posix()}": path
                for path in files_of(partial)
            }
            record = {}
            if self._rank == 0:
                record = self._run.copy_record(partial)
        mark = f"{target}/{MARK}{self._rank:05}-of-{self._world}"

        def put() -> None:
            objects.upload({**files, **record})
            objects.write(mark, b"")
            if self._rank == 0:
                objects.write(f"{target}/{STATE}", json.dumps(state, indent=1).encode())
            remove(partial)

        self._pending = self._thread.submit(put)

    def finish(self) -> None:
        """Waits until the last checkpoint is there; every rank calls it.

        Raises:
            JobError: this rank's part could not be put.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        pending.result()
        self._barrier()
        if self._rank == 0:
            self._prune()

    def latest(self) -> Path | None:
        """Returns a local copy of the newest checkpoint, rank 0's choice; None if there is none."""
        if self._latest is None:
            names = self._run.objects.names(CHECKPOINTS) if self._rank == 0 else {}
            whole = complete(names)
            chosen = self._broadcast(whole[-1] if whole else None)
            self._latest = (None if chosen is None else self._copy(chosen),)
        return self._latest[0]

    def _copy(self, name: str) -> Path:
        """Copies a checkpoint; the ranks of a node copy it once."""
        prefix = f"{CHECKPOINTS}/{name}/"
        entries = self._run.objects.names(prefix)
        tag = value_fingerprint({each: entry.tag for each, entry in entries.items()})
        parent = self._run.area.here / _RESUME
        parent.mkdir(exist_ok=True)
        target = parent / f"{name}-{tag}"
        with FileLock(parent / ".lock"):
            if not target.is_dir():
                for old in parent.glob("step-*"):
                    remove(old)
                partial = partial_path(target)
                short = {each: partial / each.removeprefix(prefix) for each in entries}
                self._run.objects.download(entries, short)
                os.replace(partial, target)
        if not (target / STATE).exists():
            raise ArtifactError(f"{self._run.objects.uri}/{prefix}: was removed meanwhile")
        return target

    def _prune(self) -> None:
        names = self._run.objects.names(CHECKPOINTS)
        kept = complete(names)[-self._keep :]
        _delete(self._run.objects, [name for name in names if name.split("/")[1] not in kept])


def _delete(objects: Objects, names: Iterable[str]) -> None:
    """Removes checkpoints: their states first, so that none is taken for a whole one."""
    names = list(names)
    objects.delete(name for name in names if name.endswith(f"/{STATE}"))
    objects.delete(name for name in names if not name.endswith(f"/{STATE}"))
