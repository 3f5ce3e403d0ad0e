"""What a service's replicas need, and what is missing of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from raydist.serving.spec import Replicas


@dataclass(frozen=True, slots=True)
class Demand:
    """The replicas of a deployment at the start, and what each needs, by Ray's resource names."""

    name: str
    replicas: int
    each: Mapping[str, float]


def demands(deployments: Mapping[str, Replicas]) -> list[Demand]:
    """Returns what each deployment needs."""
    return [
        Demand(name, own.min, {"CPU": 1.0 if own.cpus is None else own.cpus, "GPU": own.gpus})
        for name, own in deployments.items()
    ]


def shared_out(deployments: Mapping[str, Replicas], cpus: float) -> dict[str, Replicas]:
    """Returns the deployments on a machine with so many CPUs.

    Replicas that name no CPUs share what the others and the ingress, which takes one, leave: whole
    CPUs, at least one each, or parts where the machine has too few. Those that scaling may add
    have their share, too.
    """
    unnamed = [own for own in deployments.values() if own.cpus is None]
    left = cpus - sum(own.min * own.cpus for own in deployments.values() if own.cpus is not None)
    if not unnamed or left <= 0:
        return dict(deployments)
    each = max(1.0, (left - 1) // sum(max(own.min, own.max) for own in unnamed))
    part = math.floor(100 * left / sum(own.min for own in unnamed)) / 100
    return {
        name: replace(own, cpus=min(each, part)) if own.cpus is None else own
        for name, own in deployments.items()
    }


def missing(
    demand: Sequence[Demand], nodes: Sequence[Mapping[str, float]], where: str
) -> str | None:
    """Returns what the replicas need that is not there, None if nothing is missing.

    Args:
        demand: the deployments' needs.
        nodes: what each node has in all, by resource.
        where: the nodes' name in the message.
    """
    for resource, key in (("CPU", "cpus"), ("GPU", "gpus")):
        needs = {each.name: each.replicas * each.each[resource] for each in demand}
        need = sum(needs.values())
        have = sum(node.get(resource, 0.0) for node in nodes)
        largest = max((node.get(resource, 0.0) for node in nodes), default=0.0)
        parts = ", ".join(f"{name} {each:g}" for name, each in needs.items() if each)
        remedy = f"lower replicas.{key}, replicas.min or deployments.NAME.{key}"
        if need > have + 1e-6:
            return (
                f"the replicas need {need:g} {resource} ({parts}) and {where} has {have:g}: "
                f"{need - have:g} are missing; {remedy}"
            )
        for each in demand:
            if each.each[resource] > largest + 1e-6:
                return (
                    f"a replica of {each.name} needs {each.each[resource]:g} {resource} and no "
                    f"node of {where} has more than {largest:g}; {remedy}"
                )
    return None
