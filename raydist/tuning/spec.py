"""What can be set of tuning: the space, the number of trials, and when the worse ones are stopped.

A space gives a distribution to some keys of the training configuration. It is text that is drawn,
since the type of the key decides how a text is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from raydist.spec import EXECUTION

_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_EXPECTED = "expected log(a, b), uniform(a, b), int(a, b) or choice(x, y, ...)"
_EXAMPLES = {
    "log": "log(1e-6, 1e-4)",
    "uniform": "uniform(0.01, 0.1)",
    "int": "int(8, 64)",
    "choice": "choice(linear, cosine)",
}
_DIGITS = 6
"""Of a drawn number: enough to tell values apart, few enough to be read and written again."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers from `low` to `high`, both included.

    Attributes:
        kind: `log` draws each magnitude, `uniform` each number, `int` each integer as often.
        low, high: the ends.
    """

    kind: Literal["log", "uniform", "int"]
    low: float
    high: float

    @property
    def size(self) -> float:
        """How many different values there are."""
        return self.high - self.low + 1 if self.kind == "int" else math.inf

    def ends(self) -> list[str]:
        """Returns the extreme values, as text."""
        return [self._text(self.low), self._text(self.high)]

    def draw(self, rng: np.random.Generator) -> str:
        """Returns a value as text."""
        if self.kind == "int":
            return str(rng.integers(int(self.low), int(self.high), endpoint=True))
        if self.kind == "log":
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        value = float(f"{value:.{_DIGITS}g}")
        return self._text(min(max(value, self.low), self.high))

    def _text(self, value: float) -> str:
        return str(int(value)) if self.kind == "int" else repr(float(value))


@dataclass(frozen=True, slots=True)
class Choice:
    """Values of which each is drawn as often."""

    values: tuple[str, ...]

    @property
    def size(self) -> float:
        """How many different values there are."""
        return len(set(self.values))

    def ends(self) -> list[str]:
        """Returns all values."""
        return list(self.values)

    def draw(self, rng: np.random.Generator) -> str:
        """Returns a value as text."""
        return self.values[int(rng.integers(len(self.values)))]


Distribution = Interval | Choice


def parse_distribution(text: str) -> Distribution:
    """Returns the distribution that a text describes, `log(1e-6, 1e-4)`.

    Raises:
        ValueError: it describes none.
    """
    call = _CALL.fullmatch(text)
    if call is None or call[1] not in ("log", "uniform", "int", "choice"):
        raise ValueError(_EXPECTED)
    kind, parts = call[1], _split(call[2])
    if parts == [""]:
        what = "values to choose from" if kind == "choice" else "two bounds"
        raise ValueError(f"{kind}() has no {what}, which are not guessed; {_EXAMPLES[kind]} has")
    if kind == "choice":
        if len(set(parts)) < 2:
            raise ValueError("expected two different values or more")
        return Choice(tuple(parts))
    try:
        low, high = (int(part) if kind == "int" else float(part) for part in parts)
    except ValueError:
        what = "integers" if kind == "int" else "numbers"
        raise ValueError(f"expected {kind}(a, b) of two {what}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"expected {kind}(a, b) with a < b")
    if kind == "log" and low <= 0:
        raise ValueError("expected log(a, b) with 0 < a: only positive numbers have a magnitude")
    return Interval(kind, low, high)  # type: ignore[arg-type]


def size(space: Mapping[str, str]) -> float:
    """Returns how many different trials a space has."""
    return math.prod(parse_distribution(text).size for text in space.values())


def draws(space: Mapping[str, str], trials: int, seed: int) -> list[dict[str, str]]:
    """Returns the values of each trial by key, all different: the first ones for the same seed.

    Raises:
        ValueError: the space has fewer trials.
    """
    if trials > size(space):
        few = int(size(space))
        raise ValueError(
            f"trials = {trials}: the space has only {few} different trials; trials={few} tries all"
        )
    distributions = {key: parse_distribution(text) for key, text in space.items()}
    drawn: list[dict[str, str]] = []
    known = set[frozenset[tuple[str, str]]]()
    for trial in range(trials):
        sources = {
            key: np.random.default_rng([seed % (1 << 64), trial, *key.encode()]) for key in space
        }
        while True:
            values = {key: each.draw(sources[key]) for key, each in distributions.items()}
            if frozenset(values.items()) not in known:
                break
        known.add(frozenset(values.items()))
        drawn.append(values)
    return drawn


def _split(text: str) -> list[str]:
    """Splits text at commas outside brackets."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search for the best configuration: what is drawn, how often, and what is compared."""

    space: dict[str, str] = field(default_factory=dict)
    """Key of the training configuration -> what its values are drawn from: `log(a, b)`,
    `uniform(a, b)`, `int(a, b)` or `choice(x, y, ...)`."""
    trials: Annotated[int, Ge(1)] = 16
    """Configurations that are drawn and trained, all different."""
    metric: str | None = None
    """`ID` or `ID/MEASURE`: the listener and kept measure that decide; if not given, the only
    listener (or aggregate) and its first kept measure."""
    scheduler: Literal["asha", "none"] = "asha"
    """Stops the trials that are worse than others were after as many steps, or none."""
    grace: Annotated[int, Ge(0)] = 0
    """Steps before which no trial is stopped; 0 = the first validation."""
    reduction: Annotated[float, Gt(1)] = 3.0
    """At `grace` steps, and then at `reduction` times as many again and again, one of so many
    trials may continue."""
    concurrent: Annotated[int, Ge(0), EXECUTION] = 0
    """Trials that run at a time; 0 = as many as the cluster holds."""
