"""The one restartable sharded map: index, embed, rerank and score all run through it.

The input is cut into splits by the data alone. Each split is worked on once, writes one shard, and
leaves a done marker; both appear atomically. A restart redoes what has no marker, so the result
does not depend on the number of workers, the order of arrival or crashes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raydist import cluster, errors
from raydist.errors import ArtifactError, JobError, RaydistError
from raydist.log import Progress, warn
from raydist.manifest import disk_errors, fingerprint, write_json

__all__ = ["Split", "Stats", "Work", "shard_path", "sharded_map"]

Split = Mapping[str, Any]
"""JSON values that describe a part of the input; `size` is its weight for the progress display."""
Stats = dict[str, Any]
"""What a shard's work returns; `documents` (or `unit`) and `bytes` feed the progress display."""
Work = Callable[[Split, Path], Stats]


def shard_path(folder: Path, number: int) -> Path:
    """Returns where the shard of split `number` is published."""
    return folder / f"{number:05d}"


def sharded_map(
    splits: Sequence[Split],
    make_worker: Callable[[], Work],
    folder: Path,
    *,
    workers: int = 0,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
    label: str = "shards",
    unit: str = "documents",
    retries: int = 3,
) -> list[Stats]:
    """Returns the stats of every split's shard, in the order of the splits.

    Args:
        splits: descriptors, fixed by the data.
        make_worker: called once per worker; returns `work(split, target)`, which writes a file or
            folder at `target` (it does not exist yet) and returns its stats. It must be picklable.
        folder: where the shards go, as `00000`, `00001`, ...; on a cluster a path that every node
            sees.
        workers: Ray actors; 0 works in this process, without Ray.
        cpus_per_worker: CPUs of an actor.
        gpus_per_worker: GPUs of an actor.
        label: what the progress display calls the stage.
        unit: what is counted, a key of the stats.
        retries: how often a failing split is tried before it is named.

    Raises:
        JobError: a split keeps failing, the disk is full, or resources are missing.
        ArtifactError: `folder` holds shards of other splits.
        RaydistError: whatever mistake of the user a worker found.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _check_same_splits(folder, splits)
    done = {i: stats for i, stats in _done(folder).items() if i < len(splits)}
    pending = [i for i in range(len(splits)) if i not in done]
    _sweep(folder)
    weight = sum(_weight(splits[i]) for i in pending)
    if pending:
        with Progress(label, unit=unit, share_total=weight) as progress:
            run = _in_process if workers == 0 else _on_ray
            options = (workers, cpus_per_worker, gpus_per_worker, retries)
            for i, stats in run(splits, pending, make_worker, folder, options):
                done[i] = stats
                progress.advance(
                    int(stats.get(unit, 1)), int(stats.get("bytes", 0)), _weight(splits[i])
                )
        _sweep(folder)
    return [done[i] for i in range(len(splits))]


def _in_process(
    splits: Sequence[Split],
    pending: Sequence[int],
    make_worker: Callable[[], Work],
    folder: Path,
    options: tuple[int, float, float, int],
) -> Iterator[tuple[int, Stats]]:
    work = make_worker()
    for i in pending:
        with disk_errors(folder):
            yield i, _publish(work, splits[i], i, folder)


def _on_ray(
    splits: Sequence[Split],
    pending: Sequence[int],
    make_worker: Callable[[], Work],
    folder: Path,
    options: tuple[int, float, float, int],
) -> Iterator[tuple[int, Stats]]:
    """Streams the splits through an actor pool; what a crash left over goes round again.

    Ray restarts actors that die and repeats their task. Where the work itself raises, the whole
    stream fails: then the splits without a marker are streamed again, and a split that was begun
    `retries` times without coming to an end is named.
    """
    workers, cpus, gpus, retries = options
    cluster.connect()
    cluster.require(min(workers, len(pending)), cpus, gpus)
    import ray
    import ray.data
    from ray.exceptions import RayError

    ray.data.DataContext.get_current().enable_progress_bars = False
    left = list(pending)
    while left:
        items = [{"number": i, "split": json.dumps(splits[i])} for i in left]
        stream = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(items))),
            fn_constructor_args=(make_worker, str(folder.absolute()), retries, os.getcwd()),
            num_cpus=cpus,
            num_gpus=gpus or None,
        )
        finished: set[int] = set()
        try:
            for row in stream.iter_rows():
                answer = json.loads(row["answer"])
                _raise(answer)
                finished.add(answer["number"])
                yield answer["number"], answer["stats"]
        except RayError as error:
            published = _done(folder)
            for i in left:
                if i in published and i not in finished:
                    finished.add(i)
                    yield i, published[i]
            tired = [i for i in left if i not in finished and _attempts(folder, i) >= retries]
            if tired:
                raise JobError(
                    f"split {tired[0]} ({json.dumps(splits[tired[0]])}) failed "
                    f"{_attempts(folder, tired[0])} times: {_Attempt.reason(folder, tired[0])}"
                ) from error
            reasons = [_Attempt.reason(folder, i) for i in left if _attempts(folder, i)]
            warn(f"a worker failed ({'; '.join(reasons)}); trying its split again")
        left = [i for i in left if i not in finished]


class _Actor:
    """Works on one split after another inside a Ray Data actor."""

    def __init__(
        self, make_worker: Callable[[], Work], folder: str, retries: int, place: str
    ) -> None:
        self._make_worker = make_worker
        self._work: Work | None = None  # made with the first split: its mistakes are answers too
        self._folder = Path(folder)
        self._retries = retries
        with contextlib.suppress(OSError):  # relative paths mean what they mean to the user
            os.chdir(place)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        number, split = int(batch["number"][0]), json.loads(str(batch["split"][0]))
        answer: dict[str, Any] = {"number": number}
        marker = _marker(self._folder, number)
        if marker.exists():  # another actor, or this one before it was restarted, was here
            return {"answer": [json.dumps(answer | {"stats": _read_marker(marker)})]}
        attempts = _attempts(self._folder, number)
        if attempts >= self._retries:
            answer["error"] = (
                "JobError",
                f"split {number} ({json.dumps(split)}) was begun {attempts} times and its worker "
                f"never came back: it may need more memory than a worker has",
            )
            return {"answer": [json.dumps(answer)]}
        try:
            with disk_errors(self._folder), _Attempt(self._folder, number):
                self._work = self._work or self._make_worker()
                answer["stats"] = _publish(self._work, split, number, self._folder)
        except RaydistError as error:
            answer["error"] = (type(error).__name__, str(error))
        return {"answer": [json.dumps(answer)]}


class _Attempt:
    """Counts the beginnings of a split in a file, and why they failed if the worker could say."""

    def __init__(self, folder: Path, number: int) -> None:
        self._file = folder / f".{number:05d}.attempts"
        self._begun = f"{_attempts(folder, number) + 1}\n"

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


def _raise(answer: Mapping[str, Any]) -> None:
    if "error" in answer:
        name, message = answer["error"]
        raise getattr(errors, name)(message)


def _publish(work: Work, split: Split, number: int, folder: Path) -> Stats:
    """Runs the work and makes its shard and its marker appear atomically, in that order."""
    final = shard_path(folder, number)
    partial = folder / f".{number:05d}.{uuid.uuid4().hex[:8]}.part"
    stats = work(split, partial)
    if final.exists():  # published by a worker that died before its marker
        _remove(final)
    try:
        os.rename(partial, final)
    except OSError as error:
        # two workers on one split, after a false alarm about a dead node: same bytes, first wins
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _remove(partial)
    write_json(_marker(folder, number), {"stats": stats, "check": fingerprint(stats)})
    return stats


def _check_same_splits(folder: Path, splits: Sequence[Split]) -> None:
    record = folder / ".splits.json"
    now = {"count": len(splits), "fingerprint": fingerprint(list(splits))}
    if record.exists():
        if json.loads(record.read_text()) != now:
            raise ArtifactError(
                f"{folder}: the shards there were made from another input or other splits; "
                f"delete {folder} to begin anew"
            )
        return
    write_json(record, now)


def _marker(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.done"


def _read_marker(path: Path) -> Stats:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        stats: Stats = data["stats"]
        intact = data["check"] == fingerprint(stats)
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise ArtifactError(f"{path} is corrupted: delete it and run the same command again")
    return stats


def _done(folder: Path) -> dict[int, Stats]:
    return {int(path.stem): _read_marker(path) for path in sorted(folder.glob("[0-9]*.done"))}


def _sweep(folder: Path) -> None:
    """Removes what crashed workers left half-written, and the counts of attempts."""
    for path in (*folder.glob(".*.part"), *folder.glob(".*.attempts")):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _attempts(folder: Path, number: int) -> int:
    try:
        return int((folder / f".{number:05d}.attempts").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _weight(split: Split) -> float:
    return float(split.get("size", 1))
