"""The tables that ship are those that the grammar gives."""

from __future__ import annotations

import numpy as np
import pytest

from raydist.text.automaton import compile_patterns, one_of
from raydist.text.grammar import PAGE, TABLES, build_tables


def flat(tables, name):
    return tables[name].reshape(-1, PAGE)[tables["page_of"]].reshape(-1)


def canonical(tables):
    """The automaton with states and classes renumbered by a walk in the order of code points."""
    classes = flat(tables, "classes")
    _, first = np.unique(classes, return_index=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    table = tables["next_state"][:, order]
    names = {1: 0}
    todo = [1]
    while todo:
        for after in table[todo.pop(0)].tolist():
            if after not in names:
                names[after] = len(names)
                todo.append(after)
    states = list(names)
    moves = [[names[a] for a in table[s].tolist()] for s in states]
    return rank[classes], moves, tables["accepting"][states].tolist()


def test_the_shipped_tables_equal_new_ones_but_for_characters_that_unicode_added_since():
    with np.load(TABLES) as shipped:
        old = dict(shipped)
    new = build_tables()
    old_classes, old_moves, old_accepting = canonical(old)
    new_classes, new_moves, new_accepting = canonical(new)
    assert (old_moves, old_accepting) == (new_moves, new_accepting)
    differ = np.flatnonzero(old_classes != new_classes)
    # A newer `regex` may know characters that were not assigned before: they had no class.
    assert (flat(old, "classes")[differ] == 0).all()
    same = old_classes == new_classes
    np.testing.assert_array_equal(flat(old, "lower")[same], flat(new, "lower")[same])


def test_what_has_no_class_is_not_lower_cased_and_letters_are_as_python_does():
    with np.load(TABLES) as tables:
        classes, lower = flat(tables, "classes"), flat(tables, "lower")
    assert not lower[classes == 0].any()
    for letter in "AZaz09ÀÿĀŽſΑΩЖԱḀẞǅΣⰀ𐐀":
        assert chr(ord(letter) + lower[ord(letter)]) == letter.lower()
    assert lower[ord("İ")] == ord("i") - ord("İ")


@pytest.mark.parametrize(
    ("text", "matches"),
    [("", False), ("a", False), ("ab", True), ("abab", True), ("abc", True), ("abcc", False)],
)
def test_a_compiled_pattern_accepts_its_language(text, matches):
    a, b, c = (one_of([symbol]) for symbol in range(3))
    table, accepting = compile_patterns((a + b).many() + c.maybe(), 3)
    state = 1
    for letter in text:
        state = table[state, "abc".index(letter)]
    assert bool(accepting[state]) == matches


def test_a_compiled_pattern_is_minimal():
    a, b = one_of([0]), one_of([1])
    table, accepting = compile_patterns((a + b) | (b + b) | (b + b + a.any() + b.any()), 2)
    # dead; start; after a; after b; bb (a* b*); bb…b; ab
    assert len(table) == len(accepting) <= 7
    assert not accepting[0] and (table[0] == 0).all()
