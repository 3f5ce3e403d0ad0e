"""Filters of documents by their metadata: `year >= 2020 and source in ['x', 'y']`.

Comparisons of a column with a value or another column, `in` and `not in` lists, `is null` and
`is not null`, joined by `and`, `or`, `not` and parentheses. Python's parser reads the text; what is
not in this list is refused, and nothing is evaluated but Arrow's comparisons. As in SQL, a
comparison with a missing value is neither true nor false, and a document passes where the whole is
true.

A column whose name is no word is written `column("name")`. A text beside a column of times is a
date (`"2020-01-31"`), with a time if need be.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.data.columns import parse, type_name
from raydist.errors import ConfigError

MOST_FILTER = 10_000
"""Characters of the longest filter."""

_PARSER = Lock()
"""Python 3.11's parser fails now and then where two threads use it."""

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_NAMES = {"true": True, "false": False, "True": True, "False": False, "null": None, "None": None}
_NUMBERS = ("int64", "float64")


class _Operand(NamedTuple):
    """A column or a value of a comparison.

    Attributes:
        value: the column's values, or a value of Python.
        kind: name of the type; null of a missing value.
        column: the column's name, None for a value.
    """

    value: Any
    kind: str
    column: str | None = None


def passing(text: str, columns: pa.Table | None) -> npt.NDArray[np.bool_]:
    """Returns which rows of the columns pass a filter, bool.

    Raises:
        ConfigError: it is no filter of these columns; the message says where and why.
    """
    if len(text) > MOST_FILTER:
        raise ConfigError(f"filter: {len(text):,} characters; expected at most {MOST_FILTER:,}")
    if columns is None:
        raise ConfigError(
            f"filter = {_short(text)}: the index has no columns; build it with corpus.columns=NAMES"
        )
    text = text.strip()
    try:
        result = _Filter(text, columns).truth(_parsed(text))
    except RecursionError:
        raise ConfigError(f"filter = {_short(text)}: it is nested too deeply") from None
    if isinstance(result, pa.Scalar):
        return np.full(columns.num_rows, result.as_py() is True)
    flags = result.fill_null(False).to_numpy()
    return np.ascontiguousarray(flags, np.bool_)


def _parsed(text: str) -> ast.expr:
    try:
        with _PARSER:
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        at = f"at character {error.offset}: " if error.offset else ""
        message = "put dates in quotes" if "leading zeros" in error.msg else error.msg
        raise ConfigError(f"filter = {_short(text)}: {at}{message}") from None
    except (ValueError, MemoryError) as error:  # a null character, or too deep
        raise ConfigError(f"filter = {_short(text)}: it cannot be read: {error}") from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


class _Filter:
    """Evaluates the nodes of one filter."""

    def __init__(self, text: str, columns: pa.Table) -> None:
        self._text = text
        self._columns = columns

    def truth(self, node: ast.expr) -> Any:
        """Returns whether a condition holds for each row, null where it is not known."""
        if isinstance(node, ast.BoolOp):
            join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            result = self.truth(node.values[0])
            for each in node.values[1:]:
                result = join(result, self.truth(each))
            return result
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return pc.invert(self.truth(node.operand))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [
                self._comparison(op, a, b, node) for op, a, b in zip(node.ops, sides, sides[1:])
            ]
            result = parts[0]
            for part in parts[1:]:  # 2000 <= year < 2010
                result = pc.and_kleene(result, part)
            return result
        operand = self._operand(node)
        if operand.kind != "bool":
            raise self._error(node, "expected a condition, such as year >= 2020")
        return pa.scalar(operand.value) if operand.column is None else operand.value

    def _comparison(self, op: ast.cmpop, left: ast.expr, right: ast.expr, node: ast.expr) -> Any:
        if isinstance(op, ast.In | ast.NotIn):
            result = self._is_in(left, right)
            return pc.invert(result) if isinstance(op, ast.NotIn) else result
        a, b = self._operand(left), self._operand(right)
        if isinstance(op, ast.Is | ast.IsNot):
            if a.column is None or b.kind != "null":
                raise self._error(node, "expected COLUMN is null, or is not null")
            return pc.is_valid(a.value) if isinstance(op, ast.IsNot) else pc.is_null(a.value)
        if "null" in (a.kind, b.kind):
            raise self._error(node, "nothing compares with null; expected is null, or is not null")
        compare = _COMPARISONS.get(type(op))
        if compare is None:
            raise self._error(node, "unknown comparison")
        a, b = self._alike(a, b, right), self._alike(b, a, left)
        if a.kind != b.kind and not {a.kind, b.kind} <= {*_NUMBERS}:
            raise self._mismatch(a, b, node)
        return compare(*self._values(a, b))

    def _values(self, a: _Operand, b: _Operand) -> tuple[Any, Any]:
        x, y = (e.value if e.column is not None else pa.scalar(e.value) for e in (a, b))
        return x, y

    def _is_in(self, left: ast.expr, right: ast.expr) -> Any:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise self._error(right, "expected a list, such as ['x', 'y']")
        column = self._operand(left)
        if column.column is None:
            raise self._error(left, "expected a column before in")
        values = []
        for each in right.elts:
            operand = self._operand(each)
            if operand.column is not None:
                raise self._error(each, "expected a value in the list")
            operand = self._alike(operand, column, each)
            numbers = {operand.kind, column.kind} <= {*_NUMBERS}
            if operand.kind not in (column.kind, "null") and not numbers:
                raise self._mismatch(column, operand, each)
            if operand.value is not None:
                values.append(operand.value)
        found = column.value
        if "float64" in (column.kind, *("float64" for v in values if isinstance(v, float))):
            found, values = found.cast(pa.float64()), [float(v) for v in values]
        members = pc.is_in(found, value_set=pa.array(values, found.type))
        return pc.if_else(pc.is_valid(found), members, pa.scalar(None, pa.bool_()))

    def _operand(self, node: ast.expr) -> _Operand:
        if isinstance(node, ast.Name) and node.id not in _NAMES:
            return self._column(node.id, node)
        if isinstance(node, ast.Name):
            value: Any = _NAMES[node.id]
        elif isinstance(node, ast.Constant):
            value = node.value
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            inner = self._operand(node.operand)
            if inner.column is not None or inner.kind not in _NUMBERS:
                raise self._error(node, "expected a number behind the sign")
            value = -inner.value if isinstance(node.op, ast.USub) else inner.value
        elif isinstance(node, ast.Call):
            return self._column(self._name_of(node), node)
        else:
            raise self._error(node, "expected a column or a value; put dates and texts in quotes")
        if value is None:
            return _Operand(None, "null")
        if isinstance(value, bool):
            return _Operand(value, "bool")
        if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
            return _Operand(value, "int64")
        if isinstance(value, int | float):
            return _Operand(float(value), "float64")
        if isinstance(value, str):
            return _Operand(value, "string")
        raise self._error(node, "expected a text, a number, true, false or null")

    def _name_of(self, node: ast.Call) -> str:
        named = isinstance(node.func, ast.Name) and node.func.id == "column"
        if named and len(node.args) == 1 and not node.keywords:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                return argument.value
        raise self._error(node, 'there are no functions; column("name") is a column')

    def _column(self, name: str, node: ast.expr) -> _Operand:
        if name not in self._columns.column_names:
            names = ", ".join(self._columns.column_names)
            raise self._error(node, f"no column {name!r}; the index has {names}")
        values = self._columns[name]
        return _Operand(values, type_name(values.type), name)

    def _alike(self, operand: _Operand, other: _Operand, node: ast.expr) -> _Operand:
        """Returns a text as a time where the other side is a column of times."""
        if other.kind != "timestamp" or operand.kind != "string" or operand.column is not None:
            return operand
        try:
            return _Operand(parse(operand.value, "timestamp"), "timestamp")
        except ValueError:
            expected = 'expected a date, such as "2020-01-31" or "2020-01-31T12:00:00Z"'
            raise self._error(node, f"{other.column!r} is a time; {expected}") from None

    def _mismatch(self, a: _Operand, b: _Operand, node: ast.expr) -> ConfigError:
        what = [f"{e.column!r} is {e.kind}" if e.column else f"{e.value!r}" for e in (a, b)]
        return self._error(node, f"{what[0]}, which does not compare with {what[1]}")

    def _error(self, node: ast.expr, message: str) -> ConfigError:
        line = self._text.split("\n")[node.lineno - 1].encode()
        before = "\n".join(self._text.split("\n")[: node.lineno - 1])
        at = len(before) + (node.lineno > 1) + len(line[: node.col_offset].decode()) + 1
        return ConfigError(f"filter = {_short(self._text)}: at character {at}: {message}")
