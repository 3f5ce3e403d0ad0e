"""Evaluations beside training, each a Ray task of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydist import cluster
from raydist.errors import JobError
from raydist.evaluation.measures import Evaluation
from raydist.training.spec import Listener


@dataclass(frozen=True, slots=True)
class RaySubmit:
    """Starts `evaluate(spec, folder)` as a Ray task; picklable.

    The task takes a CPU if one is free when it starts. Otherwise it takes none and shares those of
    training: waiting for one that training holds to its end would never come to an end. For the
    same reason its share of a GPU (`gpus` of the spec) must be one that training leaves.
    """

    evaluate: Callable[[Listener, str], Evaluation]

    def __call__(self, spec: Listener, folder: Path) -> _Task:
        """Starts a task and returns what gives its result."""
        cluster.connect()
        import ray

        free = ray.available_resources().get("CPU", 0.0)
        cpus = 1 if free >= 1 else 0
        task = ray.remote(num_cpus=cpus, num_gpus=spec.gpus, max_retries=3)(self.evaluate)
        return _Task(task.remote(spec, str(folder)), str(folder))


@dataclass(frozen=True, slots=True)
class _Task:
    reference: Any
    folder: str

    def result(self, timeout_s: float) -> Evaluation | None:
        """Returns the evaluation, None if it is not there within this time.

        Raises:
            JobError: the task failed.
        """
        import ray

        ready, _ = ray.wait([self.reference], timeout=timeout_s)
        if not ready:
            return None
        try:
            found: Evaluation = ray.get(self.reference)
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise JobError(f"validation of {self.folder} failed: {lines[-1]}") from error
        return found
