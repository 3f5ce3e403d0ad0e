"""Training: what the loop costs beside a plain one, memory of cached steps, and what is learned.

    python -m benchmarks.training                 # all of it, about half an hour on two cores
    python -m benchmarks.training parts=overhead,memory

`collections=` is the folder that holds `nfcorpus/`; without it its figures are left out. Parts that
are not run keep their figures from the last record.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.models import minilm
from benchmarks.report import arguments, goal, recorded, write_results
from benchmarks.training_memory import cached_extra_memory_vs_uncached, cached_peak_vs_st

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, STEPS, BATCH, GROUP, TEMPERATURE = 5, 10, 16, 2, 0.05
QUERY_TOKENS, DOCUMENT_TOKENS = 32, 96
PACKAGES = ("numpy", "scipy", "torch", "matplotlib")
"""Whose documentation `jobs/quickstart/train.yaml` takes beside the standard library's."""
GOALS = {
    "overhead_vs_plain_loop": goal("<=", 0.05),
    "cached_extra_memory_vs_uncached": goal("<=", 0.25),
    "cached_peak_vs_st": goal("<=", 1.0),
    "embed_texts_per_core_feed": goal(">=", 3600),
}


def main() -> None:
    """Measures, prints the table and writes the record."""
    options = arguments(
        {
            "parts": "overhead,feed,autocast,memory,quickstart,nfcorpus",
            "collections": str(ROOT.parent / "shared" / "data"),
            "work": "",
        }
    )
    figures, _ = recorded("training")
    collection = Path(options["collections"]) / "nfcorpus"
    with tempfile.TemporaryDirectory() as scrap:
        folder = Path(options["work"] or scrap)
        for part in options["parts"].split(","):
            if part == "overhead":
                figures |= overhead()
            elif part == "autocast":
                figures |= autocast()
            elif part == "feed":
                figures |= feed(collection / "corpus.jsonl") if collection.is_dir() else {}
            elif part == "memory":
                for measure in (cached_extra_memory_vs_uncached, cached_peak_vs_st):
                    figures[measure.__name__], details = measure()
                    figures |= details
            elif part == "quickstart":
                figures |= quickstart(folder / "quickstart")
            elif collection.is_dir():
                assert part == "nfcorpus", part
                figures |= nfcorpus(collection, folder / "nfcorpus")
    goals = dict(GOALS)
    for name, more in (("quickstart", 0.2), ("nfcorpus", 0.0)):
        start = figures.get(f"{name}_ndcg10_start", 0.0)
        goals[f"{name}_ndcg10_trained"] = goal(">", round(start + more, 4))
    write_results("training", figures, {k: g for k, g in goals.items() if k in figures})


def overhead(threads: int = 1) -> dict[str, float]:
    """Returns what share of time our loop takes beyond a plain torch loop, and samples/s of both.

    Both train MiniLM on the same samples in turns, tokenising included; the median of the rounds'
    ratios is taken, so that a busy machine slows both. Ours also shows progress, writes the record
    and keeps checkpoints, at the cadence that a run of 100 steps has by default: a line and a
    checkpoint every 10 steps. The goal is for texts that all fill their tokens; with texts as they
    are (`mixed_lengths`) ours saves padding, as a CPU's batches are computed in parts by length.
    """
    import torch

    torch.set_num_threads(threads)
    figures: dict[str, float] = {}
    for name, full in (("", True), ("mixed_lengths_", False)):
        texts = _texts(full)
        ours, plain = _our_loop(texts), _plain_loop(texts)
        ours(2)
        plain(2)
        ratios, rates = [], []
        for _ in range(ROUNDS):
            seconds = ours(STEPS), plain(STEPS)
            ratios.append(seconds[0] / seconds[1])
            rates.append([STEPS * BATCH / s for s in seconds])
        figures[f"{name}overhead_vs_plain_loop"] = statistics.median(ratios) - 1.0
        figures[f"{name}samples_per_s"] = statistics.median(r[0] for r in rates)
        figures[f"{name}plain_samples_per_s"] = statistics.median(r[1] for r in rates)
    return figures


def _texts(full: bool) -> list[tuple[str, str, str]]:
    """Query, positive and negative of the documentation of Python's standard library.

    `full` repeats their words, so that each text fills its tokens and no batch has padding.
    """
    from raydist.data.docstrings import cached

    rows = []
    with open(cached() / "train.jsonl", encoding="utf-8") as lines:
        for line, _ in zip(lines, range(STEPS * BATCH), strict=False):
            record = json.loads(line)
            texts = (record["query"], record["pos"][0], record["neg"][0])
            rows.append(tuple(_filled(text) for text in texts) if full else texts)
    return rows


def _filled(text: str) -> str:
    return " ".join((text.split() * DOCUMENT_TOKENS)[:DOCUMENT_TOKENS])


def _our_loop(texts: Sequence[tuple[str, str, str]], **options: Any) -> Any:
    """Returns a function that trains for some steps and returns the seconds."""
    from raydist.evaluation.mirror import Mirror
    from raydist.losses.objective import make_objective
    from raydist.losses.spec import InfoNCE
    from raydist.models.biencoder import BiEncoder
    from raydist.records import Sample
    from raydist.training.checkpoint import Checkpoints
    from raydist.training.collate import collate_texts
    from raydist.training.engine import TorchEngine
    from raydist.training.plan import Plan, Schedule
    from raydist.training.run import train
    from raydist.training.samplers import GroupSampler, Order, Stream
    from raydist.training.source import BatchSource, TrainingSet
    from raydist.training.spec import Optim
    from raydist.training.trainer import Trainer

    model = BiEncoder.load(
        minilm(),
        document_max_length=DOCUMENT_TOKENS,
        query_max_length=QUERY_TOKENS,
        dropout=0.0,
        device="cpu",
        **options,
    )
    engine = TorchEngine(model, Optim(lr=1e-5))
    objective = make_objective(InfoNCE(temperature=TEMPERATURE))
    rows = [Sample(query, (positive, negative)) for query, positive, negative in texts]

    def collate(drawn: Sequence[Sample], total: int) -> Any:
        return collate_texts(drawn, model, global_samples=total)

    dataset = TrainingSet("data", rows, GroupSampler(GROUP), collate)
    source = BatchSource(Order((Stream(len(rows), BATCH),)), (dataset,))

    def run(steps: int) -> float:
        plan = Plan(steps, Schedule(1e-5, steps), log_every=10, checkpoint_every=10)
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder) / "checkpoints")
            started = time.perf_counter()
            train(plan, Trainer(engine, objective, source, checkpoints, log=Mirror(folder).step))
            return time.perf_counter() - started

    return run


def _plain_loop(texts: Sequence[tuple[str, str, str]]) -> Any:
    """The same training as a plain script."""
    import torch
    from torch.nn import functional as F
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(minilm()))
    model = AutoModel.from_pretrained(
        str(minilm()), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)

    def encode(texts: list[str], longest: int) -> torch.Tensor:
        inputs = tokenizer(
            texts, padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None]
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def run(steps: int) -> float:
        started = time.perf_counter()
        for step in range(steps):
            batch = texts[step * BATCH : (step + 1) * BATCH]
            queries = encode([query for query, _, _ in batch], QUERY_TOKENS)
            passages = encode([text for _, *pair in batch for text in pair], DOCUMENT_TOKENS)
            scores = queries @ passages.T / TEMPERATURE
            loss = F.cross_entropy(scores, torch.arange(len(batch)) * GROUP)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
        return time.perf_counter() - started

    return run


def feed(corpus: Path) -> dict[str, float]:
    """Returns how many texts one core makes ready for MiniLM per second: NFCorpus, once.

    Tokenised, cut at 256 tokens, sorted by length, padded and batched, as `raydist embed` does it;
    seconds of the processor. Beside it what the tokenizer alone takes for whole texts.
    """
    import os

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import numpy as np
    import torch

    from raydist.data.readers import read_documents
    from raydist.models.biencoder import BiEncoder
    from raydist.models.encode import WINDOW, default_max_tokens, length_batches
    from raydist.models.packing import placed

    torch.set_num_threads(1)
    rows = [row for table in read_documents(str(corpus)) for row in table.to_pylist()]
    texts = [f"{row['title']}\n{row['text']}" if row["title"] else row["text"] for row in rows]
    model = BiEncoder.load(minilm(), document_max_length=256, device="cpu")
    tokenizer = model.tokenizer.backend_tokenizer
    started = time.process_time()
    for i in range(0, len(texts), WINDOW):
        tokenizer.encode_batch_fast(texts[i : i + WINDOW])
    alone = time.process_time() - started
    started = time.process_time()
    for i in range(0, len(texts), WINDOW):
        ids = model.tokenize(texts[i : i + WINDOW], "document")
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        for batch in length_batches(lengths, default_max_tokens(model)):
            placed(model.pad([ids[row] for row in batch]), model.device)
    seconds = time.process_time() - started
    return {
        "embed_texts_per_core_feed": len(texts) / seconds,
        "embed_texts_per_core_tokenizer_alone": len(texts) / alone,
    }


def autocast(threads: int = 1) -> dict[str, float]:
    """Returns the time of a training step in bfloat16 autocast, as a share of that in float32.

    MiniLM, in turns, the median of the rounds; nothing where the CPU computes no bfloat16.
    """
    import torch

    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    if not {"avx512_bf16", "amx_bf16"} & set(flags):
        return {}
    torch.set_num_threads(threads)
    texts = _texts(full=True)
    runs = [_our_loop(texts, autocast=autocast) for autocast in ("bfloat16", None)]
    for run in runs:
        run(2)
    shares = [runs[0](STEPS) / runs[1](STEPS) for _ in range(ROUNDS)]
    return {"autocast_vs_float32": statistics.median(shares)}


def ndcg(model: Path, corpus: Path, queries: Path, qrels: Path, **options: Any) -> float:
    """Returns a bi-encoder's nDCG@10 by exact search over a whole corpus."""
    import numpy as np

    from raydist.data.readers import read_documents, read_qrels, read_queries
    from raydist.evaluation.measures import evaluate
    from raydist.models.biencoder import BiEncoder
    from raydist.records import Run

    encoder = BiEncoder.load(model, device="cpu", **options)
    rows = [row for table in read_documents(str(corpus)) for row in table.to_pylist()]
    ids = [row["doc_id"] for row in rows]
    texts = [f"{row['title']}\n{row['text']}" if row["title"] else row["text"] for row in rows]
    documents = encoder.encode_documents(texts)
    topics = read_queries(str(queries))
    scores = encoder.encode_queries([query.text for query in topics]) @ documents.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    run = Run.from_lists(
        (query.query_id, [ids[i] for i in rows_], scores[q][rows_])
        for q, (query, rows_) in enumerate(zip(topics, best, strict=True))
    )
    return float(evaluate(run, read_qrels(str(qrels)), ["nDCG@10"]).means["nDCG@10"])


def nfcorpus(collection: Path, out: Path, *words: str) -> dict[str, float]:
    """Trains by `jobs/nfcorpus/train.yaml`; returns nDCG@10 on the test queries, before and after.

    What is evaluated is the checkpoint that the listener chose on the dev queries.

    Args:
        collection: the folder of NFCorpus.
        out: where to train.
        words: further `key=value` arguments.
    """
    validation = {
        "corpus": collection / "corpus.jsonl",
        "queries": collection / "dev" / "queries.jsonl",
        "qrels": collection / "dev" / "qrels.txt",
    }
    _train(
        ROOT / "jobs" / "nfcorpus" / "train.yaml",
        *(f"data.path={collection}/train/qrels.txt", f"corpus={collection}/corpus.jsonl"),
        *(f"queries={collection}/train/queries.jsonl", f"out={out}"),
        *(f"validation.dev.{name}={path}" for name, path in validation.items()),
        *words,
    )
    test = collection / "corpus.jsonl", collection / "queries.jsonl", collection / "qrels.txt"
    # Longer texts than the recipe's: the untrained model is better with them.
    lengths = {"query_max_length": 32, "document_max_length": 96}
    history = (out / "listeners" / "dev" / "history.jsonl").read_text().splitlines()
    dev = {line["step"]: line["nDCG@10"] for line in map(json.loads, history)}
    best = json.loads((out / "listeners" / "dev" / "info.json").read_text())["nDCG@10"]
    return {
        "nfcorpus_ndcg10_start": ndcg(minilm(), *test, **lengths),
        "nfcorpus_ndcg10_trained": ndcg(out / "listeners" / "dev" / "best" / "nDCG@10", *test),
        "nfcorpus_dev_ndcg10_start": dev[0],
        "nfcorpus_dev_ndcg10_trained": best["value"],
        "nfcorpus_best_step": best["step"],
    }


def quickstart(out: Path, *words: str) -> dict[str, float]:
    """Trains from nothing by `jobs/quickstart/train.yaml`; returns nDCG@10 before and after.

    Args:
        out: where to train.
        words: further `key=value` arguments.
    """
    from raydist.data.docstrings import cached

    _train(ROOT / "jobs" / "quickstart" / "train.yaml", f"out={out}", "tracking=none", *words)
    data = cached(PACKAGES)
    test = data / "corpus.jsonl", data / "test" / "queries.jsonl", data / "test" / "qrels.txt"
    options = {"pooling": "mean", "normalize": True, "query_max_length": 32}
    return {
        "quickstart_ndcg10_start": ndcg(out / "scratch", *test, **options, document_max_length=96),
        "quickstart_ndcg10_trained": ndcg(out, *test),
    }


def _train(*words: str | Path) -> None:
    from raydist.cli import main as command

    code = command(["train", *map(str, words)])
    assert code == 0, f"raydist train ended with {code}"


if __name__ == "__main__":
    main()
