"""A listener's rules, checked: what cannot work is refused before training."""

from __future__ import annotations

from collections.abc import Mapping

from raydist.errors import ConfigError
from raydist.evaluation.measures import direction, parse
from raydist.training.decisions import Rules


def listener_rules(
    id: str,
    metrics: Mapping[str, bool],
    interval: int,
    warmup: int,
    early_stop: int,
    min_delta: float,
) -> Rules:
    """Returns the rules of the listener `id`.

    Raises:
        ConfigError: they contradict each other, or a measure cannot be used; one line each.
    """
    for name in metrics:
        found = list(parse([name]))
        if found != [name]:
            raise ConfigError(
                f"validation.{id}.metrics: {name!r} stands for several: name one of "
                f"{', '.join(found)}"
            )
    directions = {name: direction(name) for name in metrics}
    rules = Rules(dict(metrics), interval, warmup, early_stop, min_delta, directions)
    problems = [f"validation.{id}.{problem}" for problem in rules.problems()]
    problems += [
        f"validation.{id}.metrics: {name} counts something, its checkpoint cannot be the best"
        for name, keep in metrics.items()
        if keep and not directions[name]
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return rules
