"""Seismic builds an index of sparse vectors and searches it; run by benchmarks/sparse.py.

    python sparse_peer.py build VECTORS.npz FOLDER
    python sparse_peer.py search VECTORS.npz FOLDER EXACT.json ROUNDS

Each prints one JSON line: CPU seconds, or by query cut and heap factor the recall@10 and the mean
CPU ms of a query, the best of the rounds. The tokens of queries are arrays before the clock starts.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CUTS = (3, 4, 5, 6, 8, 10, 12)
HEAP_FACTORS = (0.6, 0.7, 0.8, 0.9, 1.0)


def build(vectors: str, folder: Path) -> None:
    import seismic

    data = np.load(vectors)
    start = time.process_time()
    dataset = seismic.SeismicDataset()
    names = [f"d{n}" for n in range(len(data["indptr"]) - 1)]
    terms, weights = data["terms"].astype(np.int64), data["weights"].astype(np.float32)
    dataset.add_documents_by_id(names, terms, weights, data["indptr"].astype(np.int64))
    # Published for 8.8 M documents: 4,000 postings a term, a tenth of them centroids, energy .4.
    postings = max(500, 4_000 * len(names) // 1_000_000)
    options = {"n_postings": postings, "centroid_fraction": 0.1, "summary_energy": 0.4}
    index = seismic.SeismicIndex.build_from_dataset(dataset, **options, num_threads=1)
    folder.mkdir(parents=True, exist_ok=True)
    index.save(str(folder / "seismic"))
    seconds = time.process_time() - start
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(json.dumps({"cpu_s": seconds, "mb": size / 1e6}))


def search(vectors: str, folder: Path, exact: str, rounds: int) -> None:
    import seismic

    data = np.load(vectors)
    (file,) = folder.iterdir()
    index = seismic.SeismicIndex.load(str(file))
    kind = seismic.get_seismic_string()
    spans = list(zip(data["query_indptr"][:-1], data["query_indptr"][1:]))
    queries = [
        (
            np.array([str(t) for t in data["query_terms"][a:z]], dtype=kind),
            data["query_weights"][a:z],
        )
        for a, z in spans
    ]
    best = [set(names) for names in json.loads(Path(exact).read_text())]
    answers: list[dict[str, Any]] = []
    for cut, factor in itertools.product(CUTS, HEAP_FACTORS):
        runs = [index.search("q", terms, weights, 10, cut, factor) for terms, weights in queries]
        hits = [len({row[2] for row in run} & want) / len(want) for run, want in zip(runs, best)]
        times = []
        for _ in range(rounds):
            start = time.process_time()
            for terms, weights in queries:
                index.search("q", terms, weights, 10, cut, factor)
            times.append(time.process_time() - start)
        ms = 1000 * min(times) / len(queries)
        answers.append({"cut": cut, "factor": factor, "recall": float(np.mean(hits)), "ms": ms})
    print(json.dumps(answers))


if __name__ == "__main__":
    what, vectors, folder, *rest = sys.argv[1:]
    if what == "build":
        build(vectors, Path(folder))
    else:
        search(vectors, Path(folder), rest[0], int(rest[1]))
