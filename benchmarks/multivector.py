"""Multi-vector indexes beside fast-plaid's: `python -m benchmarks.multivector`.

engines  The same token vectors through both: seconds and peak memory of the build, bytes of the
         index, and queries/s at the least effort of each that finds .99 of the exact top 10 (MaxSim
         of the vectors as they are), or, where neither does at this number of bits, as much as the
         better one's exhaustive search of its decoded vectors finds.
memory   Peak memory of builds of narrow random vectors, of 50,000 documents and of 5,000.

fast-plaid runs in an environment of its own (peers/fastplaid.txt). It is given all vectors in
memory, as its interface wants; raydist's build reads them from the shards of an embedding.

The generator makes tokens of words: a Zipf-like vocabulary of directions, topics that prefer words
and lean all their tokens to one side, a document's own direction, and noise. A query repeats some
of a document's tokens, with noise.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.environment import CACHE, Unavailable, environment
from benchmarks.report import WORK, arguments, goal, memory_bytes, recorded, write_results

GOALS = {
    "qps_vs_fast_plaid_r99": goal(">=", 1.5),
    "build_peak_vs_fast_plaid": goal("<=", 0.5),
    "bytes_vs_fast_plaid": goal("<=", 1.0),
    "peak_rss_50k_vs_5k": goal("<=", 1.3),
}
RECALL = 0.99
PER_SPLIT = 500
EFFORTS = [(p, c) for p in (2, 4, 8, 16) for c in (32, 64, 128, 256, 512)]
"""raydist's probes and candidates."""
PEER_EFFORTS = [(p, c) for p in (2, 4, 8, 16) for c in (128, 256, 512, 1024, 2048, 4096)]
"""fast-plaid's n_ivf_probe and n_full_scores."""


def main() -> None:
    options = arguments(
        {
            "parts": "engines,memory",
            "documents": 20_000,
            "queries": 200,
            "bits": 4,
            "threads": 1,
            "rounds": 3,
            "peers": str(CACHE),
            "child": "",
        }
    )
    if options["child"]:
        print(json.dumps(built(Path(options["child"]), options["bits"])), flush=True)
        return
    WORK.mkdir(exist_ok=True)
    for part in options["parts"].split(","):
        figures, notes = recorded("multivector")
        measured, remarks = PARTS[part](options)
        write_results("multivector", figures | measured, GOALS, notes=notes | {part: remarks})


def generated(count: int, dimension: int = 128, length: float = 80) -> Iterator[np.ndarray]:
    """Yields documents of unit vectors."""
    rng = np.random.default_rng(0)
    vocabulary, topics = 5000, 100
    words, leanings = (unit(rng.standard_normal((n, dimension))) for n in (vocabulary, topics))
    frequent = np.cumsum(1 / np.arange(1, vocabulary + 1))
    orders = np.argsort(rng.random((topics, vocabulary)), axis=1)
    for _ in range(count):
        topic = int(rng.integers(topics))
        tokens = int(np.clip(rng.normal(length, length / 3), 8, 2.2 * length))
        ranks = np.searchsorted(frequent, rng.random(tokens) * frequent[-1])
        own = np.where(rng.random(tokens) < 0.6, orders[topic, ranks], ranks)
        context = unit(rng.standard_normal((1, dimension)))
        noise = rng.standard_normal((tokens, dimension)) / dimension**0.5
        yield unit(words[own] + 0.35 * leanings[topic] + 0.3 * context + 0.3 * noise)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors of unit length, float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def queries_of(documents: list[np.ndarray], count: int) -> np.ndarray:
    """Returns queries of 32 vectors: up to 12 tokens of a document, and copies with noise."""
    rng = np.random.default_rng(1)
    queries = []
    for _ in range(count):
        own = documents[int(rng.integers(len(documents)))]
        tokens = own[rng.permutation(len(own))[: int(rng.integers(5, 13))]]
        repeated = tokens[np.arange(32) % len(tokens)]
        noise = rng.standard_normal(repeated.shape) / repeated.shape[1] ** 0.5
        queries.append(unit(repeated + 0.5 * noise))
    return np.stack(queries)


def embedded(folder: Path, split: dict[str, int], target: Path) -> dict[str, Any]:
    """Writes a split of generated vectors as a shard of token vectors."""
    import pyarrow as pa

    from raydist.late.token_shards import TokenWriter

    rows = np.load(folder / "documents.npy", mmap_mode="r")
    lengths = np.load(folder / "lengths.npy")
    ends = np.cumsum(lengths)
    first, stop = split["first"], min(split["first"] + PER_SPLIT, len(lengths))
    with TokenWriter(target) as writer:
        own = rows[ends[first] - lengths[first] : ends[stop - 1]]
        ids = pa.array([f"d{number}" for number in range(first, stop)])
        writer.append(ids, lengths[first:stop], np.asarray(own))
    counts = {"documents": writer.documents, "vectors": writer.vectors}
    return {**counts, "tokens": 0, "padded": 0, "seconds": 0.0}


def built(folder: Path, bits: int) -> dict[str, Any]:
    """Builds raydist's index beside the vectors; returns the seconds and this process's peak."""
    from raydist.late.build import build_index
    from raydist.manifest import write_manifest

    index = folder / "index"
    shutil.rmtree(index, ignore_errors=True)
    index.mkdir()
    count = len(np.load(folder / "lengths.npy"))
    splits = [{"first": first, "size": PER_SPLIT} for first in range(0, count, PER_SPLIT)]
    dimension = np.load(folder / "documents.npy", mmap_mode="r").shape[1]
    started = time.perf_counter()
    make = partial(partial, embedded, folder)
    facts = build_index(splits, make, index, dimension=dimension, bits=bits, unit=True)
    seconds = time.perf_counter() - started
    shutil.rmtree(index / ".work")
    write_manifest(index, {"kind": "multivector-index", "format": 1, **facts})
    return {"seconds": seconds, "peak": memory_bytes("VmHWM")}


def written(name: str, count: int, queries: int, **shape: Any) -> Path:
    """Writes generated vectors (float16) into a folder, unless they are there."""
    folder = WORK / f"multivector-{name}-{count}"
    if not (folder / "queries.npy").exists():
        folder.mkdir(exist_ok=True)
        documents = list(generated(count, **shape))
        np.save(folder / "lengths.npy", np.array([len(each) for each in documents]))
        np.save(folder / "documents.npy", np.concatenate(documents).astype(np.float16))
        np.save(folder / "queries.npy", queries_of(documents, queries))
    return folder


def in_child(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Returns what a process of its own says of its build."""
    words = [f"child={folder}", f"bits={options['bits']}"]
    command = [sys.executable, "-m", "benchmarks.multivector", *words]
    threads = {name: str(options["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    result = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **threads}
    )
    return dict(json.loads(result.stdout.splitlines()[-1]))


def exact_top(folder: Path) -> list[set[int]]:
    """Returns the ten documents of largest MaxSim of each query, of the vectors as they are."""
    rows = np.load(folder / "documents.npy").astype(np.float32)
    lengths = np.load(folder / "lengths.npy")
    starts = np.cumsum(lengths) - lengths
    best = []
    for query in np.load(folder / "queries.npy"):
        scores = np.maximum.reduceat(rows @ query.T, starts, axis=0).sum(axis=1)
        best.append(set(np.argsort(-scores, kind="stable")[:10].tolist()))
    return best


def recall(truth: list[set[int]], found: list[list[int]]) -> float:
    """Returns the share of the exact top 10 that is found."""
    return float(np.mean([len(a & set(b)) / 10 for a, b in zip(truth, found)]))


def engines(options: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Measures both engines on the same vectors."""
    folder = written("engines", options["documents"], options["queries"])
    truth = exact_top(folder)
    build = in_child(folder, options)
    own = searched(folder, truth, options)
    size = sum(path.stat().st_size for path in (folder / "index").rglob("*") if path.is_file())
    notes: dict[str, Any] = {"documents": options["documents"], "bits": options["bits"]}
    notes |= {"threads": options["threads"], "raydist": {**build, "bytes": size, "efforts": own}}
    try:
        peer = fast_plaid(folder, truth, options)
    except Unavailable as error:
        notes["fast_plaid"] = str(error)
        return dict.fromkeys(list(GOALS)[:3]), notes
    notes["fast_plaid"] = peer
    ceiling = max(each["recall"] for each in (*own, *peer["efforts"]))
    target = min(RECALL, ceiling)
    notes["recall"] = target
    rates = [fastest(efforts, target) for efforts in (own, peer["efforts"])]
    return {
        "qps_vs_fast_plaid_r99": rates[0] / rates[1] if all(rates) else None,
        "build_peak_vs_fast_plaid": build["peak"] / peer["peak"],
        "build_seconds_vs_fast_plaid": build["seconds"] / peer["seconds"],
        "bytes_vs_fast_plaid": size / peer["bytes"],
        "qps": rates[0],
        "qps_fast_plaid": rates[1],
        "recall": max(each["recall"] for each in own),
        "recall_fast_plaid": max(each["recall"] for each in peer["efforts"]),
    }, notes


def fastest(efforts: list[dict[str, float]], target: float) -> float:
    """Returns the most queries/s of those that find enough, 0 if none does."""
    return max((each["qps"] for each in efforts if each["recall"] >= target), default=0.0)


def searched(
    folder: Path, truth: list[set[int]], options: dict[str, Any]
) -> list[dict[str, float]]:
    """Measures raydist's search at each effort."""
    from threadpoolctl import threadpool_limits

    from raydist.late.search import LateIndex
    from raydist.late.spec import LateSearchSpec
    from raydist.manifest import read_manifest

    index = LateIndex.open(folder / "index", read_manifest(folder / "index"))
    queries = list(np.load(folder / "queries.npy"))
    efforts = []
    with threadpool_limits(1):
        for probes, candidates in EFFORTS:
            spec = LateSearchSpec(probes=probes, candidates=candidates)
            seconds = []
            for _ in range(options["rounds"] + 1):  # the first one compiles and maps
                started = time.perf_counter()
                found = index.search(queries, 10, spec, threads=options["threads"])
                seconds.append(time.perf_counter() - started)
            efforts.append(
                {
                    "probes": probes,
                    "candidates": candidates,
                    "recall": recall(truth, [numbers.tolist() for _, numbers in found]),
                    "qps": len(queries) / min(seconds[1:]),
                }
            )
            print(efforts[-1], flush=True)
    return efforts


def fast_plaid(folder: Path, truth: list[set[int]], options: dict[str, Any]) -> dict[str, Any]:
    """Measures fast-plaid's build and its search at each effort."""
    python = environment("fastplaid", Path(options["peers"])) / "python"
    index = folder / "fast-plaid"
    shutil.rmtree(index, ignore_errors=True)
    script = Path(__file__).parent / "peers" / "with_fastplaid.py"
    words = [str(folder), str(index), str(options["bits"]), str(options["threads"])]
    threads = {name: str(options["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    threads |= {"RAYON_NUM_THREADS": str(options["threads"])}
    with subprocess.Popen(
        [python, script, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **threads},
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def answer() -> dict[str, Any]:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    return dict(json.loads(line))
            raise Unavailable("fast-plaid ended without an answer")

        about = answer()
        efforts = []
        for probes, scores in PEER_EFFORTS:
            settings = {"n_ivf_probe": probes, "n_full_scores": scores}
            seconds = []
            for count in (4, *[len(truth)] * options["rounds"]):
                process.stdin.write(json.dumps({**settings, "queries": count}) + "\n")
                process.stdin.flush()
                found = answer()
                seconds.append(found["seconds"])
            efforts.append(
                {
                    **settings,
                    "recall": recall(truth, found["found"]),
                    "qps": len(truth) / min(seconds[1:]),
                }
            )
            print(efforts[-1], flush=True)
        process.stdin.close()
    size = sum(path.stat().st_size for path in index.rglob("*") if path.is_file())
    return {**about, "bytes": size, "efforts": efforts}


def memory(options: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Measures the peaks of builds of a small and a large collection of narrow vectors."""
    peaks = {}
    for count in (5_000, 50_000):
        folder = written("narrow", count, 1, dimension=16, length=40)
        peaks[count] = in_child(folder, options)["peak"]
    return {"peak_rss_50k_vs_5k": peaks[50_000] / peaks[5_000]}, {
        str(count): peak for count, peak in peaks.items()
    }


PARTS = {"engines": engines, "memory": memory}


if __name__ == "__main__":
    main()
