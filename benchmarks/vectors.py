"""Search of vectors by their stored forms, and of FAISS's indexes: `python -m benchmarks.vectors`.

forms   Clustered vectors, each form searched exactly for single queries and for batches, beside the
        exact search of float32: queries per second. `int8_rescored_vs_f32` is what int8 with
        float16 beside gains for single queries.
recall  MiniLM's vectors of all collections, with the collections' queries: the recall@10 of int8
        and binary with float16 beside, of FAISS's indexes, and of these with a filter.
ann     Both sets of vectors: queries per second at a recall@10 of .95, the best of our approximate
        searches and the best of FAISS's own HNSW and IVF-PQ (refined by flat vectors or not), none
        of which takes less memory than ours.

One thread. Vectors and indexes are made once, in `.work`.

    python -m benchmarks.vectors parts=ann sets=real
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.report import SHARED, WORK, arguments, goal, recorded, write_results

D = 384
DEPTH = 4
K = 10
TARGET = 0.95
FORMS = {"int8": ("int8", "float16"), "binary": ("binary", "float16")}
COLLECTIONS = (
    *("nfcorpus", "cranfield", "cacm", "vaswani", "msmarco-dl19-judged", "biomappings-mesh"),
)
QUERIES = 300
"""Of a collection, at most."""

INDEXES: dict[str, dict[str, Any]] = {
    "hnsw": {"kind": "hnsw"},
    "hnsw_int8": {"kind": "hnsw", "precision": "int8"},
    "ivf_pq": {"kind": "ivf_pq"},
}
EFFORTS = {
    "search_effort": (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640),
    "probes": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128),
}
GOALS = {
    "qps_r95_vs_faiss": goal(">=", 1.0),
    "int8_rescored_vs_f32": goal(">=", 2.5),
    "recall10_int8_rescored": goal(">=", 0.999),
}

Search = Callable[[Any, int], tuple[Any, Any]]
"""Returns scores and rows of query vectors."""


def main() -> None:
    options = arguments(
        {
            "parts": "forms,recall,ann",
            "sets": "real,clustered",
            "collections": ",".join(COLLECTIONS),
            "rows": 200_000,
            "queries": 200,
            "rounds": 3,
            "seed": 1,
        }
    )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import faiss
    import torch

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    WORK.mkdir(exist_ok=True)
    for part in options["parts"].split(","):
        figures, notes = recorded("vectors")
        measured = PARTS[part](options)
        figures |= measured
        ratios = [value for key, value in figures.items() if key.startswith("qps_r95_vs_faiss_")]
        if ratios:
            figures["qps_r95_vs_faiss"] = min(each for each in ratios if each is not None)
        remarks = {name: options[name] for name in ("rows", "queries", "rounds", "seed")}
        remarks |= {"collections": options["collections"].split(",")} if part != "forms" else {}
        remarks |= {"dimension": D, "depth": DEPTH, "threads": 1, "faiss": faiss.__version__}
        write_results("vectors", figures, GOALS, notes={**notes, part: remarks})


def forms(options: dict[str, Any]) -> dict[str, float]:
    """Measures exact searches of the stored forms."""
    from raydist.dense.exact import exact_search
    from raydist.dense.recall import recall
    from raydist.dense.stored import rescored_search

    vectors_ND, queries_QD = clustered(options)
    full = written("clustered", vectors_ND, "float32", "none")
    figures = qps("f32", lambda q: exact_search(full, q, K), queries_QD, options["rounds"])
    for name, (precision, finer) in FORMS.items():
        shards = written("clustered", vectors_ND, precision, finer)

        def search(q: Any, k: int = K, shards: Any = shards) -> tuple[Any, Any]:
            return rescored_search(shards, q, k, DEPTH)

        figures |= qps(f"{name}_rescored", search, queries_QD, options["rounds"])
        figures[f"recall10_{name}_rescored_clustered"] = recall(search, full, queries_QD)
        for way in ("single", "batch"):
            ratio = figures[f"{name}_rescored_{way}_qps"] / figures[f"f32_{way}_qps"]
            figures[f"{name}_rescored_vs_f32" + ("_batch" if way == "batch" else "")] = ratio
    return figures


def recalls(options: dict[str, Any]) -> dict[str, float]:
    """Measures what smaller forms and approximate indexes find of real vectors."""
    import numpy as np

    from raydist.dense.exact import exact_search
    from raydist.dense.recall import recall
    from raydist.dense.stored import rescored_search

    vectors_ND, queries_QD = real(options)
    full = written("real", vectors_ND, "float32", "none")
    figures = {}
    for name, (precision, finer) in FORMS.items():
        shards = written("real", vectors_ND, precision, finer)

        def search(q: Any, k: int, shards: Any = shards) -> tuple[Any, Any]:
            return rescored_search(shards, q, k, DEPTH)

        figures[f"recall10_{name}_rescored"] = recall(search, full, queries_QD)
    rng = np.random.default_rng(options["seed"])
    for name, settings in INDEXES.items():
        near = indexed("real", vectors_ND, settings)
        figures[f"recall10_{name}"] = near.recall(full, queries_QD)
        for share in (0.5, 0.1):
            allowed = rng.random(len(full)) < share
            truth = exact_search(full, queries_QD, K, allowed_N=allowed)[1]
            rows = near.search(full, queries_QD, K, allowed)[1]
            hits = sum(len(np.intersect1d(a, b)) for a, b in zip(truth, rows))
            figures[f"recall10_{name}_filter_{share:.0%}".replace("%", "")] = hits / truth.size
    return figures


def ann(options: dict[str, Any]) -> dict[str, float]:
    """Measures approximate searches at one recall, beside FAISS's own."""
    import numpy as np

    from raydist.dense.exact import exact_search

    figures: dict[str, float] = {}
    for name in options["sets"].split(","):
        vectors_ND, queries_QD = real(options) if name == "real" else clustered(options)
        full = written(name, vectors_ND, "float32", "none")
        truth = exact_search(full, queries_QD, K)[1]
        ours, theirs = {}, {}
        for kind, settings in INDEXES.items():
            near = indexed(name, vectors_ND, settings)
            ours[kind] = best(sweep(near, full, queries_QD, truth, options["rounds"]))
            if kind != "hnsw_int8":
                part, _ = near.segments[0].load()[0]
                efforts = faiss_sweep(part, kind, vectors_ND, queries_QD, truth, options["rounds"])
                theirs[kind] = best(efforts)
        for of, values in (("", ours), ("faiss_", theirs)):
            figures |= {f"{of}{kind}_qps_r95_{name}": qps for kind, qps in values.items()}
        figures[f"qps_r95_vs_faiss_{name}"] = max(ours.values()) / max(theirs.values())
        print({key: round(value, 2) for key, value in figures.items()}, flush=True)
        assert np.isfinite(figures[f"qps_r95_vs_faiss_{name}"])
    return figures


def sweep(
    near: Any, full: Any, queries_QD: Any, truth: Any, rounds: int
) -> Iterator[tuple[float, float]]:
    """Yields recall and queries per second of our search with growing effort."""
    from raydist.dense.ann import AnnIndex

    (segment,) = near.segments
    key = "search_effort" if segment.about["kind"] == "hnsw" else "probes"
    for effort in EFFORTS[key]:
        other = replace(segment, about={**segment.about, key: effort})
        other._parts = segment.load()
        index = AnnIndex((other,))
        yield timed(lambda q, index=index: index.search(full, q, K)[1], queries_QD, truth, rounds)


def faiss_sweep(
    part: Any, kind: str, vectors_ND: Any, queries_QD: Any, truth: Any, rounds: int
) -> Iterator[tuple[float, float]]:
    """Yields the same of an index of FAISS, as it is searched without raydist."""
    import faiss

    if kind == "hnsw":
        for effort in EFFORTS["search_effort"]:
            params: Any = faiss.SearchParametersHNSW(efSearch=effort)
            yield timed(
                lambda q, p=params: part.search(q, K, params=p)[1], queries_QD, truth, rounds
            )
        return
    flat = faiss.IndexFlatIP(D)
    flat.add(vectors_ND)
    refined = faiss.IndexRefine(part, flat)
    for effort in EFFORTS["probes"]:
        params = faiss.SearchParametersIVF(nprobe=effort)
        yield timed(lambda q, p=params: part.search(q, K, params=p)[1], queries_QD, truth, rounds)
        for factor in (1, 2, 4, 8):
            both = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=params)
            yield timed(
                lambda q, p=both: refined.search(q, K, params=p)[1], queries_QD, truth, rounds
            )


def timed(
    search: Callable[[Any], Any], queries_QD: Any, truth: Any, rounds: int
) -> tuple[float, float]:
    """Returns recall@10, and queries per second of CPU time in the best round."""
    import numpy as np

    rows, seconds = search(queries_QD), []
    for _ in range(rounds):
        start = time.process_time()
        search(queries_QD)
        seconds.append(time.process_time() - start)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(truth, rows))
    return hits / truth.size, len(queries_QD) / min(seconds)


def best(points: Iterator[tuple[float, float]]) -> float:
    """Returns the most queries per second at the recall or above, 0 if it is not reached."""
    rates = [rate for recall, rate in points if recall >= TARGET]
    return max(rates, default=0.0)


def clustered(options: dict[str, Any]) -> tuple[Any, Any]:
    """Returns unit vectors around a thousand centres, and queries of the same kind."""
    import numpy as np

    rng = np.random.default_rng(options["seed"])
    centres = rng.normal(size=(1000, D)).astype(np.float32)

    def draw(count: int) -> Any:
        noise = rng.normal(size=(count, D)).astype(np.float32)
        drawn = centres[rng.integers(0, len(centres), count)] + noise
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    return draw(options["rows"]), draw(options["queries"])


def real(options: dict[str, Any]) -> tuple[Any, Any]:
    """Returns MiniLM's vectors of the collections' documents, and of their queries."""
    import numpy as np

    from benchmarks.retrieval import built
    from raydist.data.readers import read_queries
    from raydist.dense.retriever import DenseRetriever
    from raydist.dense.vectors import VectorShards

    documents, queries = [], []
    for collection in options["collections"].split(","):
        place = WORK / f"queries-{collection}.npy"
        vectors = built(collection, "vectors")
        if not place.is_file():
            dense = DenseRetriever.open(vectors, device="cpu")
            texts = read_queries(SHARED / collection / "queries.jsonl")[:QUERIES]
            np.save(place, dense.encoder.encode_queries([each.text for each in texts]))
        shards = VectorShards.open(vectors)
        documents.append(shards.read(0, len(shards)))
        queries.append(np.load(place))
    return np.concatenate(documents), np.concatenate(queries)


def written(name: str, vectors_ND: Any, precision: Any, rescore: Any) -> Any:
    """Returns mapped shards of the vectors in some forms."""
    from raydist.dense.files import VectorWriter
    from raydist.dense.segments import SHARDS
    from raydist.dense.vectors import VectorShards
    from raydist.shard_files import shard_path

    folder = WORK / f"vectors-{name}-{precision}"
    shutil.rmtree(folder / SHARDS, ignore_errors=True)
    with VectorWriter(shard_path(folder / SHARDS, 0), D, precision, rescore) as writer:
        for start in range(0, len(vectors_ND), 4096):
            part = vectors_ND[start : start + 4096]
            writer.append([str(start + i) for i in range(len(part))], part)
    facts = {"dimension": D, "precision": precision, "rescore_precision": rescore}
    return VectorShards.map(folder, {**facts, "shards": 1, "documents": len(vectors_ND)})


def indexed(name: str, vectors_ND: Any, settings: dict[str, Any]) -> Any:
    """Returns an approximate index of the vectors, built where it is missing."""
    from raydist.dense.ann import AnnIndex, build_ann
    from raydist.dense.spec import AnnSpec

    kind = "-".join(settings.values())
    folder: Path = WORK / f"vectors-{name}-float32-{len(vectors_ND)}-{kind}"
    if not (folder / "ann" / "ann.json").is_file():
        written(name, vectors_ND, "float32", "none")
        folder.mkdir(exist_ok=True)
        shards = WORK / f"vectors-{name}-float32" / "shards"
        if not (folder / "shards").exists():
            (folder / "shards").symlink_to(shards)
        facts = {"dimension": D, "precision": "float32", "shards": 1, "documents": len(vectors_ND)}
        began = time.perf_counter()
        build_ann(folder, facts, AnnSpec(**settings))
        print(f"{folder.name}: built in {time.perf_counter() - began:.0f} s", flush=True)
    return AnnIndex.open(folder)


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


PARTS = {"forms": forms, "recall": recalls, "ann": ann}

if __name__ == "__main__":
    main()
