"""Multi-vector indexes beside fast-plaid's: `python -m benchmarks.multivector`.

codes    What bits do to rankings: the share of the top 10 of the vectors as they are that scoring
         all decoded vectors finds, with 4 and with 8 bits.
engines  The same token vectors through both: seconds and peak memory of the build, bytes of the
         index, and queries/s at the least effort of each that finds .99 of the top 10 of the
         vectors as they are (`recall` in the notes), or as much as both find if one finds less.
memory   Peak memory of builds of narrow random vectors, of 50,000 documents and of 5,000.

The engines are compared at 8 bits, since 4 are too coarse for that recall, whatever is searched:
they leave an eighth of a residual, and documents whose scores are that near change places. It is so
for the generator's vectors and, more so, for those of MiniLM's tokens in 4,000 passages of MS
MARCO, projected at random (.956; .991 at 8 bits).

fast-plaid runs in an environment of its own (peers/fastplaid.txt). It is given all vectors in
memory, as its interface wants; raydist's build reads them from the shards of an embedding. Builds
have as many threads as the machine, searches one.

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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers.environment import CACHE, Unavailable, environment
from benchmarks.report import (
    WORK,
    arguments,
    goal,
    load_average,
    memory_bytes,
    recorded,
    write_results,
)

if TYPE_CHECKING:
    from raydist.late.search import LateIndex

GOALS = {
    "qps_vs_fast_plaid_r99": goal(">=", 1.5),
    "build_peak_vs_fast_plaid": goal("<=", 0.5),
    "bytes_vs_fast_plaid": goal("<=", 1.0),
    "peak_rss_50k_vs_5k": goal("<=", 1.3),
}
RECALL = 0.99
PER_SPLIT = 500
EFFORTS = [(p, c) for p in (2, 4, 8) for c in (64, 128, 256, 512, 1024)]
"""raydist's probes and candidates."""
PEER_EFFORTS = [(p, c) for p in (2, 4) for c in (256, 512, 1024, 4096)]
"""fast-plaid's n_ivf_probe and n_full_scores."""


def main() -> None:
    options = arguments(
        {
            "parts": "codes,memory,engines",
            "documents": 20_000,
            "queries": 40,
            "bits": 8,
            "threads": len(os.sched_getaffinity(0)),
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
        values, remarks = PARTS[part](options)
        figures, notes = recorded("multivector")
        write_results("multivector", figures | values, GOALS, notes=notes | {part: remarks})


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
    environ = with_threads(options["threads"])
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def with_threads(count: int) -> dict[str, str]:
    """Returns the environment of a process with so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(count))}


def exact_top(folder: Path) -> list[set[int]]:
    """Returns the ten documents of largest MaxSim of each query, of the vectors as they are."""
    rows = np.load(folder / "documents.npy", mmap_mode="r")
    queries = np.load(folder / "queries.npy")
    lengths = np.load(folder / "lengths.npy")
    ends = np.cumsum(lengths)
    parts = []
    for first in range(0, len(lengths), 200):
        stop = min(first + 200, len(lengths))
        begin = int(ends[first] - lengths[first])
        block = np.asarray(rows[begin : ends[stop - 1]], np.float32)
        starts = ends[first:stop] - lengths[first:stop] - begin
        products = block @ queries.reshape(-1, block.shape[1]).T
        best = np.maximum.reduceat(products, starts, axis=0)
        parts.append(best.reshape(len(starts), len(queries), -1).sum(axis=2))
    scores = np.concatenate(parts).T
    return [set(np.argsort(-each, kind="stable")[:10].tolist()) for each in scores]


def recall(truth: list[set[int]], found: list[list[int]]) -> float:
    """Returns the share of the exact top 10 that is found."""
    return float(np.mean([len(a & set(b)) / 10 for a, b in zip(truth, found)]))


def codes(options: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Measures what the bits of residuals do to the ranking of all documents."""
    from raydist.late.spec import LateSearchSpec

    folder = written("codes", 2_000, 50)
    truth, figures = exact_top(folder), {}
    for bits in (4, 8):
        in_child(folder, {**options, "bits": bits})
        found = opened(folder).search(
            list(np.load(folder / "queries.npy")), 10, LateSearchSpec(exact=True)
        )
        figures[f"recall_{bits}_bits"] = recall(truth, [each.tolist() for _, each in found])
    return dict(figures), {"documents": 2_000, "queries": 50}


def opened(folder: Path) -> LateIndex:
    """Returns raydist's index of vectors."""
    from raydist.late.search import LateIndex
    from raydist.manifest import read_manifest

    return LateIndex.open(folder / "index", read_manifest(folder / "index"))


def engines(options: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Measures both engines on the same vectors."""
    folder = written("engines", options["documents"], options["queries"])
    truth = exact_top(folder)
    build = in_child(folder, options)
    size = size_of(folder / "index")
    notes: dict[str, Any] = {
        name: options[name] for name in ("documents", "queries", "bits", "threads")
    }
    notes["load"] = load_average()
    try:
        about = fast_plaid_build(folder, options)
    except Unavailable as error:
        return dict.fromkeys(list(GOALS)[:3]), {**notes, "fast_plaid": str(error)}
    with subprocess.Popen(
        fast_plaid_command(folder, options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=with_threads(1),
    ) as process:
        answer_of(process)
        engines: dict[str, Engine] = {
            "raydist": searching(folder),
            "fast_plaid": partial(fast_plaid_search, process),
        }
        scales = {"raydist": EFFORTS, "fast_plaid": PEER_EFFORTS}
        efforts = {
            name: [measured(engine, effort, truth) for effort in scales[name]]
            for name, engine in engines.items()
        }
        target = min(RECALL, *(max(e["recall"] for e in each) for each in efforts.values()))
        chosen = {name: fastest(each, target) for name, each in efforts.items()}
        rates: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(options["rounds"]):  # by turns, so that both see the same machine
            for name, engine in engines.items():
                effort = chosen[name]["probes"], chosen[name]["candidates"]
                rates[name].append(measured(engine, effort, truth)["qps"])
        assert process.stdin is not None
        process.stdin.close()
    best = {name: max(each) for name, each in rates.items()}
    notes |= {
        "recall": target,
        "raydist": {**build, "bytes": size, "effort": chosen["raydist"]},
        "fast_plaid": {**about, "effort": chosen["fast_plaid"]},
        "efforts": efforts,
        "rounds": rates,
    }
    return {
        "qps_vs_fast_plaid_r99": best["raydist"] / best["fast_plaid"],
        "build_peak_vs_fast_plaid": build["peak"] / about["peak"],
        "build_seconds_vs_fast_plaid": build["seconds"] / about["seconds"],
        "bytes_vs_fast_plaid": size / about["bytes"],
        "qps": best["raydist"],
        "qps_fast_plaid": best["fast_plaid"],
        "recall_compared": target,
        "recall": max(each["recall"] for each in efforts["raydist"]),
        "recall_fast_plaid": max(each["recall"] for each in efforts["fast_plaid"]),
    }, notes


Engine = Callable[[int, int], tuple[float, list[list[int]]]]
"""Searches all queries with so many probes and candidates; returns seconds and the top 10."""


def measured(engine: Engine, effort: tuple[int, int], truth: list[set[int]]) -> dict[str, float]:
    """Returns what one pass over the queries finds, and how fast."""
    seconds, found = engine(*effort)
    probes, candidates = effort
    figures = {
        "probes": probes,
        "candidates": candidates,
        "recall": recall(truth, found),
        "qps": len(truth) / seconds,
    }
    print(figures, flush=True)
    return figures


def fastest(efforts: list[dict[str, float]], target: float) -> dict[str, float]:
    """Returns the fastest of those that find enough."""
    return max((each for each in efforts if each["recall"] >= target), key=lambda e: e["qps"])


def size_of(folder: Path) -> int:
    """Returns the bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def searching(folder: Path) -> Engine:
    """Returns raydist's search, with one thread."""
    from threadpoolctl import threadpool_limits

    from raydist.late.spec import LateSearchSpec

    index, queries = opened(folder), list(np.load(folder / "queries.npy"))
    index.search(queries[:4], 10)  # compiles

    def search(probes: int, candidates: int) -> tuple[float, list[list[int]]]:
        spec = LateSearchSpec(probes=probes, candidates=candidates)
        with threadpool_limits(1):
            started = time.perf_counter()
            found = index.search(queries, 10, spec)
            seconds = time.perf_counter() - started
        return seconds, [numbers.tolist() for _, numbers in found]

    return search


def fast_plaid_command(folder: Path, options: dict[str, Any]) -> list[str]:
    """Returns the command of a process of fast-plaid: it builds, or answers what it is asked."""
    python = environment("fastplaid", Path(options["peers"])) / "python"
    script = Path(__file__).parent / "peers" / "with_fastplaid.py"
    return [str(python), str(script), str(folder), str(folder / "fast-plaid"), str(options["bits"])]


def fast_plaid_build(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Builds fast-plaid's index; returns its seconds, peak memory and bytes."""
    shutil.rmtree(folder / "fast-plaid", ignore_errors=True)
    command = fast_plaid_command(folder, options)
    environ = with_threads(options["threads"])
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        about = answer_of(process)
    return {**about, "bytes": size_of(folder / "fast-plaid")}


def fast_plaid_search(
    process: subprocess.Popen[str], probes: int, candidates: int
) -> tuple[float, list[list[int]]]:
    """Asks a process of fast-plaid for the top 10 of all queries."""
    assert process.stdin is not None
    settings = {"n_ivf_probe": probes, "n_full_scores": candidates}
    process.stdin.write(json.dumps(settings) + "\n")
    process.stdin.flush()
    answer = answer_of(process)
    return answer["seconds"], answer["found"]


def answer_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Returns the next line of JSON that a process prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return dict(json.loads(line))
    raise Unavailable("fast-plaid ended without an answer")


def memory(options: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Measures the peaks of builds of a small and a large collection of narrow vectors."""
    peaks = {}
    for count in (5_000, 50_000):
        folder = written("narrow", count, 1, dimension=16, length=40)
        peaks[count] = in_child(folder, options)["peak"]
    return {"peak_rss_50k_vs_5k": peaks[50_000] / peaks[5_000]}, {
        str(count): peak for count, peak in peaks.items()
    }


PARTS = {"codes": codes, "memory": memory, "engines": engines}


if __name__ == "__main__":
    main()
