from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("part", ["train", "embed", "rerank"])
def test_the_gpu_benchmark_runs_without_ray_deepspeed_and_pydantic(part):
    code = (
        "import runpy, sys\n"
        "for name in ('ray', 'deepspeed', 'pydantic', 'mlflow', 'faiss'):\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = ['gpu', '--cpu', 'parts={part}']\n"
        "runpy.run_module('benchmarks.gpu', run_name='__main__')\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    figures = {
        "train": [
            f"{m}{w}_mfu" for m in ("bge_base", "qwen3_06b") for w in ("", "_varlen", "_cached")
        ],
        "embed": [f"embed_{n}{w}_docs_per_s" for n in (64, 256, 512) for w in ("", "_varlen")],
        "rerank": ["rerank_pairs_per_s"],
    }
    for figure in figures[part]:
        assert figure in done.stdout
