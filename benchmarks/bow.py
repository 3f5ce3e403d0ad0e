"""The bag-of-words index beside its peers: build, size, search.

    python -m benchmarks.bow                     # 1 M documents, everything
    python -m benchmarks.bow parts=search rounds=8
    python -m benchmarks.bow docs=100000 engines=raydist,lucene

    python -m benchmarks.bow parts=cold,verb,small,models

The parts are build, search, ray, cold, verb, small, models, feedback and reorder; each replaces
its earlier figures, so they can be run one by one. verb, models and reorder need the index of
build, models Lucene's search, too.
Peers are fetched by pip into benchmarks/.work (bow_fetch.py). Times are CPU seconds of one thread
unless the name says wall. Engines take turns in every round; a figure is the best of its rounds.
"""

from __future__ import annotations

import datetime
import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.bow_fetch import (
    ONE_THREAD,
    PACKAGES,
    ROOT,
    Missing,
    corpus,
    lucene_command,
    peer_python,
    run,
)
from benchmarks.bow_parts import (
    KS,
    PEERS,
    cold,
    feedback,
    models,
    reorder,
    retriever,
    small,
    verb,
)
from benchmarks.bow_ray import ray_figures
from benchmarks.report import WORK, arguments, goal, print_table, write_results

PASSES = 8  # over the queries in a round; the first ones warm caches and compile
GOALS = {
    "build_cpu_vs_lucene": goal("<=", 0.25),
    "ray_cpu_vs_local": goal("<=", 1.25),
    "ray_wall_2_vs_1": goal("<=", 0.65),
    "search_k10_vs_lucene": goal("<=", 0.35),
    "search_k100_vs_lucene": goal("<=", 0.28),
    "search_k1000_vs_lucene": goal("<=", 0.22),
    "search_k10_vs_pisa": goal("<=", 0.8),
    "search_k100_vs_pisa": goal("<=", 0.5),
    "search_k1000_vs_pisa": goal("<=", 0.3),
    "slowest_model_vs_lucene_bm25": goal("<=", 2),
    "nfcorpus_qps_vs_bm25s": goal(">=", 1),
    "rm3_vs_anserini": goal(">=", 8),
    "cold_index_s": goal("<=", 8),
    "cold_search_s": goal("<=", 8),
    "size_vs_lucene": goal("<=", 0.85),
    "open_ms": goal("<=", 30),
    "peak_rss_mb": goal("<=", 1024 + 300),  # memory_per_worker and the programs
}
PARTS = {"cold": cold, "verb": verb, "small": small, "reorder": reorder, "feedback": feedback}
DEFAULTS = {
    "docs": 1_000_000,
    "parts": "build,search,ray,cold,verb,small,models,feedback,reorder",
    "engines": ",".join(["raydist", "lucene", *PACKAGES]),
    "rounds": 3,
}
NOTES = {
    "build": "CPU seconds of a new process that reads jsonl and writes an index without texts",
    "search": "mean CPU ms of a query, its analysis included, over all queries of the corpus",
    "pisa": "one call for all queries, tokenized before; the best of its algorithms, plain or "
    "quantised",
    "cold": "wall seconds on 1,000 documents without machine code, and with",
    "verb": "CPU of raydist search per query, the start of the process aside",
    "small": "NFCorpus in batches of all queries at k = 10; ours are tokenized in the call and "
    "give ids, bm25s gets them tokenized; call: one query",
    "models": "the slowest model and k beside Lucene's BM25 at that k",
    "feedback": "mean CPU ms of a query at k = 1000, RM3's defaults, both searches; "
    "Anserini fetches its documents' ids",
    "reorder": "CPU seconds of a build with reorder=true; mean CPU us of a query, and beside the "
    "index in the documents' own order, in turn",
    "ray": "one cluster that runs already; of two builds the second. Actors are new processes in "
    "each build: their start and the loading of machine code are not in cpu and wall, but in "
    "ray_start_s. cpu is the driver's and the workers', Ray's daemons are counted apart.",
}


def size_of(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def place(engine: str, docs: int) -> Path:
    return WORK / f"{engine}-{docs}"


# --- Building


def build(engine: str, docs: int) -> dict[str, Any]:
    """Builds one engine's index; returns CPU seconds, peak MB and MB on disk."""
    source, target = corpus(docs) / "corpus.jsonl", place(engine, docs)
    shutil.rmtree(target, ignore_errors=True)
    options: dict[str, Any] = {"env": ONE_THREAD}
    if engine == "raydist":
        fields = "corpus.fields={text: contents}"
        command = [sys.executable, "-m", "raydist", "index", fields, "store=false"]
        warm = corpus(1000) / "corpus.jsonl"
        shutil.rmtree(place(engine, 1000), ignore_errors=True)
        run(*command, f"corpus={warm}", f"out={place(engine, 1000)}", cwd=ROOT, **options)
        command += [f"corpus={source}", f"out={target}"]
        options["cwd"] = ROOT
    elif engine == "lucene":
        command = [*lucene_command(), "index", str(source), str(target)]
    else:
        python = peer_python(engine)
        command = [str(python), str(PEERS), engine, "build", str(source), str(target)]
    _, cpu, peak = run(*command, **options)
    size = size_of(target / "segments" if engine == "raydist" else target)
    return {"cpu_s": cpu, "peak_mb": peak, "mb": size}


def open_ms(index: Path) -> float:
    """Returns the median of opening the index and preparing a search, in ms."""
    from raydist.bow.index import BowIndex
    from raydist.bow.search.retriever import BowRetriever

    times = []
    for _ in range(9):
        start = time.perf_counter()
        BowRetriever(BowIndex.open(index))
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)[4]


# --- Searching


def search(engine: str, docs: int) -> dict[str, float]:
    """Returns mean CPU ms per query by k, the best of the passes of one round."""
    index, queries = place(engine, docs), corpus(docs) / "queries.tsv"
    if engine == "raydist":
        lines = queries.read_text(encoding="utf-8").splitlines()
        return {str(k): our_search(index, [x.split("\t", 1)[1] for x in lines], k) for k in KS}
    if engine == "lucene":
        means = {}
        for k in KS:
            text, _, _ = run(*lucene_command(), "bench", index, queries, k, PASSES, "-")
            means[str(k)] = min(map(float, re.findall(r"rep \d+ k=\d+ mean ([\d.]+)", text)))
        return means
    what = "batch" if engine == "pisa" else "search"
    words = [engine, what, index, queries, ",".join(map(str, KS)), 2]
    text, _, _ = run(peer_python(engine), PEERS, *words, env=ONE_THREAD)
    by_k: dict[str, float] = json.loads(text.strip().splitlines()[-1])
    return by_k


def our_search(index: Path, texts: list[str], k: int) -> float:
    rank = retriever(index).rank
    passes = []
    for _ in range(PASSES):
        start = time.thread_time()
        for text in texts:
            rank(text, k)
        passes.append(time.thread_time() - start)
    return 1000 * min(passes) / len(texts)


# --- Results


def main() -> None:
    options = arguments(DEFAULTS)
    docs, engines, parts = (
        options["docs"],
        options["engines"].split(","),
        options["parts"].split(","),
    )
    file = WORK / f"bow-{docs}.json"
    empty: dict[str, Any] = {"build": {}, "search": {}, "ray": {}, "missing": {}, "dates": {}}
    empty |= {"parts": {}, "models": {}}
    record = empty | (json.loads(file.read_text()) if file.exists() else {})
    for name in (*engines, *parts):
        record["missing"].pop(name, None)
    for part in parts:
        if part == "build":
            for engine in engines:
                try:
                    record["build"][engine] = build(engine, docs)
                except Missing as reason:
                    record["missing"][engine] = str(reason)
            if "raydist" in engines:
                record["open_ms"] = open_ms(place("raydist", docs))
        elif part == "search":
            ready = [e for e in engines if e in record["build"] and place(e, docs).exists()]
            rounds = [{e: search(e, docs) for e in ready} for _ in range(options["rounds"])]
            for engine in ready:
                best = {str(k): min(r[engine][str(k)] for r in rounds) for k in KS}
                record["search"][engine] = best
        elif part == "ray":
            record["ray"] = ray_figures(corpus(docs) / "corpus.jsonl")
        elif part == "models":
            record["models"] = models(place("raydist", docs), options["rounds"])
        elif part in PARTS:
            try:
                record["parts"] |= PARTS[part](place("raydist", docs), options["rounds"])
            except Missing as reason:
                record["missing"][part] = str(reason)
        else:
            names = ", ".join(["build", "search", "ray", "models", *PARTS])
            raise SystemExit(f"parts = {part!r}: expected some of {names}")
        record["dates"][part] = datetime.date.today().isoformat()
        file.write_text(json.dumps(record))
    report(record, docs)


def report(record: dict[str, Any], docs: int) -> None:
    """Prints the table and records the figures."""
    built, searched = record["build"], record["search"]
    figures: dict[str, float] = {**record["ray"], **record["parts"]}
    if "raydist" in built:
        ours = built["raydist"]
        figures |= {"build_cpu_s": ours["cpu_s"], "size_mb": ours["mb"]}
        figures |= {"peak_rss_mb": ours["peak_mb"], "open_ms": record["open_ms"]}
        if "lucene" in built:
            figures["build_cpu_vs_lucene"] = ours["cpu_s"] / built["lucene"]["cpu_s"]
            figures["size_vs_lucene"] = ours["mb"] / built["lucene"]["mb"]
    for peer in {"lucene", "pisa"} & searched.keys() if "raydist" in searched else ():
        for k in map(str, KS):
            figures[f"search_k{k}_vs_{peer}"] = searched["raydist"][k] / searched[peer][k]
    if record["models"] and "lucene" in searched:
        figures["slowest_model_vs_lucene_bm25"] = max(
            means[k] / searched["lucene"][k] for means in record["models"].values() for k in means
        )
    columns = ["engine", "build CPU s", "peak MB", "disk MB", *(f"ms k={k}" for k in KS)]
    columns += ["build / Lucene's", *(f"k={k} / Lucene's" for k in KS)]
    rows = []
    for engine in [*built, *(e for e in record["missing"] if e not in built)]:
        name = f"{engine}: {record['missing'][engine]}" if engine in record["missing"] else engine
        mine, means = built.get(engine, {}), searched.get(engine, {})
        row = [name, *(mine.get(key) for key in ("cpu_s", "peak_mb", "mb"))]
        row += [means.get(str(k)) for k in KS]
        row.append(ratio_of(mine, built.get("lucene", {}), "cpu_s"))
        row += [ratio_of(means, searched.get("lucene", {}), str(k)) for k in KS]
        rows.append(row)
    print_table(f"{docs:,} documents, one thread, CPU time", columns, rows)
    table = [dict(zip(columns, row)) for row in rows]
    notes = {"documents": docs, "table": table, "ms by model": record["models"]}
    notes |= {"measured": record["dates"], **NOTES}
    folder = None if docs == DEFAULTS["docs"] else WORK  # a trial is no record
    write_results("bow", figures, GOALS, notes=notes, folder=folder)


def ratio_of(a: dict[str, float], b: dict[str, float], key: str) -> float | None:
    return a[key] / b[key] if key in a and key in b else None


if __name__ == "__main__":
    main()
