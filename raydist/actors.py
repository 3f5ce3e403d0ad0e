"""Objects in Ray actors, one each, that are asked together.

An actor whose process or node dies is started again, on another node if need be, makes its object
anew and is asked again; so objects must answer alike whenever they are made.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from raydist import cluster, errors
from raydist.errors import JobError, RaydistError
from raydist.log import Waiting, warn

_RESTARTS = 5  # of an actor
_LEAST_CPU = 0.01


class _Reply(NamedTuple):
    """What an object returned, or the user's mistake; and which process it is in."""

    value: Any
    error: tuple[str, str] | None
    process: tuple[str, int]


class Actors:
    """A group of objects, spread over the nodes of the cluster."""

    def __init__(
        self, makers: Sequence[Callable[[], Any]], *, cpus: float = 1.0, label: str = "shard"
    ) -> None:
        """Starts an actor for each object; the objects are made when they are first asked.

        Of the nodes that Ray spreads them over, each goes to one that holds more of its files than
        of others', as far as that is known (`held`).

        Args:
            makers: make the objects; picklable.
            cpus: CPUs of each; they share what there is on a cluster that has fewer.
            label: what an object is called in messages.

        Raises:
            JobError: the cluster cannot be reached.
        """
        cluster.connect()
        if not cluster.grows():
            share = cluster.available()["CPU"] / len(makers)
            cpus = max(_LEAST_CPU, min(cpus, int(share / _LEAST_CPU) * _LEAST_CPU))
        import ray
        from ray.cloudpickle import dumps
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self._label = label
        note = cluster.taken(len(makers), cpus, 0.0)
        # Together or not at all: two groups that wait for each other's CPUs would wait forever.
        self._places = placement_group([{"CPU": cpus}] * len(makers), strategy="SPREAD")
        with Waiting(note) if note else contextlib.nullcontext():
            ray.get(self._places.ready())
        places = [PlacementGroupSchedulingStrategy(self._places, n) for n in range(len(makers))]
        packed = [dumps(make) for make in makers]
        chosen: Sequence[int] = range(len(makers))
        if len(makers) > 1 and any(held(make) is not None for make in makers):
            look = ray.remote(num_cpus=0)(_look)
            looks = [look.options(scheduling_strategy=place).remote(packed) for place in places]
            chosen = nearest(ray.get(looks))
        remote = ray.remote(_Actor)
        self._actors = [
            remote.options(
                num_cpus=cpus,
                max_restarts=_RESTARTS,
                max_task_retries=_RESTARTS,
                scheduling_strategy=places[place],
            ).remote(each, os.getcwd())
            for each, place in zip(packed, chosen)
        ]
        self._processes: list[tuple[str, int] | None] = [None] * len(makers)

    def ask(self, method: str, arguments: Sequence[Sequence[Any] | None]) -> list[Any]:
        """Returns what a method of each object returns; see `protocols.Group`.

        Raises:
            RaydistError: a user's mistake that an object met.
            JobError: an actor was lost, and again each time that it was started anew.
        """
        import ray
        from ray.exceptions import RayActorError

        calls = {
            number: self._actors[number].call.remote(method, *values)
            for number, values in enumerate(arguments)
            if values is not None
        }
        answers: list[Any] = [None] * len(arguments)
        for number, call in calls.items():
            try:
                reply = ray.get(call)
            except RayActorError as error:
                raise JobError(
                    f"{self._label} {number + 1} of {len(self._actors)} was lost {_RESTARTS + 1} "
                    f"times; it may need more memory than its node has ({_first_line(error)})"
                ) from error
            if reply.error is not None:
                name, message = reply.error
                raise getattr(errors, name)(message)
            before, self._processes[number] = self._processes[number], reply.process
            if before not in (None, reply.process):
                warn(f"{self._label} {number + 1} was lost, and opened again on {reply.process[0]}")
            answers[number] = reply.value
        return answers

    def close(self) -> None:
        """Ends the actors."""
        import ray
        from ray.util.placement_group import remove_placement_group

        for actor in self._actors:
            ray.kill(actor)
        remove_placement_group(self._places)


def held(make: Callable[[], Any]) -> int | None:
    """Returns how many bytes of what an object reads this node has, None where all see the same.

    Objects that copy files first have a static method of this name, which takes the arguments that
    the object will be made with.
    """
    if not isinstance(make, partial):
        return None
    method = getattr(make.func, "held", None)
    return None if method is None else method(*make.args, **make.keywords)


def nearest(held_PM: Sequence[Sequence[int]]) -> Sequence[int]:
    """Returns a place for each object, so that together the least is copied.

    Args:
        held_PM: bytes that each of P places has of what each of M = P objects reads.
    """
    from scipy.optimize import linear_sum_assignment

    places, objects = linear_sum_assignment(held_PM, maximize=True)
    return [int(place) for _, place in sorted(zip(objects, places))]


def _look(packed: Sequence[bytes]) -> list[int]:
    return [held(pickle.loads(each)) or 0 for each in packed]  # noqa: S301 - the driver's


class _Actor:
    """Holds one object, which it makes when it is first asked: mistakes are answers, too."""

    def __init__(self, packed: bytes, folder: str) -> None:
        self._packed = packed
        self._object: Any = None
        cluster.enter(folder)

    def call(self, method: str, *arguments: Any) -> _Reply:
        import ray

        process = (ray.util.get_node_ip_address(), os.getpid())
        try:
            if self._object is None:
                self._object = pickle.loads(self._packed)()  # noqa: S301 - the driver's
            return _Reply(getattr(self._object, method)(*arguments), None, process)
        except RaydistError as error:
            return _Reply(None, (type(error).__name__, str(error)), process)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
