"""Other processes compile what the cache does not have, each kernel once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raydist.kernels import ahead

MODULE = """
from raydist.kernels.jit import kernel

@kernel
def double(a):
    return a + a

@kernel
def treble(a):
    return a + a + a
"""
PROGRAM = """
import sys
from raydist.kernels.ahead import _PROCESSES, compile_ahead

kernels = {"adder:double": "(int64,)", "adder:treble": "(int64,)"}
print(compile_ahead(kernels, processes=2), "numba" in sys.modules, len(_PROCESSES))
from adder import double, treble
print(double(2), treble(2))
for each in (double, treble):
    print(sum(each.stats.cache_hits.values()))
print(*(each.wait() for each in _PROCESSES))
"""


def test_what_is_not_cached_is_compiled_by_other_processes(tmp_path: Path) -> None:
    (tmp_path / "adder.py").write_text(MODULE)
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}",
    }
    outputs = []
    for _ in range(2):
        command = [sys.executable, "-c", PROGRAM]
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        outputs.append(process.stdout.splitlines())
    first, second = outputs
    assert first[:2] == ["True False 1", "4 6"] and first[-1] == "0"
    assert second == ["False False 0", "4 6", "1", "1", ""]
    assert len(list((tmp_path / "cache").rglob("*.nbc"))) == 2


def test_a_kernel_that_another_process_has_begun_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_STARTED", {"a:begun", "a:free"})
    monkeypatch.setattr(ahead, "_claims", lambda: tmp_path)
    lock = ahead._claim(tmp_path, "a:begun")
    waiting = threading.Thread(target=ahead.begin, args=("a:begun",))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    os.close(lock)
    waiting.join(10)
    assert not waiting.is_alive()
    for name in ("a:free", "a:free", "a:unlisted"):  # nobody else has begun these
        ahead.begin(name)
    with pytest.raises(FileExistsError):  # others leave it to this process
        ahead._claim(tmp_path, "a:free")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a:begun", "a:free"]
