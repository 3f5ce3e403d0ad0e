"""Structured queries as trees, and what Lucene makes of them before it searches.

Lucene rewrites a boolean query until nothing changes: what cannot match is dropped, a single clause
stands for the query, equal clauses become one with the sum of their boosts, and a disjunction in a
disjunction is part of it. Scores are rounded at each level of the tree, so a tree that was not
rewritten has other scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np


class Occur(Enum):
    """Whether a clause may match, must, or must not."""

    SHOULD = auto()
    MUST = auto()
    MUST_NOT = auto()


@dataclass(frozen=True, slots=True)
class TermNode:
    """Documents that have a term."""

    term: str


@dataclass(frozen=True, slots=True)
class PhraseNode:
    """Documents that have terms at these distances.

    Attributes:
        terms: at least two.
        offsets: where each is in the phrase, the first one's is 0.
        slop: how many moves of words are allowed.
    """

    terms: tuple[str, ...]
    offsets: tuple[int, ...]
    slop: int = 0


@dataclass(frozen=True, slots=True)
class NearNode:
    """Documents that have two terms near each other, as Lucene's SpanNearQuery finds them.

    Attributes:
        terms: both, which may be the same.
        slop: how many words may be between them.
        ordered: whether the first one comes first.
    """

    terms: tuple[str, str]
    slop: int
    ordered: bool


@dataclass(frozen=True, slots=True)
class BoostNode:
    """A query whose scores are multiplied, a float32."""

    query: Node
    boost: float


@dataclass(frozen=True, slots=True)
class BooleanNode:
    """Documents that match the clauses as these say."""

    clauses: tuple[tuple[Occur, Node], ...]

    def of(self, occur: Occur) -> list[Node]:
        """Returns the queries of the clauses of one kind, in order."""
        return [query for each, query in self.clauses if each is occur]


Leaf = TermNode | PhraseNode | NearNode
Node = Leaf | BoostNode | BooleanNode


def rewritten(node: Node) -> Node | None:
    """Returns the query as Lucene searches it; None matches nothing."""
    if isinstance(node, BoostNode):
        inner = rewritten(node.query)
        if isinstance(inner, BoostNode):
            return BoostNode(inner.query, float(np.float32(node.boost) * np.float32(inner.boost)))
        return inner if inner is None or node.boost == 1 else BoostNode(inner, node.boost)
    if not isinstance(node, BooleanNode):
        return node
    while True:
        result = _rewritten_once(node)
        if not isinstance(result, BooleanNode) or result == node:
            return result
        node = result


def _rewritten_once(node: BooleanNode) -> Node | None:
    clauses: list[tuple[Occur, Node]] = []
    for occur, query in node.clauses:
        inner = rewritten(query)
        if inner is not None:
            clauses.append((occur, inner))
        elif occur is Occur.MUST:
            return None
    positive = [query for occur, query in clauses if occur is not Occur.MUST_NOT]
    if not positive:
        return None
    if len(clauses) == 1:
        return positive[0]
    for occur in (Occur.SHOULD, Occur.MUST):
        clauses = _without_repeats(clauses, occur)
    flat: list[tuple[Occur, Node]] = []
    for occur, query in clauses:
        if occur is Occur.SHOULD and isinstance(query, BooleanNode) and _is_disjunction(query):
            flat += query.clauses
        else:
            flat.append((occur, query))
    return BooleanNode(tuple(flat))


def _is_disjunction(query: BooleanNode) -> bool:
    return all(occur is Occur.SHOULD for occur, _ in query.clauses)


def _without_repeats(clauses: list[tuple[Occur, Node]], which: Occur) -> list[tuple[Occur, Node]]:
    """Returns the clauses; those of one kind that are equal became one with all their boosts."""
    boosts: dict[Hashable, float] = {}
    queries: dict[Hashable, Node] = {}
    mine = [query for occur, query in clauses if occur is which]
    for query in mine:
        plain, boost = (query.query, query.boost) if isinstance(query, BoostNode) else (query, 1.0)
        key = _key(plain)
        boosts[key] = boosts.get(key, 0.0) + boost
        queries.setdefault(key, plain)
    if len(boosts) == len(mine):
        return clauses
    joint: list[tuple[Occur, Node]] = []
    for key, query in queries.items():
        boost = float(np.float32(boosts[key]))
        joint.append((which, query if boost == 1 else BoostNode(query, boost)))
    return joint + [each for each in clauses if each[0] is not which]


def _key(node: Node) -> Hashable:
    """Returns what equal queries have in common: the order of clauses does not count."""
    if isinstance(node, BooleanNode):
        counts = Counter((occur, _key(query)) for occur, query in node.clauses)
        return frozenset(counts.items())
    return (_key(node.query), node.boost) if isinstance(node, BoostNode) else node


def terms_of(nodes: Sequence[Node]) -> list[str]:
    """Returns the distinct terms of queries in the order of their first appearance."""
    found: dict[str, None] = {}
    waiting = list(reversed(nodes))
    while waiting:
        node = waiting.pop()
        if isinstance(node, TermNode):
            found[node.term] = None
        elif isinstance(node, PhraseNode | NearNode):
            found.update(dict.fromkeys(node.terms))
        elif isinstance(node, BoostNode):
            waiting.append(node.query)
        else:
            waiting += [query for _, query in reversed(node.clauses)]
    return list(found)


def text_of(leaf: Leaf) -> str:
    """Returns a term, phrase (`"a ? b"~2`, a gap for a stop word) or pair as text."""
    if isinstance(leaf, TermNode):
        return leaf.term
    if isinstance(leaf, NearNode):
        return f"{' '.join(leaf.terms)}, {'in order' if leaf.ordered else 'near'}"
    words: list[str] = []
    for term, offset in zip(leaf.terms, leaf.offsets):
        words += [*["?"] * (offset - len(words)), term]
    return f'"{" ".join(words)}"' + (f"~{leaf.slop}" if leaf.slop else "")
