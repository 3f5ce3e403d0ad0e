"""Embedding's throughput against sentence-transformers, in one process and in two.

Parts of `python -m benchmarks.embedding`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.models import bfloat16_is_fast, contents, minilm
from benchmarks.peers.comparison import BEFORE, Way, compare
from benchmarks.report import SHARED, WORK


def mixed_texts(count: int) -> list[str]:
    """Returns texts of mixed lengths: a third each of three collections, every n-th document."""
    per = -(-count // 3)
    texts = []
    for name, step in (("vaswani", 37), ("cacm", 11), ("nfcorpus", 13)):
        texts += [text for _, text in islice(contents(name), 0, per * step, step)][:per]
    return [texts[(i * 7919) % len(texts)] for i in range(len(texts))]  # in no order


def throughput(options: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Times sentence-transformers, ours and the bare forward pass in turns, on the same texts.

    `clock=cpu threads=1` compares processor time instead, for a machine that others use too; that
    ratio is recorded beside the other in any case.
    """
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    from raydist.models.encode import (
        EncodeStats,
        default_max_tokens,
        length_batches,
        packed_batches,
    )
    from raydist.models.packing import packed_rows

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    texts = mixed_texts(options["texts"])
    model = _encoder("float32")
    theirs = SentenceTransformer(str(minilm()), device="cpu")
    rows = model.tokenize(texts, "document")
    lengths = np.array([len(row) for row in rows])
    batches = []
    cut = packed_batches if model.packs else length_batches
    for batch in cut(lengths, default_max_tokens(model)):
        own = [rows[i] for i in batch]
        batches.append(packed_rows(own) if model.packs else model.pad(own))

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
    for _ in range(options["repeats"]):
        for name, work in runs.items():
            started, used = time.perf_counter(), time.process_time()
            vectors[name] = work()
            seconds[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - used)
            print(f"{name}: {seconds[name][-1]:.2f} s", flush=True)
    # The quickest of the rounds: what else the machine does only makes a round slower.
    quickest = {name: min(values) for name, values in seconds.items()}
    least = {name: min(values) for name, values in processor.items()}
    taken = quickest if options["clock"] == "wall" else least
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
            "clock": options["clock"],
            "texts_per_second": len(texts) / quickest["ours"],
            "tokens_per_second": float(lengths.sum()) / quickest["ours"],
            "padding_waste": stats.padding_waste,
            "largest_difference_of_a_vector": float(np.abs(vectors["ours"] - vectors["st"]).max()),
        }
    }
    return figures, notes


def low_precision(options: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Times bfloat16 against float32, ours and sentence-transformers', and measures its ranking.

    Processor time of one thread, in turns. None on a CPU without instructions for bfloat16.
    """
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    if not bfloat16_is_fast():
        return {"bf16_vs_f32": None, "bf16_vs_st_bf16": None, "ndcg10_nfcorpus_bf16": None}, {}
    torch.set_num_threads(1)
    texts = mixed_texts(options["texts"])
    models = {name: _encoder(name) for name in _TYPES}
    peer = SentenceTransformer(str(minilm()), device="cpu", model_kwargs={"dtype": torch.bfloat16})
    runs: dict[str, Callable[[], Any]] = {
        name: partial(model.encode_documents, texts) for name, model in models.items()
    }
    runs["st"] = lambda: peer.encode(texts, batch_size=32, convert_to_tensor=True)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    vectors: dict[str, Any] = {}
    for _ in range(options["repeats"] + 1):
        for name, work in runs.items():
            used = time.process_time()
            vectors[name] = work()
            seconds[name].append(time.process_time() - used)
    least = {name: min(values[1:]) for name, values in seconds.items()}
    one, two = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in map(vectors.get, _TYPES))
    return {
        "bf16_vs_f32": least["float32"] / least["bfloat16"],
        "bf16_vs_st_bf16": least["st"] / least["bfloat16"],
        "ndcg10_nfcorpus_bf16": _ranking(models["bfloat16"], "nfcorpus"),
    }, {
        "bf16": {
            "processor_seconds": {name: round(value, 2) for name, value in least.items()},
            "least_cosine": float((one * two).sum(1).min()),
        }
    }


_TYPES = ("float32", "bfloat16")


def peers(options: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Times raydist and its peers in their quickest forms: processor time of one thread, in turns.

    float32 against float32, and bfloat16 against the peers' bfloat16 and int8.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    texts = mixed_texts(options["texts"])
    own: dict[str, Way] = {}
    for name in _TYPES if bfloat16_is_fast() else _TYPES[:1]:
        model = _encoder(name)
        own["raydist" + _SUFFIX[name]] = name, partial(model.encode_documents, texts)
        length = model.contract.document_max_length
        kind = {"dtype": getattr(torch, name)}
        peer = SentenceTransformer(str(minilm()), device="cpu", model_kwargs=kind)
        work = partial(peer.encode, texts, batch_size=32, convert_to_tensor=True)
        own["sentence-transformers" + _SUFFIX[name]] = name, lambda work=work: work().float()
    result = compare(
        "embed",
        own,
        texts,
        minilm(),
        max_length=length,
        rounds=options["repeats"],
        cache=Path(options["peers"]),
        before=options["before"],
    )
    return {
        "throughput_vs_before": result.versus("raydist", BEFORE),
        "throughput_vs_best_peer_f32": result.ratio("raydist", "float32"),
        "throughput_bf16_vs_best_peer_bf16": result.ratio("raydist bf16", "bfloat16"),
        "throughput_bf16_vs_best_peer_int8": result.ratio("raydist bf16", "int8"),
    }, {"peers": {"texts": len(texts), **result.notes()}}


def _encoder(dtype: Any) -> Any:
    """Returns MiniLM as `embed` loads it."""
    from raydist.models.inference import load_encoder
    from raydist.models.spec import EncoderSource

    return load_encoder(EncoderSource(path=str(minilm()), dtype=dtype), device="cpu")


_SUFFIX = {"float32": "", "bfloat16": " bf16"}


def _ranking(model: Any, name: str) -> float:
    """Returns nDCG@10 of a collection whose documents and queries a model encodes."""
    import numpy as np

    from raydist.data.readers import read_qrels, read_queries
    from raydist.evaluation.measures import evaluate
    from raydist.records import Run

    ids, texts = zip(*contents(name))
    queries = read_queries(SHARED / name / "queries.jsonl")
    documents_ND = model.encode_documents(list(texts))
    scores_QN = model.encode_queries([query.text for query in queries]) @ documents_ND.T
    best_QK = np.argsort(-scores_QN, axis=1, kind="stable")[:, :10]
    run = Run.from_lists(
        (query.query_id, [ids[i] for i in best], scores[best].tolist())
        for query, best, scores in zip(queries, best_QK, scores_QN)
    )
    return evaluate(run, read_qrels(SHARED / name / "qrels.txt"), ["nDCG@10"]).means["nDCG@10"]


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


def workers(options: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Times `raydist embed workers=2` and sentence-transformers' pool of two, in turns.

    Each is a program of its own, one thread per process; wall time from its start to its end, with
    imports, the start of the processes and writing. What encoding alone takes is in the notes.
    """
    WORK.mkdir(exist_ok=True)
    corpus = WORK / "workers.jsonl"
    texts = mixed_texts(4 * options["texts"])
    corpus.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)))
    program = WORK / "pool.py"
    program.write_text(_POOL)
    seconds: dict[str, list[float]] = {"ours": [], "st": []}
    encoding: dict[str, list[float]] = {"ours": [], "st": []}
    for turn in range(options["repeats"]):
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
        what: {name: [round(value, 1) for value in values] for name, values in taken.items()}
        for what, taken in (("seconds", seconds), ("encoding_seconds", encoding))
    }
    return figures, {"workers": {"texts": len(texts), "processes": 2, **rounded}}
