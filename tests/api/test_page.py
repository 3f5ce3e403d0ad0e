"""The page of the Python interface: its `python` blocks run as a reader would run them.

Blocks marked `py` load models from the hub, or a service; their names and keys are checked.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

import raydist as rd

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/python.md").read_text()


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
            exec(block, names)
    for shown in blocks("text"):
        assert shown in out.getvalue()


def test_the_names_and_keys_of_other_blocks_exist() -> None:
    for block in blocks("py"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "rd":
                assert node.attr in rd.__all__
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "run":
                assert hasattr(rd.Training, node.attr)
