from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_gpu_benchmark_runs_without_ray_deepspeed_and_pydantic():
    code = (
        "import runpy, sys\n"
        "for name in ('ray', 'deepspeed', 'pydantic', 'mlflow', 'faiss'):\n"
        "    sys.modules[name] = None\n"
        "sys.argv = ['gpu', 'size=tiny', 'dtype=float32']\n"
        "runpy.run_module('benchmarks.gpu', run_name='__main__')\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for figure in ("embed_share_of_peak", "train_cached_samples_per_s", "rerank_pairs_per_s"):
        assert figure in done.stdout
