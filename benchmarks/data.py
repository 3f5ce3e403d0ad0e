"""Readers and the document store: `python -m benchmarks.data [documents=200000 rounds=3]`.

Made-up passages of about 400 bytes in every format, read by the readers and, for jsonl, by
pyarrow's bare parser (which names no bad line) and by `json.loads`; then written to a store, opened
and looked up. CPU seconds of one process, the best of some rounds; warm page cache.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from benchmarks.report import arguments, goal, write_results
from raydist.data.readers import read_documents
from raydist.data.store.build import concatenate
from raydist.data.store.reader import DocumentStore
from raydist.data.store.writer import StoreWriter

GOALS = {
    "jsonl_cpu_s_per_408_mb": goal("<=", 1.5),
    "jsonl_vs_bare_pyarrow": goal("<=", 1.6),
    "store_open_ms": goal("<=", 30),
}
DEFAULTS = {"documents": 200_000, "rounds": 3, "seed": 1}


def main() -> None:
    settings = arguments(DEFAULTS)
    folder = Path(tempfile.mkdtemp(prefix="raydist-benchmark-"))
    try:
        write_results("data", measure(folder, **settings), GOALS, notes=settings)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, *, documents: int, rounds: int, seed: int) -> dict[str, float]:
    files = write_corpora(folder, documents, seed)
    figures: dict[str, float] = {}
    sizes = {name: file.stat().st_size / 1e6 for name, file in files.items()}
    seconds = {
        name: best(lambda file=file: read_all(file), rounds)  # type: ignore[misc]
        for name, file in files.items()
    }
    for name in files:
        figures[f"{name.replace('.', '_')}_mb_per_cpu_s"] = sizes[name] / seconds[name]
    plain = files["jsonl"]
    figures["jsonl_cpu_s_per_408_mb"] = seconds["jsonl"] * 408 / sizes["jsonl"]
    figures["jsonl_vs_bare_pyarrow"] = seconds["jsonl"] / best(lambda: bare(plain), rounds)
    figures["jsonl_vs_json_loads"] = seconds["jsonl"] / best(lambda: by_lines(plain), 1)

    tables = list(read_documents(plain))
    for codec in ("lz4", "zstd", "none"):
        target = folder / codec

        def build(target: Path = target, codec: str = codec) -> None:
            shutil.rmtree(target, ignore_errors=True)
            writer = StoreWriter(target, codec=codec)  # type: ignore[arg-type]
            for table in tables:
                writer.append(table)
            writer.close(index=False)

        figures[f"store_{codec}_cpu_s_per_million"] = best(build, rounds) * 1e6 / documents
        size = sum(part.stat().st_size for part in (target / "parts").iterdir())
        figures[f"store_{codec}_mb_per_million"] = size / documents
    start = time.process_time()
    concatenate([folder / "lz4"], folder / "joined")
    figures["store_join_cpu_s_per_million"] = (time.process_time() - start) * 1e6 / documents
    figures["store_open_ms"] = 1e3 * min(
        clock(lambda: DocumentStore.open(folder / "joined")) for _ in range(9)
    )
    store = DocumentStore.open(folder / "joined")
    draw = random.Random(seed)
    wanted = [f"D{draw.randrange(documents):08d}" for _ in range(1000)]
    store.get(wanted)
    figures["store_get_1_ms"] = clock(lambda: [store.get([each]) for each in wanted]) * 1e3 / 1000
    figures["store_get_1000_ms"] = 1e3 * min(clock(lambda: store.get(wanted)) for _ in range(3))
    return figures


def write_corpora(folder: Path, documents: int, seed: int) -> dict[str, Path]:
    """Writes the same passages in every format."""
    draw = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 10))) for _ in range(50_000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    stream = draw.choices(words, weights, k=1 << 18)
    rows = []
    for number in range(documents):
        at, size = draw.randrange(len(stream) - 200), draw.randint(30, 110)
        rows.append((f"D{number:08d}", " ".join(stream[at : at + size])))
    names = ("jsonl", "jsonl.gz", "tsv", "trec", "parquet")
    files = {name: folder / f"corpus.{name}" for name in names}
    lines = "".join(json.dumps({"_id": i, "title": "", "text": t}) + "\n" for i, t in rows)
    files["jsonl"].write_text(lines)
    files["jsonl.gz"].write_bytes(gzip.compress(lines.encode(), 3))
    files["tsv"].write_text("".join(f"{i}\t{t}\n" for i, t in rows))
    trec = "<DOC>\n<DOCNO>{}</DOCNO>\n<TEXT>\n{}\n</TEXT>\n</DOC>\n"
    files["trec"].write_text("".join(trec.format(i, t) for i, t in rows))
    columns = {"_id": [i for i, _ in rows], "text": [t for _, t in rows]}
    pq.write_table(pa.table(columns), files["parquet"], row_group_size=50_000)
    return files


def read_all(file: Path) -> None:
    for _ in read_documents(file):
        pass


def bare(file: Path) -> None:
    schema = pa.schema([("_id", pa.string()), ("title", pa.string()), ("text", pa.string())])
    pyarrow.json.read_json(
        file,
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=4 << 20),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema),
    )


def by_lines(file: Path) -> None:
    with open(file, "rb") as lines:
        rows = [json.loads(line) for line in lines]
    pa.table({name: [row[name] for row in rows] for name in ("_id", "title", "text")})


def best(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def clock(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
