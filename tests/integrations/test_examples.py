"""Every public name of the integrations has an example that runs, and is imported by its file."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import raydist.integrations
from tests.integrations.test_mteb import task_of

FOLDER = Path(raydist.integrations.__file__).parent
NEIGHBOURS = {
    "langchain": "langchain_core",
    "llamaindex": "llama_index",
    "mteb": "mteb",
    "pyterrier": "pyterrier",
    "ranx": "ranx",
}


def modules() -> list[str]:
    names = [path.stem for path in sorted(FOLDER.glob("*.py")) if path.stem != "__init__"]
    return ["raydist.integrations", *(f"raydist.integrations.{name}" for name in names)]


def examples() -> Iterator[doctest.DocTest]:
    """Yields all examples but ranx's, which run where nothing is compiled."""
    for name in modules():
        if not name.endswith("ranx"):
            finder = doctest.DocTestFinder()
            tests = finder.find(importlib.import_module(name))
            yield from (test for test in tests if test.examples)


@pytest.mark.parametrize("test", [pytest.param(test, id=test.name) for test in examples()])
def test_an_example_runs(
    test: doctest.DocTest, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.jsonl").write_text(
        '{"id": "a", "text": "heron"}\n{"id": "b", "text": "boat"}'
    )
    (tmp_path / "queries.jsonl").write_text(
        '{"id": "p", "text": "heron"}\n{"id": "q", "text": "boat"}'
    )
    (tmp_path / "qrels.txt").write_text("p 0 a 1\nq 0 a 0\nq 0 b 2\n")
    test.globs = {**test.globs, "MODEL": str(tiny_bert), "TASK": task_of("Herons", tmp_path)}
    lines: list[str] = []
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    failed = doctest.DocTestRunner(optionflags=flags, verbose=False).run(test, out=lines.append)
    assert not failed.failed, "".join(lines)


@pytest.mark.parametrize("name", modules())
def test_public_names_have_hints_and_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    for key, value in vars(module).items():
        own = getattr(value, "__module__", None) == name and not key.startswith("_")
        if not own or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        assert ">>> " in (value.__doc__ or ""), f"{name}.{key} has no example"
        functions: list[Any] = [value]
        if inspect.isclass(value):
            methods = {k: v for k, v in vars(value).items() if not k.startswith("_")}
            functions = [v for v in methods.values() if inspect.isfunction(v)]
        for function in functions:
            assert function.__doc__, f"{name}.{function.__qualname__} has no docstring"
            parameters = inspect.signature(function).parameters
            missing = [p for p in parameters if p not in {*function.__annotations__, "self"}]
            assert not missing, f"{name}.{function.__qualname__}: {missing}"


def test_a_neighbour_is_needed_by_its_own_file_alone() -> None:
    code = (
        "import sys\n"
        f"blocked = {set(NEIGHBOURS.values())!r}\n"
        "sys.modules.update(dict.fromkeys(blocked))\n"
        "import raydist as rd, raydist.integrations.ranking\n"
        f"for name in {list(NEIGHBOURS)!r}:\n"
        "    try:\n"
        "        __import__(f'raydist.integrations.{name}')\n"
        "    except ModuleNotFoundError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(NEIGHBOURS) and all(": pip install " in line for line in lines)
