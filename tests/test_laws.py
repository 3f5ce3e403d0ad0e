"""The laws of the house, read off the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "raydist"
FILES = sorted(PACKAGE.rglob("*.py"))
SERVING = ("serving/app.py", "serving/replicas.py")
EDGE = (
    "cli.py",
    "build.py",
    "datasets.py",
    "api/",
    "integrations/",
    "commands/",
    "config/",
    *SERVING,
)


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def runtime_imports(path: Path) -> set[str]:
    """Returns what a file imports when it runs, also inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def users(module: str) -> set[str]:
    return {
        name(f) for f in FILES if any(i == module or i.startswith(module + ".") for i in imports(f))
    }


def test_each_outside_system_has_one_room() -> None:
    assert {f.split("/")[0] for f in users("ray.data")} <= {"shards.py", "data", "datasets.py"}
    assert len(users("ray.train")) <= 1 and all(
        f.startswith("training/") for f in users("ray.train")
    )
    assert users("ray.tune") <= {"tuning/trials.py"}
    assert all(f.startswith("serving/") for f in users("ray.serve"))
    assert users("obstore") <= {"stores/objects.py"}
    assert users("deepspeed") <= {"training/deepspeed.py"}
    assert users("mcp") <= {"serving/mcp.py"}
    assert users("mlflow") <= {"evaluation/mlflow_store.py"}
    assert {f.split("/")[0] for f in users("faiss")} <= {"dense"}


def test_rooms_know_neither_pydantic_nor_the_edge() -> None:
    edge = users("raydist.config") | users("raydist.commands") | users("raydist.cli")
    assert {f for f in edge if not f.startswith((*EDGE, "__main__.py"))} == set()
    # Requests and answers are pydantic models.
    http = ("serving/answers.py", "serving/schema.py", "serving/embed_schema.py", "serving/mcp.py")
    assert {f for f in users("pydantic") if not f.startswith(("config/", *http))} == set()


def test_nothing_imports_the_integrations_and_each_has_one_file() -> None:
    assert {f for f in users("raydist.integrations") if not f.startswith("integrations/")} == set()
    neighbours = ("pyterrier", "ranx", "mteb", "langchain_core", "llama_index")
    for neighbour in neighbours:
        assert len(users(neighbour)) == 1, neighbour


def test_specs_are_loaded_without_torch() -> None:
    specs = [f.relative_to(PACKAGE.parent).with_suffix("") for f in FILES if f.name == "spec.py"]
    modules = ", ".join(".".join(spec.parts) for spec in specs)
    code = f"import sys, {modules}\nassert not {{'torch', 'ray', 'pydantic'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {".".join(f.relative_to(PACKAGE.parent).with_suffix("").parts): f for f in FILES}
    graph = {
        module: (runtime_imports(file) & modules.keys()) - {module}
        for module, file in modules.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle


def test_rooms_of_plain_data_know_neither_torch_nor_transformers() -> None:
    plain = (
        "data/",
        "bow/",
        "text/",
        "evaluation/",
        "config/",
        "reranking/bm25.py",
        "reranking/apply.py",
    )
    heavy = users("torch") | users("transformers")
    top = {f for f in heavy if "/" not in f} - {"build.py"}
    assert {f for f in heavy if f.startswith(plain)} | top == set()


def test_every_module_says_what_it_is() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{name(path)} has no docstring"


def test_files_stay_readable() -> None:
    """One idea a file: most have 80 to 300 lines, none more than 500."""
    lines = {name(f): len(f.read_text(encoding="utf-8").splitlines()) for f in FILES}
    assert {f: n for f, n in lines.items() if n > 500} == {}


def test_nobody_inherits_from_abstract_classes_or_swallows_every_error() -> None:
    swallowing = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Name) and node.id in ("ABC", "ABCMeta")), name(path)
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None
                or (
                    isinstance(node.type, ast.Name)
                    and node.type.id in ("Exception", "BaseException")
                )
            ):
                swallowing.append(name(path))
    assert sorted(swallowing) == [
        "cluster.py",  # raises again, as Ray's own class is Exception
        "evaluation/follower.py",
        "reranking/batcher.py",
        "serving/frame.py",
    ]


@pytest.mark.parametrize("words", [["-c", "import raydist"], ["-m", "raydist", "--help"]])
def test_starting_loads_neither_torch_nor_ray(words: list[str]) -> None:
    code = (
        "import sys, runpy\n"
        f"words = {words!r}\n"
        "sys.argv = ['raydist', *words[2:]]\n"
        "try:\n"
        "    if words[0] == '-c':\n"
        "        exec(words[1])\n"
        "    else:\n"
        "        runpy.run_module('raydist', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'ray', 'pyarrow', 'numba', 'mlflow', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_every_verb_has_its_module() -> None:
    from raydist.commands import VERBS

    modules = {p.stem for p in (PACKAGE / "commands").glob("*.py")} - {"__init__"}
    assert modules == set(VERBS)
