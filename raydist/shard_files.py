"""What the sharded map writes to the disk: shards, done markers, and attempts at a split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raydist.disk import atomic, remove, write_json
from raydist.errors import ArtifactError
from raydist.fingerprints import value_fingerprint

Split = Mapping[str, Any]
"""JSON values that describe a part of the input; `size` is its weight for the progress display."""
Stats = dict[str, Any]
"""What a shard's work returns; `documents` (or `unit`) and `bytes` feed the progress display."""
Work = Callable[[Split, Path], Stats]


def shard_path(folder: Path, number: int) -> Path:
    """Returns where the shard of split `number` is published."""
    return folder / f"{number:05d}"


def publish(work: Work, split: Split, number: int, folder: Path) -> Stats:
    """Runs the work and makes its shard and its marker appear atomically, in that order."""
    shard = shard_path(folder, number)
    with atomic(shard, replace=False) as partial:
        stats = work(split, partial)
        earlier = read_done(folder, number)
        if earlier is not None:  # another worker, thought dead, was quicker: same bytes, first wins
            return earlier
        remove(shard)  # published by a worker that died before its marker
    write_json(marker(folder, number), {"stats": stats, "check": value_fingerprint(stats)})
    return stats


def done_shards(folder: Path) -> dict[int, Stats]:
    """Returns the stats of every shard that is complete, by its split's number."""
    numbers = (int(path.stem) for path in sorted(folder.glob("[0-9]*.done")))
    markers = ((number, read_done(folder, number)) for number in numbers)
    return {number: stats for number, stats in markers if stats is not None}


def read_done(folder: Path, number: int) -> Stats | None:
    """Returns a complete shard's stats, None if it is not complete.

    Raises:
        ArtifactError: its marker is damaged.
    """
    path = marker(folder, number)
    if not path.exists() or not shard_path(folder, number).exists():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        stats: Stats = data["stats"]
        intact = data["check"] == value_fingerprint(stats)
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise ArtifactError(f"{path} is corrupted: delete it and run the same command again")
    return stats


def check_same_splits(folder: Path, splits: Sequence[Split]) -> None:
    """Records what the splits are; raises ArtifactError if `folder` has shards of others."""
    record = splits_file(folder)
    now = {"count": len(splits), "fingerprint": value_fingerprint(list(splits))}
    if not record.exists():
        write_json(record, now)
        return
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{record} is corrupted: {error}; delete {folder} to start over"
        ) from None
    if before != now:
        raise ArtifactError(
            f"{folder}: its shards were made from another input or other splits; "
            f"delete it to start over"
        )


def splits_file(folder: Path) -> Path:
    """Returns the file that says what the splits are."""
    return folder / ".splits.json"


def sweep(folder: Path) -> None:
    """Removes what crashed workers left half-written, and the counts of attempts."""
    for path in (*folder.glob(".*.part"), *folder.glob(".*.attempts")):
        remove(path)


class Attempt:
    """Counts the beginnings of a split in a file, and why they failed if the worker could say."""

    def __init__(self, folder: Path, number: int) -> None:
        self._file = folder / f".{number:05d}.attempts"
        self._begun = f"{attempts(folder, number) + 1}\n"

    def __enter__(self) -> None:
        self._file.write_text(self._begun)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            self._file.unlink(missing_ok=True)
        else:
            self._file.write_text(f"{self._begun}{kind.__name__}: {error}")

    @staticmethod
    def reason(folder: Path, number: int) -> str:
        """Returns why the last attempt failed."""
        lines = (folder / f".{number:05d}.attempts").read_text().splitlines()
        return "; ".join(lines[1:]) or "the worker died"


def attempts(folder: Path, number: int) -> int:
    """Returns how often a split was begun without an end."""
    try:
        return int((folder / f".{number:05d}.attempts").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def marker(folder: Path, number: int) -> Path:
    """Returns the file that says that a shard is complete."""
    return folder / f"{number:05d}.done"
