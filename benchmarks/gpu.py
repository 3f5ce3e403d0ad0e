"""What the library reaches on a GPU: throughput, memory, share of the peak FLOPs.

    python -m benchmarks.gpu [parts=peak,embed,train,rerank] [dtype=bfloat16]

Needs torch, transformers, tokenizers, numpy and pyarrow, and sentence-transformers for the
comparison; no Ray, DeepSpeed or pydantic. Models are random, of released sizes: BERT base for
embedding and training, Qwen3-Reranker-0.6B's for reranking. `size=tiny` runs on a CPU, to test it.

Model FLOPs are 2 per weight of a matrix and token, and 4 per pair of tokens, layer and width for
attention; three times that for training (forward and backward), recomputation not counted. The
peak is that of a large matrix product in the same dtype, measured first.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import arguments, print_table, write_results

SIZES = {
    "base": {
        "bert": {"layers": 12, "hidden": 768, "heads": 12, "vocab": 8192},
        "qwen3": {"layers": 28, "hidden": 1024},
        "texts": 16384,
        "queries": 128,
        "steps": 8,
        "matrix": 8192,
        "requests": 8,
    },
    "tiny": {
        "bert": {"layers": 2, "hidden": 32, "heads": 2, "vocab": 512},
        "qwen3": {"layers": 2, "hidden": 64},
        "texts": 128,
        "queries": 8,
        "steps": 2,
        "matrix": 256,
        "requests": 1,
    },
}
GROUP = 8
WORDS = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in ("", "n", "s", "rk", "l")]


def main() -> None:
    options = arguments({"parts": "peak,embed,train,rerank", "size": "base", "dtype": "bfloat16"})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and options["size"] != "tiny":
        raise SystemExit("no GPU here; size=tiny tests this program on a CPU")
    size: dict[str, Any] = SIZES[options["size"]]
    peak = matrix_peak(size["matrix"], options["dtype"], device)
    figures: dict[str, float] = {"peak_tflops": peak / 1e12}
    with tempfile.TemporaryDirectory() as folder:
        for part in options["parts"].split(","):
            if part != "peak":
                figures |= PARTS[part](size, Path(folder), options["dtype"], device, peak)
    if device == "cuda" and options["size"] == "base":
        write_results("gpu", figures, {}, notes={"dtype": options["dtype"]})
    else:
        print_table("benchmark gpu (a test)", ["figure", "value"], list(figures.items()))


def timed(work: Callable[[], Any], device: str, repeats: int = 3) -> float:
    """Returns the seconds of the quickest of some runs after one to warm up."""
    best = float("inf")
    for turn in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        if turn:
            best = min(best, time.perf_counter() - started)
    return best


def matrix_peak(side: int, dtype: str, device: str) -> float:
    """Returns the FLOP/s of a square matrix product."""
    a = torch.randn(side, side, device=device, dtype=getattr(torch, dtype))
    times = 10

    def work() -> None:
        for _ in range(times):
            a @ a

    return 2 * side**3 * times / timed(work, device)


def texts_of(count: int, least: int, most: int, seed: int = 0) -> list[str]:
    """Returns texts of mixed lengths: log-uniform numbers of words."""
    draw = random.Random(seed)
    low, high = np.log(least), np.log(most)
    sizes = [int(np.exp(draw.uniform(low, high))) for _ in range(count)]
    return [" ".join(draw.choices(WORDS, k=n)) for n in sizes]


def forward_flops(model: Any, lengths: Sequence[int]) -> float:
    """Returns the model FLOPs of one forward pass over texts of these lengths."""
    matrices = sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.ndim == 2 and "embed" not in name and "pooler" not in name and "lm_head" not in name
    )
    config = model.config
    width = getattr(config, "head_dim", 0) or config.hidden_size // config.num_attention_heads
    per_pair = 4 * config.num_hidden_layers * config.num_attention_heads * width
    lengths_n = np.asarray(lengths, np.float64)
    return float(2 * matrices * lengths_n.sum() + per_pair * (lengths_n**2).sum())


def _bert(size: dict[str, Any], folder: Path) -> Path:
    from raydist.models.scratch import create

    if not (folder / "bert").is_dir():
        create(texts_of(2000, 20, 60), folder / "bert", **size["bert"])
    return folder / "bert"


def _memory(device: str, reset: bool = False) -> float:
    if device != "cuda":
        return 0.0
    if reset:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated() / 2**30


def embed(
    size: dict[str, Any], folder: Path, dtype: str, device: str, peak: float
) -> dict[str, float]:
    """Encodes texts of 8 to 500 words; sentence-transformers the same, in the same dtype."""
    from raydist.models.biencoder import BiEncoder
    from raydist.models.encode import EncodeStats

    place = _bert(size, folder)
    model = BiEncoder.load(place, pooling="mean", normalize=True, dtype=dtype, device=device)
    texts = texts_of(size["texts"], 8, 500)
    lengths = [len(row) for row in model.tokenize(texts, "document")]
    _memory(device, reset=True)
    stats = EncodeStats()
    seconds = timed(lambda: model.encode_documents(texts, stats=stats), device)
    figures = {
        "embed_texts_per_s": len(texts) / seconds,
        "embed_tokens_per_s": sum(lengths) / seconds,
        "embed_share_of_peak": forward_flops(model.towers[0], lengths) / seconds / peak,
        "embed_padding_waste": stats.padding_waste,
        "embed_memory_gib": _memory(device),
    }
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return figures
    model.save(folder / "st")
    theirs = SentenceTransformer(
        str(folder / "st"), device=device, model_kwargs={"dtype": getattr(torch, dtype)}
    )
    for batch_size in (32, 256):
        other = timed(lambda n=batch_size: theirs.encode(texts, batch_size=n), device, 1)
        figures[f"embed_vs_st_batch_{batch_size}"] = other / seconds
    return figures


def train(
    size: dict[str, Any], folder: Path, dtype: str, device: str, peak: float
) -> dict[str, float]:
    """Trains with InfoNCE over all passages of the batch, plain and with gradient caching."""
    from raydist.losses.inputs import Targets
    from raydist.models.biencoder import BiEncoder
    from raydist.training.collate import Batch, text_hashes
    from raydist.training.engine import TorchEngine
    from raydist.training.spec import Optim

    place = _bert(size, folder)
    count, group = size["queries"], GROUP
    queries, passages = texts_of(count, 5, 20, 1), texts_of(count * group, 40, 120, 2)
    figures: dict[str, float] = {}
    autocast = dtype if device == "cuda" else None
    for name, chunk in (("plain", 0), ("cached", max(1, count * group // 16))):
        model = BiEncoder.load(
            place, pooling="mean", normalize=True, autocast=autocast, dropout=0.1, device=device
        ).train()
        rows = (model.tokenize(queries, "query"), model.tokenize(passages, "document"))
        targets = Targets(
            sizes_B=torch.full((count,), group),
            mask_BD=torch.ones(count, group, dtype=torch.bool),
            hashes_P=text_hashes(passages),
        )
        batch = Batch(
            targets,
            queries=model.pad(rows[0]),
            passages=model.pad(rows[1]),
            global_samples=count,
        )
        engine = TorchEngine(model, Optim(lr=1e-5))
        steps = partial(_steps, engine, batch, chunk, size["steps"])
        _memory(device, reset=True)
        held = _memory(device)
        seconds = timed(steps, device) / size["steps"]
        lengths = [len(row) for part in rows for row in part]
        flops = 3 * forward_flops(model.towers[0], lengths)
        figures |= {
            f"train_{name}_samples_per_s": count / seconds,
            f"train_{name}_share_of_peak": flops / seconds / peak,
            f"train_{name}_memory_gib": _memory(device),
            f"train_{name}_added_memory_gib": _memory(device) - held,
        }
        del steps, engine, model
    return figures


def _steps(engine: Any, batch: Any, chunk: int, count: int) -> None:
    from raydist.losses.objective import make_objective
    from raydist.losses.spec import InfoNCE
    from raydist.training.step import forward_backward

    objective = make_objective(InfoNCE(temperature=0.05))
    for _ in range(count):
        forward_backward(engine, batch, objective, chunk_size=chunk)
        engine.step()


def rerank(
    size: dict[str, Any], folder: Path, dtype: str, device: str, peak: float
) -> dict[str, float]:
    """Scores 100 documents of 20 to 300 words per query with a Qwen3 of the 0.6B's shape."""
    from raydist.rerank.qwen3 import Qwen3Reranker
    from raydist.rerank.spec import Qwen3Spec
    from tests.rerank import small_qwen3

    place = small_qwen3.write(folder / "qwen3", rows=151_669, **size["qwen3"])
    reranker = Qwen3Reranker(
        Qwen3Spec(model=str(place), device=device, dtype=dtype if device == "cuda" else "float32")
    )
    draw = random.Random(0)
    requests = [
        (
            f"heart disease risk in adult {i}",
            [
                " ".join(draw.choices(small_qwen3.WORDS, k=draw.randint(20, 300)))
                for _ in range(100)
            ],
        )
        for i in range(size["requests"])
    ]
    _memory(device, reset=True)
    seconds = timed(lambda: reranker.score(requests), device, 2)
    pairs = sum(len(documents) for _, documents in requests)
    return {"rerank_pairs_per_s": pairs / seconds, "rerank_memory_gib": _memory(device)}


PARTS = {"embed": embed, "train": train, "rerank": rerank}

if __name__ == "__main__":
    main()
