"""The page on neighbours: its `python` blocks run as a reader would run them.

Blocks marked `py` load models from the hub; ranx's runs where numba compiles nothing.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/neighbours.md").read_text()
RANX = "import ranx"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def test_the_blocks_run_and_print_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for block in blocks("python"):
            if RANX not in block:
                exec(block, names)
    for shown in blocks("text"):
        assert shown in out.getvalue(), out.getvalue()


def test_the_block_of_ranx_runs(tmp_path: Path) -> None:
    [block] = [block for block in blocks("python") if RANX in block]
    setup = "import raydist as rd\nrun = rd.Run.from_lists([('q1', ['d1', 'd2'], [2.0, 1.0])])\n"
    code = f"{setup}qrels = {{'q1': {{'d1': 1}}}}\n{block}"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_names_of_other_blocks_exist() -> None:
    for block in blocks("py"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("raydist."):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names)
