"""The syntax of Lucene's classic query parser: text becomes a tree.

    query    = clause { [AND | OR] clause }
    clause   = [+ | - | NOT] [field :] (word | phrase | "(" query ")") [^ boost]
    phrase   = '"' words '"' [~ slop]

It has Lucene's oddities: AND makes both of its neighbours required and nothing else, so AND does
not bind more than OR; a clause whose words the analyzer drops is as if it were not there, but AND
behind it still makes the clause before required; a query of prohibited clauses alone matches
nothing. A word of which the analyzer makes several is a query of these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from raydist.bow.structured.query import BooleanNode, BoostNode, Node, Occur, PhraseNode, TermNode
from raydist.errors import DataError

FIELDS = ("contents", "text")
"""Names of the one field that an index has."""

Analyze = Callable[[str], list[tuple[str, int]]]
"""Returns the terms of a text, each with its position."""

_DEPTH = 100  # of groups
_SLOP = (1 << 31) - 1

_SPACE = r"[ \t\n\r\u3000]"
_START = r'(?:[^ \t\n\r\u3000+\-!():^\[\]"{}~*?\\/]|\\(?s:.))'
_REST = rf"(?:{_START}|[\-+])"
_TOKENS = {
    "AND": r"AND|&&",
    "OR": r"OR|\|\|",
    "NOT": r"NOT|!",
    "+": r"\+",
    "-": r"-",
    "bare": rf"[+\-!]{_SPACE}",
    "(": r"\(",
    ")": r"\)",
    ":": r":",
    "*": r"\*",
    "^": r"\^",
    "phrase": r'"(?:[^"\\]|\\(?s:.))*"',
    "word": rf"{_START}{_REST}*",
    "slop": r"~(?:[0-9]+(?:\.[0-9]+)?)?",
    "prefix": rf"{_START}{_REST}*\*",
    "wildcard": rf"(?:{_START}|[*?])(?:{_REST}|[*?])*",
    "regexp": r"/(?:\\/|[^*/])*/",
    "range": r"[\[{][^\]}]*[\]}]?",
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _TOKENS.items()}
_SPACES = re.compile(rf"{_SPACE}*")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_REFUSED = {
    "*": "a wildcard",
    "prefix": "a wildcard",
    "wildcard": "a wildcard",
    "regexp": "a regular expression",
    "range": "a range",
}
_AFTER_WORDS = {":", "*", "slop", "^", "AND", "OR"}  # not behind a word among several


class QueryError(DataError):
    """A query that the parser does not take."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int  # characters before it


def parse(text: str, analyze: Analyze) -> Node | None:
    """Returns the tree of a query; None where no clause is left.

    Raises QueryError with the place of what is wrong, and the remedy.
    """
    return _Parser(_tokens(text), analyze).whole()


def _tokens(text: str) -> list[_Token]:
    """Cuts a text into tokens: the longest one, and of these the first kind."""
    tokens: list[_Token] = []
    at = _SPACES.match(text).end()  # type: ignore[union-attr]
    while at < len(text):
        kind, end = "", at
        for each, pattern in _PATTERNS.items():
            match = pattern.match(text, at)
            if match is not None and match.end() > end:
                kind, end = each, match.end()
        if not kind:
            raise _error(at, f"{text[at]!r} is not expected", r"write \ before it to search for it")
        tokens.append(_Token(kind, text[at:end], at))
        if kind == "^":
            number = _NUMBER.match(text, end)
            if number is None:
                raise _error(end, "a boost is expected behind ^", r"write ^2.5, or \^")
            tokens.append(_Token("number", number.group(), end))
            end = number.end()
        at = _SPACES.match(text, end).end()  # type: ignore[union-attr]
    tokens.append(_Token("end", "", len(text)))
    return tokens


def _error(at: int, what: str, remedy: str) -> QueryError:
    return QueryError(f"character {at + 1}: {what}; {remedy}")


class _Parser:
    def __init__(self, tokens: list[_Token], analyze: Analyze) -> None:
        self._tokens = tokens
        self._next = 0
        self._analyze = analyze
        self._depth = 0

    def _kind(self, ahead: int = 0) -> str:
        return self._tokens[min(self._next + ahead, len(self._tokens) - 1)].kind

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def whole(self) -> Node | None:
        query = self._query()
        if self._kind() != "end":
            token = self._take()
            raise _error(token.at, f"{token.text!r} is not expected", r"write \ before it")
        return query

    def _query(self) -> Node | None:
        clauses: list[tuple[Occur, Node]] = []
        conjunction = ""
        while True:
            if not conjunction and self._several_words():
                clauses += self._words()
            else:
                modifier = self._take().kind if self._kind() in ("+", "-", "NOT") else ""
                _add(clauses, conjunction, modifier, self._clause())
            if self._kind() in ("end", ")"):
                return BooleanNode(tuple(clauses)) if clauses else None
            conjunction = self._take().kind if self._kind() in ("AND", "OR") else ""

    def _several_words(self) -> bool:
        """Whether words without operators follow; they are analysed as one text."""
        return self._kind() == "word" and self._another_word(1)

    def _another_word(self, ahead: int) -> bool:
        return self._kind(ahead) == "word" and self._kind(ahead + 1) not in _AFTER_WORDS

    def _words(self) -> tuple[tuple[Occur, Node], ...]:
        words = [_plain(self._take())]
        while self._another_word(0):
            words.append(_plain(self._take()))
        terms = self._analyze(" ".join(words))
        return tuple((Occur.SHOULD, TermNode(term)) for term, _ in terms)

    def _clause(self) -> Node | None:
        if self._kind(1) == ":" and self._kind() in ("word", "*"):
            field = self._take()
            if field.text not in FIELDS:
                raise _error(
                    field.at,
                    f"the field {field.text!r} is not known",
                    f"leave it out, or escape the colon ({field.text}\\:)",
                )
            self._take()
        token = self._take()
        if token.kind == "(":
            query = self._group(token)
            return _boosted(query, self._boost())
        if token.kind in _REFUSED:
            what = _REFUSED[token.kind]
            raise _error(token.at, f"{what} ({token.text}) is not supported", "write \\ before it")
        if token.kind not in ("word", "phrase", "bare"):
            what = "the query ends" if token.kind == "end" else f"{token.text!r} is not expected"
            raise _error(token.at, what, "a word, a phrase or a group is expected")
        boost = self._boost()
        slop = 0
        if self._kind() == "slop":
            slop = self._slop(token)
            boost = boost or self._boost()
        text = token.text[:1] if token.kind == "bare" else _plain(token)
        return _boosted(self._text(text, slop, phrase=token.kind == "phrase"), boost)

    def _group(self, begin: _Token) -> Node | None:
        self._depth += 1
        if self._depth > _DEPTH:
            raise _error(begin.at, f"more than {_DEPTH} groups in one another", "use fewer")
        query = self._query()
        end = self._take()
        if end.kind != ")":
            raise _error(begin.at, "the group does not end", "write ) behind it, or \\(")
        self._depth -= 1
        return query

    def _boost(self) -> _Token | None:
        if self._kind() != "^":
            return None
        self._take()
        return self._take()

    def _slop(self, of: _Token) -> int:
        token = self._take()
        if of.kind != "phrase":
            raise _error(token.at, "fuzzy words are not supported", "leave ~ out, or write \\~")
        return min(int(float(token.text[1:])), _SLOP) if token.text[1:] else 0

    def _text(self, text: str, slop: int, *, phrase: bool) -> Node | None:
        tokens = self._analyze(text)
        terms = tuple(term for term, _ in tokens)
        if len(terms) < 2:
            return TermNode(terms[0]) if terms else None
        if not phrase:
            return BooleanNode(tuple((Occur.SHOULD, TermNode(term)) for term in terms))
        return PhraseNode(terms, tuple(at - tokens[0][1] for _, at in tokens), slop)


def _add(
    clauses: list[tuple[Occur, Node]], conjunction: str, modifier: str, query: Node | None
) -> None:
    """Adds a clause as Lucene's parser does where OR is the default."""
    if clauses and conjunction == "AND" and clauses[-1][0] is not Occur.MUST_NOT:
        clauses[-1] = (Occur.MUST, clauses[-1][1])
    if query is None:
        return
    if modifier in ("-", "NOT"):
        clauses.append((Occur.MUST_NOT, query))
    elif modifier == "+" or conjunction == "AND":
        clauses.append((Occur.MUST, query))
    else:
        clauses.append((Occur.SHOULD, query))


def _boosted(query: Node | None, boost: _Token | None) -> Node | None:
    if query is None or boost is None:
        return query
    with np.errstate(over="ignore"):
        factor = float(np.float32(boost.text))
    if not math.isfinite(factor):
        raise _error(boost.at, f"the boost {boost.text} is too large", "write a smaller one")
    return BoostNode(query, factor)


def _plain(token: _Token) -> str:
    """Returns the text of a word or phrase without its escapes."""
    text = token.text[1:-1] if token.kind == "phrase" else token.text
    parts: list[str] = []
    at = 0
    while at < len(text):
        if text[at] != "\\":
            parts.append(text[at])
            at += 1
        elif text[at + 1] != "u":
            parts.append(text[at + 1])
            at += 2
        else:
            digits = text[at + 2 : at + 6]
            if re.fullmatch("[0-9A-Fa-f]{4}", digits) is None:
                raise _error(
                    token.at, "four hexadecimal digits are expected behind \\u", "add them"
                )
            parts.append(chr(int(digits, 16)))
            at += 6
    joined = "".join(parts).encode("utf-16", "surrogatepass")  # surrogates may be a pair
    return joined.decode("utf-16", "replace")
