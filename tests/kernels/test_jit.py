"""Compiled kernels are reused wherever the package lies; their cache is private."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raydist.kernels.cache import _base, _imports

MODULE = """
from raydist.kernels.jit import kernel

@kernel
def add(a, b):
    return a + b
"""
PROGRAM = "from adder import add; print(add(1, 2), len(add.stats.cache_hits))"


def test_a_package_in_another_folder_need_not_compile_anew(tmp_path: Path) -> None:
    outputs = []
    for folder, source in (("one", MODULE), ("two", MODULE), ("two", MODULE.replace("+", "-"))):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "adder.py").write_text(source)
        environment = {**os.environ, "RAYDIST_CACHE": str(tmp_path / "cache")}
        environment["PYTHONPATH"] = f"{tmp_path / folder}:{Path(__file__).parents[2]}"
        environment.pop("NUMBA_CACHE_DIR", None)
        command = [sys.executable, "-B", "-c", PROGRAM]
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        outputs.append(process.stdout.split())
    assert outputs == [["3", "0"], ["3", "1"], ["-1", "0"]]


def test_a_cache_that_others_may_write_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path))
    cache_base = _base.__wrapped__
    assert cache_base("") == tmp_path / "kernels"
    assert not (tmp_path / "kernels").stat().st_mode & 0o077
    (tmp_path / "kernels").chmod(0o777)
    assert cache_base("") != tmp_path / "kernels"
    assert cache_base(str(tmp_path / "chosen")) == tmp_path / "chosen"


def test_the_key_follows_modules_however_they_are_imported() -> None:
    source = """
import raydist.log
from raydist.kernels.arrays import readonly
from raydist.kernels import jit
from raydist import (
    disk,
    data as collections,
)
from numpy import log
"""
    modules = {"raydist.log", "raydist.kernels", "raydist.kernels.arrays", "raydist.kernels.jit"}
    assert set(_imports(source)) == modules | {"raydist", "raydist.disk", "raydist.data"}


NESTED = """
from raydist.kernels.jit import kernel

@kernel
def double(a):
    return a + a

@kernel
def quadruple(a):
    return double(double(a))
"""
NESTED_PROGRAM = (
    "from nested import double, quadruple; print(quadruple(3), len(double.signatures), double(3))"
)


def test_a_kernel_that_another_one_calls_is_compiled_in_it_alone(tmp_path: Path) -> None:
    (tmp_path / "nested.py").write_text(NESTED)
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}",
    }
    command = [sys.executable, "-c", NESTED_PROGRAM]
    for _ in range(2):  # the second time from the cache
        process = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert process.stdout.split() == [b"12", b"0", b"6"]
    machine_code = [path.name for path in (tmp_path / "cache").rglob("*.nbc")]
    assert len(machine_code) == 2
