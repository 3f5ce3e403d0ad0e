"""Where training runs: in this process, or on Ray Train's workers, restarted when one dies.

The only file that imports `ray.train`. Work is a picklable function of a `Place`; what it needs
lies in the run's folder, which every worker must see, or in the area of an output that goes to an
object store. State lives in the run's own checkpoints
(`raydist.training.checkpoint`): a restarted group of workers resumes from the newest complete one,
and a Ray run's name is never used twice, so that nothing is continued by accident.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raydist import cluster, errors
from raydist.disk import write_json
from raydist.errors import JobError, RaydistError
from raydist.log import say, warn
from raydist.stores.nodes import Area
from raydist.training.checkpoint import FINAL
from raydist.training.nodes import RunFolder
from raydist.training.spec import Resources

_ERROR = ".error.json"
_RESULT = ".result.json"
_RAY = ".ray"
_START_S = 1800
"""After so many seconds Ray Train asks for workers anew."""


@dataclass(frozen=True, slots=True)
class Place:
    """One of the processes that train together."""

    rank: int
    world_size: int
    device: torch.device

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.world_size > 1:
            dist.barrier()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Returns every rank's tensor, of one shape, on rank 0, and nothing elsewhere."""
        if self.world_size == 1:
            return [tensor]
        tensor = tensor.to(self.device).contiguous()
        tensors = [torch.empty_like(tensor) for _ in range(0 if self.rank else self.world_size)]
        dist.gather(tensor, tensors or None)
        return tensors

    def broadcast(self, value: Any) -> Any:
        """Returns rank 0's picklable value on every rank."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]


Work = Callable[[Place], dict[str, Any]]
"""The work of every worker; rank 0's JSON-able result is the run's."""


def fit(
    work: Work,
    folder: Path,
    resources: Resources = Resources(),  # noqa: B008  frozen
    *,
    area: Area | None = None,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """Does the work and returns rank 0's result.

    Args:
        work: picklable, if there are workers.
        folder: the run's folder; on a cluster every worker must see it, unless there is an area.
        resources: the workers, and their CPUs, which are also their torch threads.
        area: through which workers exchange files.
        callbacks: Ray Train's, if there are workers.

    Raises:
        JobError: resources are missing, or workers keep dying.
        RaydistError: a mistake of the user that the work met.
    """
    run = RunFolder(area, folder) if area is not None else None
    result: dict[str, Any]
    if resources.workers == 0:
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        with _threads(resources.threads):
            result = work(Place(0, 1, device))
        if run is not None:
            run.fetch_result()
        return result
    cluster.require(resources.workers, resources.cpus_per_worker, resources.gpus_per_worker)
    if idle := _idle_gpus(resources.workers, resources.gpus_per_worker, cluster.available()["GPU"]):
        warn(idle)
    if note := cluster.taken(
        resources.workers, resources.cpus_per_worker, resources.gpus_per_worker
    ):
        say(note)
    for name in (_ERROR, _RESULT):
        (folder / name).unlink(missing_ok=True)
    if run is not None:
        run.objects.delete([_ERROR, _RESULT])
    trainer = _trainer(work, folder, resources, area, callbacks)
    from ray.train import TrainingFailedError  # after the trainer has chosen Ray Train's version

    failure: TrainingFailedError | None = None
    try:
        trainer.fit()
    except TrainingFailedError as error:
        failure = error
    if run is not None:
        run.fetch(_ERROR)
    _raise_mistake(folder)
    if failure is not None:
        raise JobError(
            f"training failed after {resources.max_failures} replacements of its workers: "
            f"{_cause(failure)}; checkpoints are kept: run the same command with --resume"
        ) from failure
    if run is not None:
        run.fetch_result(_RESULT)
    try:
        result = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JobError(
            f"{folder}: the workers wrote no result there; out= must be a path that this machine "
            "and every worker see, or a URI"
        ) from None
    (folder / _RESULT).unlink()
    shutil.rmtree(folder / _RAY, ignore_errors=True)  # Ray's record of its own run
    return result


def _trainer(
    work: Work,
    folder: Path,
    resources: Resources,
    area: Area | None,
    callbacks: Sequence[Any],
) -> Any:
    """Returns Ray's trainer of some work, all of whose files lie in the run's folder."""
    # Relative paths mean what they mean to the user, and no dashboards are fed.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    # Workers may wait for others' to end, or for new nodes.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(_START_S))
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    backend = "nccl" if resources.gpus_per_worker else "gloo"
    shares = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return TorchTrainer(
        _in_worker,
        train_loop_config={
            "work": work,
            "folder": str(folder.absolute()),
            "area": area,
            "threads": max(1, int(resources.cpus_per_worker)),
            "cwd": os.getcwd(),
        },
        torch_config=TorchConfig(backend=backend, timeout_s=resources.timeout),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={name: each for name, each in shares.items() if each},
        ),
        run_config=RunConfig(
            name=f"train-{uuid.uuid4().hex[:12]}",
            storage_path=str((folder / _RAY).absolute()),
            failure_config=FailureConfig(max_failures=resources.max_failures),
            callbacks=list(callbacks),
        ),
    )


def report(values: Mapping[str, float]) -> None:
    """Reports values to the run's callbacks; all workers call it."""
    import ray.train

    ray.train.report(dict(values))


def _idle_gpus(workers: int, gpus_per_worker: float, gpus: float) -> str:
    """Returns a note where a cluster's GPUs stay unused, or nothing."""
    if gpus_per_worker or not gpus:
        return ""
    return (
        f"workers = {workers} train on CPUs, and the cluster has {gpus:g} GPU: "
        "gpus_per_worker=1 gives each worker one"
    )


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Lets torch compute with so many threads, if any, and afterwards with those of before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_worker(config: dict[str, Any]) -> None:
    """Runs in each Ray Train worker.

    A mistake of the user needs no second attempt: it is written to the run's folder, and the
    workers that Ray starts in place of these end at once.
    """
    import ray.train
    import ray.train.torch

    # The driver's number of threads must not change a run's last bits.
    torch.set_num_threads(config["threads"])
    cluster.enter(config["cwd"])  # a Ray that was there before may have begun elsewhere
    folder, run = Path(config["folder"]), None
    if config["area"] is not None:
        run = RunFolder(config["area"], folder)
        folder = run.here
        folder.mkdir(parents=True, exist_ok=True)
        run.fetch(_ERROR)
    if (folder / _ERROR).exists():
        return
    context = ray.train.get_context()
    rank = context.get_world_rank()
    place = Place(rank, context.get_world_size(), ray.train.torch.get_device())
    try:
        if not folder.is_dir():
            raise JobError(f"{folder}: worker {rank} does not see the run's folder")
        result = config["work"](place)
    except RaydistError as error:
        if folder.is_dir():
            write_json(folder / _ERROR, {"kind": type(error).__name__, "message": str(error)})
            if run is not None:
                run.put_record(_ERROR)
        raise  # so that Ray ends the ranks that wait for this one
    if rank == 0:
        write_json(folder / _RESULT, result)
        if run is not None and not run.is_drivers:
            run.put_record(FINAL, _RESULT)


def _raise_mistake(folder: Path) -> None:
    path = folder / _ERROR
    if path.exists():
        error = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        raise getattr(errors, error["kind"], JobError)(error["message"])


def _cause(failure: Exception) -> str:
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return lines[-1] if lines else type(failure).__name__
