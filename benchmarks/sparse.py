"""Indexes of learned sparse vectors beside BMP and Seismic: build, size, search.

    python -m benchmarks.sparse                      # 1 M generated documents, and trained vectors
    python -m benchmarks.sparse docs=50000 rounds=2
    python -m benchmarks.sparse vectors=trained
    python -m benchmarks.sparse parts=exact,approximate

Vectors are those of benchmarks/sparse_data.py (`generated`) and of a model that
`jobs/nfcorpus/sparse.yaml` trained, of the texts of all test collections (`trained`); the same for
each engine and in the same order. Figures of trained vectors end in `_trained`, those of another
number of generated documents than a million in that number (`_50k`). A part's measurements are kept
beside its vectors, so parts may be measured in several runs.

Every engine is called through its own Python package, one query at a time, in one thread; times are
CPU time, the best of the rounds. BMP ranks its own 8-bit weights at alpha = beta = 1, by its
fastest block size. Seismic lives in an environment of its own (benchmarks/peers), and counts at the
fastest of its settings with a recall@10 of .97, as we do.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import sparse_data, sparse_trained, training_memory
from benchmarks.peers.environment import CACHE, Unavailable, environment
from benchmarks.report import WORK, arguments, goal, print_table, recorded, write_results

GOALS = {
    "exact_k10_vs_bmp": goal("<=", 0.7),
    "approximate_vs_seismic_r97": goal("<=", 1.2),
    "bytes_vs_bmp": goal("<=", 1),
    "build_vs_parser": goal("<=", 1 / 3),
    "train_memory_vs_st": goal("<=", 1),
}
BLOCK_SIZES = (8, 16, 32)
"""BMP's; with 50,000 documents 64 takes nine times as long as 8."""
EFFORTS = (0.95, 0.9, 0.875, 0.85, 0.825, 0.8, 0.75, 0.7)
RECALL = 0.97
_PARSED = 100_000  # documents of the comparison with Python's parser
_HERE = Path(__file__).parent
DEFAULTS = {
    "docs": 1_000_000,
    "queries": 200,
    "rounds": 5,
    "vectors": "generated,trained",
    "parts": "build,exact,approximate,memory",
}
Queries = list[dict[str, float]]


def main() -> None:
    options = arguments(DEFAULTS)
    for vectors in options["vectors"].split(","):
        if vectors == "trained":
            folder, end = WORK / "sparse-trained", "_trained"
            source: Callable[[], Any] = partial(sparse_trained.vectors, options["queries"])
        else:
            docs = options["docs"]
            folder = WORK / f"sparse-{docs}"
            end = "" if docs == DEFAULTS["docs"] else f"_{docs // 1000}k"
            source = partial(_generated, docs, options["queries"])
        if not (folder / sparse_data.ARRAYS).exists():
            sparse_data.write(folder, *source())
        record_file = folder / "record.json"
        record: dict[str, Any] = {"missing": {}}
        if record_file.exists():
            record = json.loads(record_file.read_text())
        for part in options["parts"].split(","):
            if part not in PARTS:
                raise SystemExit(f"parts = {part!r}: expected some of {', '.join(PARTS)}")
            if part == "memory" and vectors == "trained":
                continue  # it needs no vectors
            record[part] = PARTS[part](folder, options["rounds"], record)
            record_file.write_text(json.dumps(record))
        report(record, folder, end)


def _generated(docs: int, count: int) -> Any:
    world = sparse_data.World.create()
    return sparse_data.documents(docs, world), sparse_data.queries(count, docs, world)


# --- Building


def build(folder: Path, rounds: int, record: dict[str, Any]) -> dict[str, Any]:
    """Builds our index and BMP's; returns CPU seconds and MB."""
    index = folder / "index"
    seconds = _convert(folder / "docs.jsonl", index)
    few = folder / "few.jsonl"
    with open(folder / "docs.jsonl") as lines, open(few, "w") as out:
        for _, line in zip(range(_PARSED), lines):
            out.write(line)
    ours = min(_convert(few, folder / "few") for _ in range(2))
    figures = {
        "raydist": {"cpu_s": seconds, "mb": _size(index / "segments")},
        "few_cpu_s": ours,
        "few_objects_cpu_s": min(_of_objects(few, folder / "objects") for _ in range(2)),
    }
    for size in BLOCK_SIZES:
        figures[f"bmp-{size}"] = _build_bmp(folder, size)
    return figures


def _convert(source: Path, target: Path) -> float:
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "raydist", "convert", f"in={source}", f"out={target}"]
    return _cpu_of(lambda: subprocess.run(command, check=True, cwd=_HERE.parent))


def _of_objects(source: Path, target: Path) -> float:
    """Returns the seconds that the same takes by a Python object for each weight."""
    shutil.rmtree(target, ignore_errors=True)
    code = (
        "import sys; from pathlib import Path; from raydist.bow.exchange.vectors import *; "
        "index_vectors(read_vectors(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(source), str(target)]
    return _cpu_of(lambda: subprocess.run(command, check=True, cwd=_HERE.parent))


def _cpu_of(work: Callable[[], Any]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _build_bmp(folder: Path, size: int) -> dict[str, float]:
    """Builds BMP's index by its own indexer, from weights in 255ths of the largest."""
    import bmp

    path = folder / f"bmp-{size}"
    scale = 255 / float(_largest(folder))
    start = time.process_time()
    indexer = bmp.Indexer(str(path), size, True)
    with open(folder / "docs.jsonl") as lines:
        for line in lines:
            record = json.loads(line)
            vector = {t: max(1, round(w * scale)) for t, w in record["vector"].items()}
            indexer.add_document(record["id"], vector)
    indexer.finish()
    return {"cpu_s": time.process_time() - start, "mb": path.stat().st_size / 1e6}


def _largest(folder: Path) -> float:
    return float(np.load(folder / sparse_data.ARRAYS)["weights"].max())


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


# --- Searching


def queries(folder: Path) -> Queries:
    with open(folder / "queries.jsonl") as lines:
        return [json.loads(line)["vector"] for line in lines]


def exact(folder: Path, rounds: int, record: dict[str, Any]) -> dict[str, Any]:
    """Searches exactly; returns ms by engine."""
    import bmp

    asked = queries(folder)
    whole = [{term: max(1, round(100 * w)) for term, w in query.items()} for query in asked]
    ours = _search(folder, 1.0)
    names = [_best(ours, query) for query in asked]
    (folder / "exact.json").write_text(json.dumps(names))
    searches: dict[str, tuple[Callable[[Any], Any], Any]] = {
        "raydist": (partial(ours.rank_terms, k=10), asked)
    }
    for size in BLOCK_SIZES:
        engine = bmp.Searcher(str(folder / f"bmp-{size}"))
        searches[f"bmp-{size}"] = (_bmp(engine), whole)
    times: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(rounds + 1):  # the first one warms up
        for name, (search, own) in searches.items():
            times[name].append(_ms(search, own))
    return {name: min(values[1:]) for name, values in times.items()}


def _bmp(engine: Any) -> Callable[[Any], Any]:
    return lambda query: engine.search(query, 10, 1.0, 1.0)


def _search(folder: Path, effort: float) -> Any:
    from raydist.bow.index import BowIndex
    from raydist.bow.search.retriever import BowRetriever
    from raydist.bow.spec import BowSearchSpec

    return BowRetriever(BowIndex.open(folder / "index"), BowSearchSpec(effort=effort))


def _best(search: Any, query: dict[str, float]) -> list[str]:
    names: list[str] = search.index.pick_ids(search.rank_terms(query, 10)[0]).to_pylist()
    return names


def _ms(search: Callable[[Any], Any], asked: Queries) -> float:
    start = time.process_time()
    for query in asked:
        search(query)
    return 1000 * (time.process_time() - start) / len(asked)


def approximate(folder: Path, rounds: int, record: dict[str, Any]) -> dict[str, Any]:
    """Searches with a recall of at least .97; returns all settings that were tried."""
    asked = queries(folder)
    best = [set(names) for names in json.loads((folder / "exact.json").read_text())]
    ours = []
    for effort in EFFORTS:
        search = _search(folder, effort)
        hits = [
            len(set(_best(search, query)) & want) / len(want) for query, want in zip(asked, best)
        ]
        rank = partial(search.rank_terms, k=10)
        ms = min(_ms(rank, asked) for _ in range(rounds))
        ours.append({"effort": effort, "recall": float(np.mean(hits)), "ms": ms})
    figures: dict[str, Any] = {"raydist": ours}
    try:
        figures["seismic"] = _seismic(folder, rounds)
        record["missing"].pop("seismic", None)
    except Unavailable as reason:
        record["missing"]["seismic"] = str(reason)
    return figures


def _seismic(folder: Path, rounds: int) -> list[dict[str, Any]]:
    python = environment("seismic", CACHE) / "python"
    vectors, index = folder / sparse_data.ARRAYS, folder / "seismic"
    program = str(_HERE / "sparse_peer.py")
    if not index.exists():
        subprocess.run([python, program, "build", vectors, index], check=True)
    command = [python, program, "search", vectors, index, folder / "exact.json", str(rounds)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    answers: list[dict[str, Any]] = json.loads(text.strip().splitlines()[-1])
    return answers


# --- Training


def memory(folder: Path, rounds: int, record: dict[str, Any]) -> dict[str, Any]:
    """Returns the memory of a training step beside that of CachedSpladeLoss."""
    ratio, figures = training_memory.sparse_peak_vs_st()
    return {"vs_st": ratio, **figures}


PARTS: dict[str, Callable[[Path, int, dict[str, Any]], dict[str, Any]]] = {
    "build": build,
    "exact": exact,
    "approximate": approximate,
    "memory": memory,
}


# --- Results


def report(record: dict[str, Any], folder: Path, end: str) -> None:
    """Prints the tables and records the figures, their names with an end."""
    figures: dict[str, float] = {}
    built, ranked, near = (record.get(part, {}) for part in ("build", "exact", "approximate"))
    arrays = np.load(folder / sparse_data.ARRAYS)
    documents = sparse_data.Vectors(arrays["indptr"], arrays["terms"], arrays["weights"])
    asked = sparse_data.Vectors(*(arrays[f"query_{each}"] for each in documents._fields))
    docs = len(documents.indptr) - 1
    first = sparse_data.first(documents, min(docs, 10_000))
    rows = []
    best = min(BLOCK_SIZES, key=lambda size: ranked.get(f"bmp-{size}", 0.0))
    if ranked:
        figures["exact_k10_ms"] = ranked["raydist"]
        figures["exact_k10_vs_bmp"] = ranked["raydist"] / ranked[f"bmp-{best}"]
    if built:
        figures["build_vs_parser"] = built["few_cpu_s"] / built["few_objects_cpu_s"]
        figures["build_cpu_s"] = built["raydist"]["cpu_s"]
        figures["bytes_vs_bmp"] = built["raydist"]["mb"] / built[f"bmp-{best}"]["mb"]
        for engine in ("raydist", *(f"bmp-{size}" for size in BLOCK_SIZES)):
            rows.append([engine, *built[engine].values(), ranked.get(engine)])
    print_table(
        f"{docs:,} documents, one thread", ["engine", "build CPU s", "MB", "exact k=10 ms"], rows
    )
    for engine, settings in near.items():
        names = [name for name in settings[0] if name not in ("recall", "ms")]
        table = [[*(each[n] for n in names), each["recall"], each["ms"]] for each in settings]
        print_table(engine, [*names, "recall@10", "ms"], table)
    fastest = {
        engine: min(each["ms"] for each in settings if each["recall"] >= RECALL)
        for engine, settings in near.items()
        if any(each["recall"] >= RECALL for each in settings)
    }
    if "raydist" in fastest:
        figures["approximate_r97_ms"] = fastest["raydist"]
    if len(fastest) == 2:
        figures["approximate_vs_seismic_r97"] = fastest["raydist"] / fastest["seismic"]
    figures = {f"{name}{end}": value for name, value in figures.items()}
    if trained := record.get("memory"):
        figures["train_memory_vs_st"] = trained["vs_st"]
    own = {"documents": docs, **record}
    own["statistics"] = sparse_data.statistics_of(iter([first]), asked)
    earlier, notes = recorded("sparse")
    notes |= {end.removeprefix("_") or "1m": own}
    write_results("sparse", earlier | figures, GOALS, notes=notes)


if __name__ == "__main__":
    main()
