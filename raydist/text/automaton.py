"""A tiny regular-expression compiler: patterns over symbol sets become a minimal automaton.

Used once, to write the tables of the tokenizer, which only walks the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression as a tree; build it with `one_of`, `+`, `|`, `.many()`, `.maybe()`."""

    kind: str
    parts: tuple[Pattern, ...] = ()
    symbols: frozenset[int] = frozenset()

    def __add__(self, other: Pattern) -> Pattern:
        return Pattern("then", (self, other))

    def __or__(self, other: Pattern) -> Pattern:
        return Pattern("or", (self, other))

    def any(self) -> Pattern:
        """Returns this pattern repeated zero or more times."""
        return Pattern("any", (self,))

    def many(self) -> Pattern:
        """Returns this pattern repeated one or more times."""
        return self + self.any()

    def maybe(self) -> Pattern:
        """Returns this pattern or nothing."""
        return self | Pattern("nothing")


def one_of(symbols: Iterable[int]) -> Pattern:
    """Returns the pattern of one symbol out of `symbols`."""
    return Pattern("symbol", symbols=frozenset(symbols))


class _Machine:
    """A non-deterministic automaton under construction (Thompson)."""

    def __init__(self) -> None:
        self.silent: list[list[int]] = []
        self.moves: list[list[tuple[frozenset[int], int]]] = []

    def state(self) -> int:
        self.silent.append([])
        self.moves.append([])
        return len(self.silent) - 1

    def add(self, pattern: Pattern, start: int, end: int) -> None:
        """Adds paths from `start` to `end` that spell `pattern`."""
        if pattern.kind == "nothing":
            self.silent[start].append(end)
        elif pattern.kind == "symbol":
            self.moves[start].append((pattern.symbols, end))
        elif pattern.kind == "or":
            for part in pattern.parts:
                self.add(part, start, end)
        elif pattern.kind == "then":
            middle = self.state()
            self.add(pattern.parts[0], start, middle)
            self.add(pattern.parts[1], middle, end)
        else:  # any: an own state, so that loops of neighbours do not mix
            loop = self.state()
            self.silent[start].append(loop)
            self.silent[loop].append(end)
            self.add(pattern.parts[0], loop, loop)

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        reached = set(states)
        todo = list(reached)
        while todo:
            for after in self.silent[todo.pop()]:
                if after not in reached:
                    reached.add(after)
                    todo.append(after)
        return frozenset(reached)


def compile_patterns(pattern: Pattern, symbols: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the minimal automaton of `pattern` over the symbols 0 .. `symbols` − 1.

    Returns:
        next state, uint8 [S, C]: state 0 is dead, state 1 the start; and accepting, bool [S].
    """
    machine = _Machine()
    start, end = machine.state(), machine.state()
    machine.add(pattern, start, end)
    first = machine.closure([start])
    number: dict[frozenset[int], int] = {frozenset(): 0, first: 1}
    order = [frozenset[int](), first]
    rows: list[list[int]] = [[0] * symbols]
    at = 1
    while at < len(order):
        row = []
        for symbol in range(symbols):
            after = machine.closure(
                to for state in order[at] for chosen, to in machine.moves[state] if symbol in chosen
            )
            if after not in number:
                number[after] = len(order)
                order.append(after)
            row.append(number[after])
        rows.append(row)
        at += 1
    table = np.array(rows)
    accepting = np.array([end in states for states in order])
    return _minimal(table, accepting)


def _minimal(table_SC: np.ndarray, accepting_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merges states that no input tells apart (Moore), keeping 0 dead and 1 the start."""
    group = accepting_S.astype(np.int64)
    while True:
        signature = np.concatenate([group[:, None], group[table_SC]], axis=1)
        _, first, fresh = np.unique(signature, axis=0, return_index=True, return_inverse=True)
        fresh = fresh.reshape(-1)
        if len(first) == group.max() + 1:
            break
        group = fresh
    # Number the groups by the first state that belongs to them: the numbering is reproducible.
    firsts = np.array([np.flatnonzero(group == g)[0] for g in range(group.max() + 1)])
    order = np.argsort(firsts)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    table = rank[group[table_SC[firsts[order]]]]
    assert rank[group[0]] == 0 and rank[group[1]] == 1 and len(order) < 256
    return table.astype(np.uint8), accepting_S[firsts[order]]
