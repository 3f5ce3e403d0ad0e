"""Exact search of vectors by their stored forms: `python -m benchmarks.vectors`.

Clustered vectors of 384 dimensions, one thread. Each form is searched for single queries and for
batches of 256, and compared with the exact search of float32: queries per second, and recall@10.
`int8_rescored_vs_f32` is what int8 with float16 beside gains for single queries.

    python -m benchmarks.vectors rows=200000 queries=200 rounds=3
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

from benchmarks.report import WORK, arguments, goal, write_results

D = 384
DEPTH = 4
K = 10
FORMS = {"int8": ("int8", "float16"), "binary": ("binary", "float16")}


def main() -> None:
    options = arguments({"rows": 200_000, "queries": 200, "rounds": 3, "seed": 1})
    import numpy as np
    import torch

    from raydist.dense.exact import exact_search
    from raydist.dense.recall import recall
    from raydist.dense.stored import rescored_search

    torch.set_num_threads(1)
    vectors_ND, queries_QD = clustered(options["rows"], options["queries"], options["seed"])
    full = written(vectors_ND, "float32", "none")
    figures = qps("f32", lambda q: exact_search(full, q, K), queries_QD, options["rounds"])
    for name, forms in FORMS.items():
        shards = written(vectors_ND, *forms)

        def search(q: Any, k: int = K, shards: Any = shards) -> tuple[Any, Any]:
            return rescored_search(shards, q, k, DEPTH)

        figures |= qps(f"{name}_rescored", search, queries_QD, options["rounds"])
        figures[f"recall10_{name}_rescored"] = recall(search, full, queries_QD)
        for way in ("single", "batch"):
            ratio = figures[f"{name}_rescored_{way}_qps"] / figures[f"f32_{way}_qps"]
            figures[f"{name}_rescored_vs_f32" + ("_batch" if way == "batch" else "")] = ratio
    goals = {"int8_rescored_vs_f32": goal(">=", 2.5), "recall10_int8_rescored": goal(">=", 0.999)}
    notes = {**options, "dimension": D, "depth": DEPTH, "threads": 1, "numpy": np.__version__}
    write_results("vectors", figures, goals, notes=notes)


def clustered(rows: int, queries: int, seed: int) -> tuple[Any, Any]:
    """Returns unit vectors around a thousand centres, and queries of the same kind."""
    import numpy as np

    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(1000, D)).astype(np.float32)

    def draw(count: int) -> Any:
        noise = rng.normal(size=(count, D)).astype(np.float32)
        drawn = centres[rng.integers(0, len(centres), count)] + noise
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    return draw(rows), draw(queries)


def written(vectors_ND: Any, precision: Any, rescore: Any) -> Any:
    """Returns mapped shards of the vectors in some forms."""
    from raydist.dense.segments import SHARDS
    from raydist.dense.vectors import VectorShards, VectorWriter
    from raydist.shard_files import shard_path

    folder = WORK / f"vectors-{precision}"
    shutil.rmtree(folder, ignore_errors=True)
    with VectorWriter(shard_path(folder / SHARDS, 0), D, precision, rescore) as writer:
        for start in range(0, len(vectors_ND), 4096):
            part = vectors_ND[start : start + 4096]
            writer.append([str(start + i) for i in range(len(part))], part)
    facts = {"dimension": D, "precision": precision, "rescore_precision": rescore}
    return VectorShards.map(folder, {**facts, "shards": 1, "documents": len(vectors_ND)})


def qps(name: str, search: Callable[[Any], Any], queries_QD: Any, rounds: int) -> dict[str, float]:
    """Returns queries per second, one by one and in one batch, of the best round."""
    search(queries_QD[:1])
    ways = {
        "single": lambda: [search(q[None]) for q in queries_QD],
        "batch": lambda: search(queries_QD),
    }
    figures = {}
    for way, run in ways.items():
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        figures[f"{name}_{way}_qps"] = len(queries_QD) / min(seconds)
    print(figures, flush=True)
    return figures


if __name__ == "__main__":
    main()
