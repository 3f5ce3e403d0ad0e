"""Every public name has type hints, a docstring, and an example that runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import socket
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import raydist as rd
from raydist.errors import RaydistError

PACKAGE = Path(rd.__file__).parent
NAMES = [
    name
    for name in rd.__all__
    if name != "__version__"
    and not (inspect.isclass(getattr(rd, name)) and issubclass(getattr(rd, name), RaydistError))
]
SAMPLES = [
    {"query": f"the {a}", "pos": [f"a {a} of a {b}"], "neg": [f"the {b}", "score"]}
    for a, b in [("query", "index"), ("vector", "model"), ("answer", "corpus"), ("score", "query")]
]
LISTS = [
    {
        "query_id": f"q{i}",
        "query": s["query"],
        "candidates": [
            {"id": "a", "text": s["pos"][0], "score": 0.9},
            {"id": "b", "text": s["neg"][0], "score": 0.1},
        ],
    }
    for i, s in enumerate(SAMPLES)
]


def examples() -> Iterator[doctest.DocTest]:
    """Yields the examples of all public names, and of the room's own functions."""
    finder = doctest.DocTestFinder()
    for path in sorted((PACKAGE / "api").glob("*.py")):
        module = importlib.import_module(f"raydist.api.{path.stem}")
        yield from (test for test in finder.find(module) if test.examples)


@pytest.mark.parametrize("test", [pytest.param(test, id=test.name) for test in examples()])
def test_an_example_runs(
    test: doctest.DocTest,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    globs: dict[str, Any] = {**test.globs, "SAMPLES": SAMPLES, "LISTS": LISTS}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        globs |= {"MODEL": str(tiny_bert), "PORT": free.getsockname()[1]}
    test.globs = globs
    lines: list[str] = []
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL, verbose=False
    )
    failed = runner.run(test, out=lines.append).failed
    assert not failed, "".join(lines)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_hints_a_docstring_and_an_example(name: str) -> None:
    value = getattr(rd, name)
    assert ">>> " in (value.__doc__ or ""), f"{name} has no example"
    functions = [value] if not inspect.isclass(value) else own_methods(value)
    for function in functions:
        assert function.__doc__, f"{name}.{function.__name__} has no docstring"
        parameters = list(inspect.signature(function).parameters.values())
        hints = function.__annotations__
        missing = [p.name for p in parameters if p.name not in {*hints, "self", "cls"}]
        assert not missing and "return" in hints, f"{name}.{function.__name__}: {missing}"


def own_methods(kind: type) -> list[Any]:
    """Returns the public methods and properties that a class of the interface declares."""
    methods = []
    for name, value in vars(kind).items():
        if name.startswith("_"):
            continue
        function = getattr(value, "fget", None) or getattr(value, "func", None) or value
        function = getattr(function, "__func__", function)
        if inspect.isfunction(function):
            methods.append(function)
    return methods


def test_type_checkers_see_the_names() -> None:
    """The names that are loaded late are those that a type checker is told of."""
    import ast

    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    told = {a.name: n.module for n in checked.body for a in n.names}  # type: ignore[attr-defined]
    late = {name: f"raydist.api.{module}" for name, module in rd._HOMES.items()}  # type: ignore[attr-defined]
    assert told == late
    errors = {name for name in rd.__all__ if name.endswith("Error")}
    assert set(rd.__all__) == {*told, *errors, "__version__"}
    assert (PACKAGE / "py.typed").is_file()
    assert typing.get_type_hints(rd.read_run)["return"] is rd.Run
