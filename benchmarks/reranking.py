"""Rerankers beside their peers: `python -m benchmarks.reranking [parts=qwen3,cross_encoder,dl19]`.

qwen3          a random 43 M-parameter Qwen3 with the released vocabulary's size, 24 pairs, one
               thread: one left-padded batch with full logits (the model card's way) against the
               engine with and without shared prefixes; CPU seconds and peak memory, each in a
               process of its own.
cross_encoder  MiniLM with a head, mixed lengths: sentence-transformers' predict and the peers of
               `benchmarks/peers` against the engine, CPU seconds of one thread in alternating
               rounds, float32 and low precision, scores compared.
dl19           5-fold distillation on TREC DL 2019's judged pool (slow: one to two hours); see
               `benchmarks/distillation.py`.
terminology    terms of other vocabularies to MeSH: BM25, reranked and dense, with MiniLM before and
               after training; see `benchmarks/terminology.py`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.distillation import dl19
from benchmarks.models import bfloat16_is_fast, minilm_with_head, mixed_documents
from benchmarks.peers.comparison import BEFORE, Way, compare
from benchmarks.peers.environment import CACHE
from benchmarks.report import arguments, goal, memory_bytes, recorded, write_results
from benchmarks.terminology import terminology

GOALS = {
    "qwen3_time_naive_vs_fast": goal(">=", 20),
    "qwen3_memory_naive_vs_fast": goal(">=", 5),
    "qwen3_max_difference": goal("<=", 1e-5),
    "cross_encoder_vs_st": goal(">=", 1.3),
    "cross_encoder_vs_best_peer_f32": goal(">=", 1.0),
    "cross_encoder_max_difference": goal("<=", 1e-5),
}
DEFAULTS = {
    "parts": "qwen3,cross_encoder",
    "rounds": 3,
    "peers": str(CACHE),
    "before": "",
    "worker": "",
    "folder": "",
    "batch": 0,
}
ROWS = 151_669  # of the released models' embedding


def main() -> None:
    options = arguments(DEFAULTS)
    if options["worker"]:
        print(json.dumps(_measure(options["worker"], Path(options["folder"]), options["batch"])))
        return
    for part in options["parts"].split(","):
        _record(*_PARTS[part](options))


def _record(measured: dict[str, float], remarks: dict[str, Any]) -> None:
    """Writes a part's figures as soon as it ends; those of other parts are kept."""
    figures, notes = recorded("reranking")
    figures |= measured
    write_results("reranking", figures, GOALS | _to_beat(figures), notes=notes | remarks)


def _to_beat(figures: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Returns the goals that other figures set: a trained model beats what it started from."""
    goals = {}
    for key in figures:
        part, _, system = key.partition("_ndcg10_")
        if part == "dl19" and system not in ("bm25", "start", "stage1"):
            bars = ["dl19_ndcg10_bm25", "dl19_ndcg10_start"]
        elif part == "terminology" and system.startswith("trained"):
            bars = [key.replace("trained", "minilm"), "terminology_ndcg10_bm25"]
        else:
            continue
        goals[key] = goal(">", round(max(figures[bar] for bar in bars), 4))
    return goals


def _qwen3(options: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    from tests.reranking import small_qwen3

    with tempfile.TemporaryDirectory() as name:
        folder = small_qwen3.write(Path(name), layers=6, hidden=256, rows=ROWS)
        best: dict[str, dict[str, Any]] = {}
        for _ in range(options["rounds"]):
            for way in ("naive", "fast", "unshared", *(["before"] if options["before"] else [])):
                checkout, own = (options["before"], "fast") if way == "before" else ("", way)
                run = _in_process(own, folder, checkout)
                best[way] = min(best.get(way, run), run, key=lambda run: run["seconds"])
    naive, fast, unshared = (best[way] for way in ("naive", "fast", "unshared"))
    difference = max(
        float(np.abs(np.subtract(naive["scores"], other["scores"])).max())
        for other in (fast, unshared)
    )
    seconds = {way: round(run["seconds"], 3) for way, run in best.items()}
    memory = {way: round(run["memory_gb"], 3) for way, run in best.items()}
    return {
        "qwen3_time_naive_vs_fast": naive["seconds"] / fast["seconds"],
        "qwen3_memory_naive_vs_fast": naive["memory_gb"] / fast["memory_gb"],
        "qwen3_prefix_off_vs_on": unshared["seconds"] / fast["seconds"],
        "qwen3_vs_before": best["before"]["seconds"] / fast["seconds"]
        if "before" in best
        else None,
        "qwen3_max_difference": difference,
    }, {"qwen3_cpu_seconds": seconds, "qwen3_added_memory_gb": memory}


def _in_process(way: str, folder: Path, checkout: str = "") -> dict[str, Any]:
    """Returns the measurement of one way; of another version of raydist, with its checkout."""
    words = [f"worker={way}", f"folder={folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reranking", *words],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        | ({"PYTHONPATH": checkout} if checkout else {}),
        cwd=checkout or None,
        stdout=subprocess.PIPE,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def qwen3_pairs() -> list[tuple[str, list[str]]]:
    """Returns one query and 24 documents of 20 to 300 tokens."""
    from tests.reranking.small_qwen3 import WORDS

    draw = random.Random(0)
    lengths = np.linspace(20, 300, 24).astype(int).tolist()
    documents = [" ".join(draw.choices(WORDS, k=length)) for length in lengths]
    draw.shuffle(documents)
    return [("heart disease risk in adult", documents)]


def _measure(way: str, folder: Path, batch: int) -> dict[str, Any]:
    """Returns seconds, scores and peak memory above that of the loaded model, for one way."""
    import torch

    torch.set_num_threads(1)
    pairs = qwen3_pairs()
    if way == "naive":
        from tests.reranking.naive_qwen3 import load, score

        model = load(folder)

        def work(pairs: list[tuple[str, list[str]]]) -> list[list[float]]:
            return score(model, pairs)
    else:
        from raydist.reranking.qwen3 import Qwen3Reranker
        from raydist.reranking.spec import Qwen3Spec

        reranker = Qwen3Reranker(
            Qwen3Spec(
                model=str(folder), device="cpu", share_prefix=way == "fast", batch_tokens=batch
            )
        )

        def work(pairs: list[tuple[str, list[str]]]) -> list[list[float]]:
            return reranker.score(pairs)

    before = memory_bytes("VmRSS")
    query, documents = pairs[0]
    # Neither way pays for loading machine code; another query, so that no prefix is cached.
    work([(f"{query} risk", documents[:4])])
    started, cpu = time.perf_counter(), time.process_time()
    scores = work(pairs)
    cpu = time.process_time() - cpu
    wall = time.perf_counter() - started
    return {
        "seconds": cpu,
        "wall": wall,
        "memory_gb": (memory_bytes("VmHWM") - before) / 1e9,
        "scores": scores[0],
    }


def _cross_encoder(options: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, Any]]:
    import sentence_transformers
    import torch

    from raydist.reranking.cross_encoder import CrossEncoder
    from raydist.reranking.spec import CrossEncoderSpec

    torch.set_num_threads(1)
    query, documents = mixed_documents(256)
    pairs = [(query, text) for text in documents]
    own: dict[str, Way] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = minilm_with_head(Path(name))
        for dtype, suffix in (("float32", ""), ("bfloat16", " bf16")):
            if suffix and not bfloat16_is_fast():
                continue
            mine = CrossEncoder(CrossEncoderSpec(model=str(folder), device="cpu", dtype=dtype))
            length = mine.scorer.max_length
            kind = {"dtype": getattr(torch, dtype)}
            theirs = sentence_transformers.CrossEncoder(
                str(folder), device="cpu", model_kwargs=kind
            )
            ask = partial(theirs.predict, pairs, batch_size=32, convert_to_tensor=True)
            own[f"raydist{suffix}"] = dtype, partial(_first, mine.score, [(query, documents)])
            own[f"sentence-transformers{suffix}"] = dtype, lambda ask=ask: ask().float()
        result = compare(
            "rerank",
            own,
            documents,
            folder,
            query=query,
            max_length=length,
            rounds=options["rounds"],
            cache=Path(options["peers"]),
            before=options["before"],
        )
    return {
        "cross_encoder_vs_st": result.versus("raydist", "sentence-transformers"),
        "cross_encoder_vs_before": result.versus("raydist", BEFORE),
        "cross_encoder_vs_best_peer_f32": result.ratio("raydist", "float32"),
        "cross_encoder_bf16_vs_f32": result.versus("raydist bf16", "raydist"),
        "cross_encoder_bf16_vs_best_peer_bf16": result.ratio("raydist bf16", "bfloat16"),
        "cross_encoder_bf16_vs_best_peer_int8": result.ratio("raydist bf16", "int8"),
        "cross_encoder_max_difference": result.agreement["sentence-transformers"],
    }, {"cross_encoder": {"pairs": len(documents), **result.notes()}}


def _first(work: Callable[[Any], list[Any]], batch: Any) -> Any:
    return work(batch)[0]


_PARTS = {
    "qwen3": _qwen3,
    "cross_encoder": _cross_encoder,
    "dl19": lambda options: dl19(),
    "terminology": lambda options: terminology(),
}

if __name__ == "__main__":
    main()
