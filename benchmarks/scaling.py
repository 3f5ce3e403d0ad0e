"""Scaling: build and embed time with one and two workers, the merge's share, and the cost model.

    python -m benchmarks.scaling                  # 1 M documents, about ten minutes on two cores
    python -m benchmarks.scaling parts=merge      # the others' figures are kept from the record
    python -m benchmarks.scaling parts=driver     # the driver's work for 10^7 and 10^8 ids
    python -m benchmarks.scaling parts=lifecycle  # a deletion and a merge beside a build
    python -m benchmarks.scaling parts=nodes      # 2, 4 and 8 raylets with the same work each

The corpus is that of `benchmarks.bow`; embedding is by all-MiniLM-L6-v2 on some of its documents.
One Ray of two CPUs runs throughout, so its own start is not counted; that of the workers is.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bow_fetch import corpus
from benchmarks.cost import MS_MARCO_V2, Rates, embed_seconds, index_seconds
from benchmarks.lifecycle import deletions, merge_of_segments
from benchmarks.models import minilm
from benchmarks.raylets import COUNTS, PARTS, VERBS
from benchmarks.report import arguments, goal, print_table, recorded, write_results

DEFAULTS = {
    "parts": "build,merge,embed",
    "docs": 1_000_000,
    "embed_docs": 2000,
    "rounds": 2,
    "ids": "1e7,1e8",
    "nodes": "2,4,8",
}
GOALS = {
    "index_splits_2_vs_1": goal("<=", 0.65),
    "embed_2_vs_1": goal("<=", 0.65),
    "driver_ids_1e8_peak_mb": goal("<=", 2048),
    "driver_ids_1e8_vs_1e7": goal("<=", 12),
    "delete_one_of_1m_vs_build": goal("<=", 0.02),
    "merge_vs_build": goal("<=", 0.5),
    **{f"nodes_8_vs_2_{verb}_driver_peak": goal("<=", 1.25) for verb in VERBS},
    **{f"nodes_8_vs_2_{verb}_node_cpu": goal("<=", 1.25) for verb in VERBS},
}
_SHARES = ("delete_one_of_1m_vs_build", "update_one_of_1m_vs_build", "merge_vs_build")
SPLITS = (8, 32, 128)  # of the merge's measurement; 8 of them are about as large as by default
MEMORY = 1 << 30  # bytes of a worker, which decides the number of term ranges
NODES = (1, 2, 4, 8, 16)
WORKERS_PER_NODE = 16


def main() -> None:
    settings = arguments(DEFAULTS)
    figures, _ = recorded("scaling")
    parts = settings["parts"].split(",")
    if "nodes" in parts:
        for count in settings["nodes"].split(","):
            figures |= weak(int(count))
            write_results("scaling", figures, GOALS, notes=settings)
        figures |= growth(figures)
        parts.remove("nodes")
    if "lifecycle" in parts:
        figures |= lifecycle(settings["docs"], settings["rounds"])
        parts.remove("lifecycle")
    if "driver" in parts:
        figures |= driver(settings["ids"].split(","))
        parts.remove("driver")
    if parts:
        figures |= on_ray(parts, settings)
    if "index_2_workers_s" in figures:
        tables(figures)
        figures |= predictions(figures)
    dropped = ("merge_ns_per_posting_and_doubling",)
    shown = {name: each for name, each in figures.items() if name not in dropped}
    write_results("scaling", shown, GOALS, notes={**settings, "splits": list(SPLITS)})


def lifecycle(documents: int, rounds: int) -> dict[str, float]:
    """Returns what a deletion, an update and a merge cost, as shares of a build."""
    folder = Path(tempfile.mkdtemp(prefix="raydist-lifecycle-"))
    try:
        source = corpus(documents) / "corpus.jsonl"
        shares = {**deletions(source, folder, rounds), **merge_of_segments(source, folder)}
    finally:
        shutil.rmtree(folder)
    return {name: shares[name] for name in _SHARES}


def weak(nodes: int) -> dict[str, float]:
    """Measures that many nodes with the same work each, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.raylets", f"nodes={nodes}"]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    about = json.loads(done.stdout.splitlines()[-1])
    return {
        f"nodes_{nodes}_{verb}_{name}": value
        for verb in VERBS
        for name, value in about[verb].items()
    }


def growth(figures: Mapping[str, Any]) -> dict[str, float]:
    """Prints what nodes and their driver took, and returns how it grew from 2 nodes to 8."""
    rows = [
        [verb, nodes, *(figures.get(f"nodes_{nodes}_{verb}_{part}") for part in PARTS)]
        for verb in VERBS
        for nodes in COUNTS
    ]
    print_table("the same work a node", ["verb", "nodes", *PARTS.values()], rows)
    grown = {}
    for verb in VERBS:
        for short, part in (("driver_peak", "driver_peak_mb"), ("node_cpu", "node_cpu_s")):
            few, many = (figures.get(f"nodes_{nodes}_{verb}_{part}") for nodes in (2, 8))
            if few and many:
                grown[f"nodes_8_vs_2_{verb}_{short}"] = many / few
    return grown


def driver(counts: Sequence[str]) -> dict[str, float]:
    """Does the driver's work for each number of ids in a process of its own; predicts 10^9."""
    figures: dict[str, float] = {}
    rows, columns = [], ["ids"]
    for each in counts:
        words = [sys.executable, "-m", "benchmarks.driver", f"ids={int(float(each))}"]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        about = json.loads(done.stdout.splitlines()[-1])
        columns = ["ids", *about]
        rows.append([each, *about.values()])
        figures |= {
            f"driver_ids_{each}_s": about["total"],
            f"driver_ids_{each}_peak_mb": about["peak_mb"],
        }
    print_table("the driver's work, in seconds", columns, rows)
    last, most = figures[f"driver_ids_{counts[-1]}_s"], float(counts[-1])
    if len(counts) > 1:
        figures["driver_ids_1e8_vs_1e7"] = last / figures[f"driver_ids_{counts[-2]}_s"]
    return figures | {"driver_ids_1e9_s_predicted": last * 1e9 / most}


def on_ray(parts: Sequence[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """Measures builds, merges and embedding on one Ray of two CPUs."""
    figures: dict[str, float] = {}
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=300 << 20,
    )
    folder = Path(tempfile.mkdtemp(prefix="raydist-scaling-"))
    try:
        source = corpus(settings["docs"]) / "corpus.jsonl"
        for part in parts:
            if part == "build":
                figures |= builds(source, folder, settings["rounds"])
            elif part == "merge":
                figures |= merges(source, folder)
            else:
                figures |= embeddings(source, folder, settings["embed_docs"], settings["rounds"])
    finally:
        shutil.rmtree(folder)
        ray.shutdown()
    return figures


def run(verb: str, out: Path, **options: Any) -> tuple[float, dict[str, Any]]:
    """Runs a verb into a fresh folder; returns its wall seconds and its manifest."""
    from raydist.cli import main as raydist
    from raydist.manifest import read_manifest

    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    code = raydist([verb, *(f"{name}={value}" for name, value in options.items()), f"out={out}"])
    seconds = time.perf_counter() - began
    if code:
        raise SystemExit(f"{verb} failed")
    return seconds, read_manifest(out)


def builds(source: Path, folder: Path, rounds: int) -> dict[str, float]:
    """Builds with 0, 1 and 2 workers: wall seconds, and the share of splits and merge."""
    figures: dict[str, float] = {}
    some = folder / "some.jsonl"
    with open(source, encoding="utf-8") as lines:
        some.write_text("".join(itertools.islice(lines, 64)), encoding="utf-8")
    size = source.stat().st_size
    options = {"split_bytes": size // 24}
    run("index", folder / "index", corpus=some)  # compiles
    for workers in (0, 1, 2):
        runs = [
            run("index", folder / "index", corpus=source, workers=workers, **options)
            for _ in range(rounds)
        ]
        wall, about = min(runs, key=lambda pair: pair[0])
        name = f"index_{workers}_workers" if workers != 1 else "index_1_worker"
        figures |= {f"{name}_s": wall, f"{name}_splits_s": about["seconds"]["splits"]}
        figures |= {f"{name}_merge_s": about["seconds"]["merge"]}
        figures[f"{name}_merge_share"] = about["seconds"]["merge"] / wall
        if workers:
            start = [
                run("index", folder / "index", corpus=some, workers=workers, split_bytes=1000)[1]
                for _ in range(rounds)
            ]
            figures[f"{name}_start_s"] = min(each["seconds"]["splits"] for each in start)
    one, two = (
        figures[f"index_{name}_splits_s"] - figures[f"index_{name}_start_s"]
        for name in ("1_worker", "2_workers")
    )
    figures["index_splits_2_vs_1"] = two / one
    figures["index_bytes_per_s"] = size / one
    return figures


def merges(source: Path, folder: Path) -> dict[str, float]:
    """Merges the same postings from more and more runs, in this process."""
    seconds, postings = [], 1
    options = {"store": "false", "memory_per_worker": MEMORY}
    for splits in SPLITS:
        size = -(-source.stat().st_size // splits)
        _, about = run("index", folder / "index", corpus=source, split_bytes=size, **options)
        seconds.append(about["seconds"]["merge"])
        postings = about["postings"]
    few, many = seconds[0], seconds[-1]
    ranges = -(-postings // (MEMORY // 128))  # of 32 bytes a posting, in quarters
    pairs = ranges * (SPLITS[-1] - SPLITS[0])
    figures = {f"merge_{n}_splits_s": each for n, each in zip(SPLITS, seconds)}
    return figures | {
        "postings": postings,
        "documents": about["documents"],
        "merge_ns_per_posting": few / postings * 1e9,
        "look_ms_per_range_and_run": max(0.0, many - few) / pairs * 1e3,
        "ids_s_per_million": ids_seconds(about["documents"]) / about["documents"] * 1e6,
    }


def ids_seconds(documents: int) -> float:
    """Returns the seconds in which the driver finds duplicate ids."""
    import pyarrow as pa

    from raydist.data.store.idhash import find_duplicates

    ids = pa.array([f"D{i:08d}" for i in range(documents)], pa.large_string())
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        find_duplicates(ids)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def embeddings(source: Path, folder: Path, documents: int, rounds: int) -> dict[str, float]:
    """Embeds the first documents with one and two workers of one thread each."""
    model = minilm()
    some, few = folder / "embed.jsonl", folder / "few.jsonl"
    with open(source, encoding="utf-8") as lines:
        head = list(itertools.islice(lines, documents))
    some.write_text("".join(head), encoding="utf-8")
    few.write_text("".join(head[:4]), encoding="utf-8")
    figures: dict[str, float] = {}
    options = {"model": model, "split_bytes": max(1000, some.stat().st_size // 16)}
    for workers, name in ((1, "embed_1_worker"), (2, "embed_2_workers")):
        runs = [
            run("embed", folder / "vectors", corpus=some, workers=workers, **options)
            for _ in range(rounds)
        ]
        wall, about = min(runs, key=lambda pair: pair[0])
        start = min(
            run("embed", folder / "vectors", corpus=few, model=model, workers=workers)[0]
            for _ in range(rounds)
        )
        figures |= {f"{name}_s": wall, f"{name}_start_s": start}
        figures["embed_tokens"] = about["tokens"]
    one, two = (
        figures[f"embed_{name}_s"] - figures[f"embed_{name}_start_s"]
        for name in ("1_worker", "2_workers")
    )
    figures["embed_2_vs_1"] = two / one
    figures["embed_tokens_per_s"] = figures["embed_tokens"] / one
    return figures


def rates_of(figures: dict[str, float]) -> Rates:
    """Returns the model's rates from the figures."""
    documents = figures["documents"]
    return Rates(
        start_s=max(figures["index_2_workers_start_s"], figures["embed_2_workers_start_s"]),
        bytes_per_s=figures["index_bytes_per_s"],
        merge_s=figures["merge_ns_per_posting"] / 1e9,
        look_s=figures["look_ms_per_range_and_run"] / 1e3,
        ids_log_s=figures["ids_s_per_million"] / 1e6 / math.log2(documents),
        tokens_per_s=figures["embed_tokens_per_s"],
    )


def tables(figures: dict[str, float]) -> None:
    rows = [
        [
            name.replace("_", " "),
            *(figures.get(f"index_{name}_{what}") for what in ("s", "start_s", "splits_s")),
            *(figures[f"index_{name}_{what}"] for what in ("merge_s", "merge_share")),
        ]
        for name in ("0_workers", "1_worker", "2_workers")
    ]
    columns = ["index", "seconds", "start", "splits (start in)", "merge", "merge's share"]
    print_table("building an index", columns, rows)
    names = ("1_worker", "2_workers")
    embed = [
        [n.replace("_", " "), figures[f"embed_{n}_s"], figures[f"embed_{n}_start_s"]] for n in names
    ]
    print_table("embedding", ["embed", "seconds", "start"], embed)


def predictions(figures: dict[str, float]) -> dict[str, float]:
    """Prints and returns hours for the passages of MS MARCO v2 on nodes of 16 workers."""
    rates = rates_of(figures)
    rows, hours = [], {}
    for nodes in NODES:
        workers = nodes * WORKERS_PER_NODE
        build = index_seconds(rates, MS_MARCO_V2, workers)
        embed = embed_seconds(rates, MS_MARCO_V2, workers)
        total, encode = (sum(each.values()) / 3600 for each in (build, embed))
        rows.append([nodes, *(each / 60 for each in build.values()), total, encode])
        hours |= {f"msmarco_v2_index_h_{nodes}_nodes": total}
        hours |= {f"msmarco_v2_embed_h_{nodes}_nodes": encode}
    columns = ["nodes", "start min", "splits min", "merge min", "looking min", "ids min"]
    columns += ["index h", "embed h"]
    print_table(f"MS MARCO v2, {WORKERS_PER_NODE} workers a node, predicted", columns, rows)
    return hours


if __name__ == "__main__":
    main()
