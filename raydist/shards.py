"""The one restartable sharded map: index, embed, rerank and score all run through it.

The input is cut into splits by the data alone. Each split is worked on once, writes one shard, and
leaves a done marker; both appear atomically. A restart redoes what has no marker, so the result
does not depend on the number of workers, the order of arrival or crashes.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raydist import cluster, errors
from raydist.disk import disk_errors, remove
from raydist.errors import JobError, RaydistError
from raydist.log import Progress, plural, warn
from raydist.shard_files import (
    Attempt,
    Split,
    Stats,
    Work,
    attempts,
    check_same_splits,
    done_shards,
    marker,
    publish,
    read_done,
    shard_path,
    splits_file,
    sweep,
)
from raydist.stores.nodes import Area, fetched


class _Pool(NamedTuple):
    """How many workers, the CPUs and GPUs of each, and how often they try a split."""

    workers: int
    cpus: float
    gpus: float
    retries: int
    area: Area | None


def sharded_map(
    splits: Sequence[Split],
    make_worker: Callable[[], Work],
    folder: Path,
    *,
    workers: int = 0,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
    label: str = "shards",
    unit: str = "document",
    retries: int = 3,
) -> list[Stats]:
    """Returns the stats of every split's shard, in the order of the splits.

    Args:
        splits: descriptors, fixed by the data.
        make_worker: called once per worker; returns `work(split, target)`, which writes a file or
            folder at `target` (it does not exist yet) and returns its stats. It must be picklable.
        folder: where the shards go, as `00000`, `00001`, ...; on a cluster a path that every node
            sees, or one on its way to an object store: then the workers put their shards there, and
            paths below that folder which `make_worker` holds are copied to their nodes.
        workers: Ray actors; 0 works in this process, without Ray.
        cpus_per_worker: CPUs of an actor.
        gpus_per_worker: GPUs of an actor.
        label: what the progress display calls the stage.
        unit: what is counted, in the singular; its plural is a key of the stats.
        retries: how often a failing split is tried before it is named.

    Raises:
        JobError: a split keeps failing, the disk is full, or resources are missing.
        ArtifactError: `folder` holds shards of other splits.
        RaydistError: a user's mistake that a worker met.
    """
    area = Area.of(folder) if workers else None
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if area is not None:
            _resume(area, folder)
        check_same_splits(folder, splits)
        if area is not None:
            area.put(area.name(splits_file(folder)))
    done = {i: stats for i, stats in done_shards(folder).items() if i < len(splits)}
    pending = [i for i in range(len(splits)) if i not in done]
    sweep(folder)
    weight = sum(_weight(splits[i]) for i in pending)
    if pending:
        with Progress(label, unit=unit, share_total=weight) as progress:
            run = _in_process if workers == 0 else _on_ray
            pool = _Pool(workers, cpus_per_worker, gpus_per_worker, retries, area)
            for i, stats in run(splits, pending, make_worker, folder, pool):
                done[i] = stats
                progress.advance(
                    int(stats.get(plural(unit), 1)), int(stats.get("bytes", 0)), _weight(splits[i])
                )
        sweep(folder)
    return [done[i] for i in range(len(splits))]


def _in_process(
    splits: Sequence[Split],
    pending: Sequence[int],
    make_worker: Callable[[], Work],
    folder: Path,
    pool: _Pool,
) -> Iterator[tuple[int, Stats]]:
    work = make_worker()
    for i in pending:
        with disk_errors(folder):
            yield i, publish(work, splits[i], i, folder)


def _on_ray(
    splits: Sequence[Split],
    pending: Sequence[int],
    make_worker: Callable[[], Work],
    folder: Path,
    pool: _Pool,
) -> Iterator[tuple[int, Stats]]:
    """Streams the splits through an actor pool, and again those that a crash left over.

    Ray restarts actors that die and repeats their task. Where the work itself raises, the whole
    stream fails: then the splits without a marker are streamed again. A split that was begun
    `retries` times without an end is named.
    """
    workers, cpus, gpus, retries, area = pool
    cluster.require(min(workers, len(pending)), cpus, gpus)
    import ray
    import ray.data
    from ray.exceptions import RayError

    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # the console; its file says everything
            handler.setLevel(logging.ERROR)
    packed = _packed(make_worker, area)
    remaining, futile = list(pending), 0
    while remaining:
        items = [{"number": i, "split": json.dumps(splits[i])} for i in remaining]
        stream = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(items))),
            fn_constructor_args=(packed, str(folder.absolute()), retries, os.getcwd(), area),
            num_cpus=cpus,
            num_gpus=gpus or None,
        )
        finished: set[int] = set()
        try:
            for row in stream.iter_rows():
                answer = json.loads(row["answer"])
                _raise(answer)
                finished.add(answer["number"])
                if area is not None:
                    area.fetch_shards(folder, [shard_path(folder, answer["number"]).name])
                yield answer["number"], answer["stats"]
        except RayError as error:
            if area is not None:
                _resume(area, folder)
            published = done_shards(folder)
            for i in remaining:
                if i in published and i not in finished:
                    finished.add(i)
                    yield i, published[i]
            exhausted = [
                i for i in remaining if i not in finished and attempts(folder, i) >= retries
            ]
            if exhausted:
                raise JobError(
                    f"split {exhausted[0]} ({json.dumps(splits[exhausted[0]])}) failed "
                    f"{attempts(folder, exhausted[0])} times: "
                    f"{Attempt.reason(folder, exhausted[0])}"
                ) from error
            reasons = [Attempt.reason(folder, i) for i in remaining if attempts(folder, i)]
            reason = "; ".join(reasons) or _last_line(error)
            futile = 0 if finished else futile + 1
            if futile >= retries:  # no worker came as far as to count its attempts
                raise JobError(
                    f"{folder}: {retries} times the workers failed before any split was done: "
                    f"{reason}"
                ) from error
            warn(f"a worker failed ({reason}); trying its split again")
        remaining = [i for i in remaining if i not in finished]


class _Actor:
    """Works on one split after another inside a Ray Data actor."""

    def __init__(
        self, packed: bytes, folder: str, retries: int, directory: str, area: Area | None
    ) -> None:
        self._packed = packed
        self._work: Work | None = None  # created with the first split: its mistakes are answers too
        self._folder = Path(folder)
        self._retries = retries
        self._area = area
        if area is not None:
            self._folder = area.here / self._folder.relative_to(area.root)
            self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # a relative path means what it means to the user
            os.chdir(directory)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        number, split = int(batch["number"][0]), json.loads(str(batch["split"][0]))
        answer: dict[str, Any] = {"number": number}
        try:
            done = read_done(self._folder, number) or self._put_before(number)
            if done is not None:  # by another actor, or by this one before it was restarted
                return {"answer": [json.dumps(answer | {"stats": done})]}
            self._check(number, split)
            with disk_errors(self._folder), Attempt(self._folder, number):
                if self._work is None:
                    self._work = pickle.loads(self._packed)()  # noqa: S301 - the driver's
                answer["stats"] = publish(self._work, split, number, self._folder)
                self._put(number)
        except RaydistError as error:
            answer["error"] = (type(error).__name__, str(error))
        return {"answer": [json.dumps(answer)]}

    def _put_before(self, number: int) -> Stats | None:
        """Returns the stats of a shard that a worker of another node has put."""
        if self._area is None:
            return None
        data = self._area.read(self._area.name(marker(self._folder, number)))
        return None if data is None else json.loads(data)["stats"]

    def _put(self, number: int) -> None:
        """Puts the shard, its marker last; it stays here only if this is the driver's folder."""
        if self._area is None:
            return
        shard, done = shard_path(self._folder, number), marker(self._folder, number)
        self._area.put(self._area.name(shard), self._area.name(done))
        if self._area.here != self._area.root:
            remove(done)
            remove(shard)

    def _check(self, number: int, split: Split) -> None:
        """Raises JobError if the work cannot succeed."""
        if not self._folder.is_dir():
            raise JobError(
                f"{self._folder}: the worker on {socket.gethostname()} does not see this folder; "
                "out= (or storage=) must be a path that every node sees, or on an object store"
            )
        begun = attempts(self._folder, number)
        if begun >= self._retries:
            raise JobError(
                f"split {number} ({json.dumps(split)}) was begun {begun} times and its worker "
                f"never came back: it may need more memory than a worker has"
            )


def _resume(area: Area, folder: Path) -> None:
    """Copies the shards that workers have put and the driver lacks."""
    names = {name.rsplit("/", 1)[-1] for name in area.names(area.name(folder))}
    record = splits_file(folder)
    if record.name in names and not record.exists():
        area.copy(record)
    area.fetch_shards(folder, sorted(Path(n).stem for n in names if n.endswith(".done")))


def _packed(make_worker: Callable[[], Work], area: Area | None) -> bytes:
    """Returns a pickle whose paths below the driver's folder are found on every node."""
    from ray.cloudpickle import CloudPickler

    names: list[str] = []

    class Pickler(CloudPickler):  # type: ignore[misc]
        def reducer_override(self, value: Any) -> Any:
            if area is not None and isinstance(value, Path) and area.root in value.parents:
                names.append(value.relative_to(area.root).as_posix())
                return fetched, (area, names[-1])
            return super().reducer_override(value)

    sink = io.BytesIO()
    Pickler(sink).dump(make_worker)
    if area is not None and names:
        area.offer(names)
    return sink.getvalue()


def _raise(answer: Mapping[str, Any]) -> None:
    if "error" in answer:
        name, message = answer["error"]
        raise getattr(errors, name)(message)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _weight(split: Split) -> float:
    return float(split.get("size", 1))
