"""What the library reaches on one GPU: share of the peak FLOPs in training, documents and pairs/s.

    python -m benchmarks.gpu [parts=train,embed,rerank]     # at most ten minutes
    python -m benchmarks.gpu --cpu                          # tiny models: a test of this program

Needs torch 2.11 or newer, transformers, tokenizers, numpy and pyarrow, and sentence-transformers
for the comparison; no Ray, DeepSpeed or pydantic. The models are random, of released shapes:
bge-base and Qwen3-0.6B.

Model FLOPs are 2 per weight of a matrix and token, and 4 per pair of tokens, layer and width for
attention; three times that for training (forward and backward), recomputation not counted. MFU is
their share of what the GPU's maker states for dense bfloat16, or, for a GPU not listed here, of
what a large matrix product reaches, which is measured in any case.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import arguments, print_table, write_results
from benchmarks.shapes import WORDS, bge_base, qwen3_06b, texts_of

STATED = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12}
"""Dense bfloat16 FLOP/s by the makers' data sheets."""
LENGTHS = (64, 256, 512)
GROUP = 8


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    Attributes:
        folder: where models are written.
        device: `cuda` or `cpu`.
        tiny: a test on small models.
        peak: FLOP/s that shares are of.
    """

    folder: Path
    device: str
    tiny: bool
    peak: float

    @property
    def dtype(self) -> str:
        """Of the weights in inference."""
        return "bfloat16" if self.device == "cuda" else "float32"


def main() -> None:
    """Measures, prints the table and writes the record."""
    words = [word for word in sys.argv[1:] if word != "--cpu"]
    tiny = len(words) < len(sys.argv) - 1
    options = arguments({"parts": "train,embed,rerank"}, words)
    device = "cpu" if tiny else "cuda"
    if not tiny and not torch.cuda.is_available():
        raise SystemExit("no GPU here; --cpu tests this program on a CPU")
    reached = matrix_peak(256 if tiny else 8192, device)
    name = torch.cuda.get_device_name(0) if device == "cuda" else ""
    stated = next((flops for part, flops in STATED.items() if part in name), 0.0)
    figures = {"matrix_product_tflops": reached / 1e12, "stated_tflops": stated / 1e12}
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder), device, tiny, stated or reached)
        for part in options["parts"].split(","):
            started = time.perf_counter()
            figures |= PARTS[part](setting)
            print(f"{part}: {time.perf_counter() - started:.0f} s", flush=True)
    if tiny:
        print_table("benchmark gpu (a test)", ["figure", "value"], list(figures.items()))
        return
    write_results("gpu", figures, {}, notes={"torch": torch.__version__})


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


def matrix_peak(side: int, device: str) -> float:
    """Returns the FLOP/s of a square matrix product in bfloat16 (float32 on a CPU)."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a = torch.randn(side, side, device=device, dtype=dtype)
    times = 10

    def work() -> None:
        for _ in range(times):
            a @ a

    return 2 * side**3 * times / timed(work, device)


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
    if config.model_type == "qwen3":
        per_pair /= 2  # a token sees those before it
    lengths_n = np.asarray(lengths, np.float64)
    return float(2 * matrices * lengths_n.sum() + per_pair * (lengths_n**2).sum())


def _memory(device: str, reset: bool = False) -> float:
    if device != "cuda":
        return 0.0
    if reset:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated() / 2**30


def train(setting: Setting) -> dict[str, float]:
    """Steps of InfoNCE over all passages of the batch: padded, packed, and cached in chunks."""
    figures: dict[str, float] = {}
    bert = partial(bge_base, setting.folder / "bge-base", setting.tiny)
    qwen = partial(qwen3_06b, setting.folder / "qwen3", setting.tiny)
    queries = (4, 4) if setting.tiny else (128, 24)
    for name, make, count in (("bge_base", bert, queries[0]), ("qwen3_06b", qwen, queries[1])):
        for way, attention, chunk in (
            ("", "sdpa", 0),
            ("_varlen", "varlen", 0),
            ("_cached", "sdpa", max(2, count * GROUP // 8)),
        ):
            for figure, value in _train(setting, make(), count, attention, chunk).items():
                figures[f"train_{name}{way}_{figure}"] = value
    return figures


def _train(
    setting: Setting, model_folder: Path, count: int, attention: str, chunk: int
) -> dict[str, float]:
    from raydist.losses.inputs import Supervision
    from raydist.models.biencoder import BiEncoder
    from raydist.training.collate import Batch, text_hashes
    from raydist.training.engine import TorchEngine
    from raydist.training.spec import Optim

    device = setting.device
    queries, passages = texts_of(count, 5, 20, 1), texts_of(count * GROUP, 40, 120, 2)
    model = BiEncoder.load(
        model_folder,
        normalize=True,
        dropout=0.0,
        attention=attention,
        autocast="bfloat16" if device == "cuda" else None,
        document_max_length=128,
        device=device,
    ).train()
    rows = (model.tokenize(queries, "query"), model.tokenize(passages, "document"))
    supervision = Supervision(
        sizes_B=torch.full((count,), GROUP),
        mask_BD=torch.ones(count, GROUP, dtype=torch.bool),
        hashes_P=text_hashes(passages),
    )
    batch = Batch(
        supervision, queries=model.pad(rows[0]), passages=model.pad(rows[1]), global_samples=count
    )
    engine = TorchEngine(model, Optim(lr=1e-5))
    steps = 1 if setting.tiny else 5
    _memory(device, reset=True)
    seconds = timed(partial(_steps, engine, batch, chunk, steps), device, 2) / steps
    lengths = [len(row) for part in rows for row in part]
    return {
        "mfu": 3 * forward_flops(model.towers[0], lengths) / seconds / setting.peak,
        "samples_per_s": count / seconds,
        "tokens_per_s": sum(lengths) / seconds,
        "memory_gib": _memory(device),
    }


def _steps(engine: Any, batch: Any, chunk: int, count: int) -> None:
    from raydist.losses.objective import make_objective
    from raydist.losses.spec import InfoNCE
    from raydist.training.step import start_step

    objective = make_objective(InfoNCE(temperature=0.05))
    for _ in range(count):
        start_step(engine, batch, objective, chunk_size=chunk)
        engine.step()


def embed(setting: Setting) -> dict[str, float]:
    """Documents of 64, 256 and 512 tokens, and of mixed lengths, beside sentence-transformers."""
    from raydist.models.biencoder import BiEncoder

    place = bge_base(setting.folder / "bge-base", setting.tiny)
    device, figures = setting.device, dict[str, float]()
    load = partial(
        BiEncoder.load,
        place,
        pooling="cls",
        normalize=True,
        dtype=setting.dtype,
        document_max_length=512,
        device=device,
    )
    padded, packed = load(), load(attention="varlen")
    padded.save(setting.folder / "st")
    theirs = _sentence_transformer(setting)
    cases: list[tuple[str, list[str]]] = []
    for length in LENGTHS:
        count = 8 if setting.tiny else (1 << 20) // length
        cases.append((str(length), _filled(padded, length, count)))
    cases.append(("mixed", texts_of(64 if setting.tiny else 8192, 8, 500)))
    for name, texts in cases:
        lengths = [len(row) for row in padded.tokenize(texts, "document")]
        _memory(device, reset=True)
        for way, model in (("", padded), ("_varlen", packed)):
            seconds = timed(partial(model.encode_documents, texts), device, 2)
            figures[f"embed_{name}{way}_docs_per_s"] = len(texts) / seconds
            flops = forward_flops(model.towers[0], lengths)
            figures[f"embed_{name}{way}_mfu"] = flops / seconds / setting.peak
        figures[f"embed_{name}_memory_gib"] = _memory(device)
        if theirs is not None:
            other = timed(partial(theirs.encode, texts, batch_size=256), device, 1)
            figures[f"embed_{name}_sentence_transformers_docs_per_s"] = len(texts) / other
    return figures


def _sentence_transformer(setting: Setting) -> Any:
    """Returns the saved model as sentence-transformers opens it, None where it is not installed."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    return SentenceTransformer(
        str(setting.folder / "st"),
        device=setting.device,
        model_kwargs={"dtype": getattr(torch, setting.dtype)},
    )


def _filled(model: Any, length: int, count: int) -> list[str]:
    """Returns texts of exactly so many tokens, special ones included."""
    inside = {word: len(model.tokenize([word], "document")[0]) - 2 for word in WORDS}
    single = [word for word, tokens in inside.items() if tokens == 1]
    draw = random.Random(length)
    return [" ".join(draw.choices(single, k=length - 2)) for _ in range(count)]


def rerank(setting: Setting) -> dict[str, float]:
    """Scores documents of 20 to 300 words with a decoder and a cross-encoder, packed and padded.

    100 for each of 8 queries, and 8 for each of 100, whose prefixes are then computed together.
    """
    from raydist.models.crossencoder import CrossEncoderModel
    from raydist.reranking.cross_encoder import CrossEncoder
    from raydist.reranking.qwen3 import Qwen3Reranker
    from raydist.reranking.spec import CrossEncoderSpec, Qwen3Spec

    decoder = qwen3_06b(setting.folder / "qwen3", setting.tiny)
    encoder = bge_base(setting.folder / "bge-base", setting.tiny)
    head = setting.folder / "cross-encoder"
    CrossEncoderModel.load(encoder, fresh_head=True, device="cpu").save(head)
    few, many = (2, 5) if setting.tiny else (8, 100)
    loads = {"": _requests(few, many), "_short_lists": _requests(many, few)}
    figures: dict[str, float] = {}
    for name, load, spec, place in (
        ("rerank", Qwen3Reranker, Qwen3Spec, decoder),
        ("cross_encoder", CrossEncoder, CrossEncoderSpec, head),
    ):
        scores: list[np.ndarray] = []
        for way, attention in (("", "varlen"), ("_padded", "sdpa")):
            settings = {"device": setting.device, "dtype": setting.dtype, "attention": attention}
            reranker = load(spec(model=str(place), **settings), packed=not way)
            if bool(reranker.scorer.packed) == bool(way):
                raise SystemExit(f"{name}{way}: packed is {reranker.scorer.packed}")
            _memory(setting.device, reset=True)
            for kind, requests in loads.items():
                seconds = timed(partial(reranker.score, requests), setting.device, 2)
                figures[f"{name}{way}{kind}_pairs_per_s"] = few * many / seconds
            figures[f"{name}{way}_memory_gib"] = _memory(setting.device)
            figures[f"{name}{way}_batch_tokens"] = reranker.engine.batcher.budget
            scores.append(np.concatenate(reranker.score(loads[""])))
            reranker.engine.close()
        figures[f"{name}_packed_vs_padded_largest_difference"] = float(
            np.abs(scores[0] - scores[1]).max()
        )
    return figures


def _requests(queries: int, documents: int) -> list[tuple[str, list[str]]]:
    return [
        (
            f"about {WORDS[i % len(WORDS)]} and {WORDS[-1 - i % len(WORDS)]}",
            texts_of(documents, 20, 300, i),
        )
        for i in range(queries)
    ]


PARTS = {"train": train, "embed": embed, "rerank": rerank}

if __name__ == "__main__":
    main()
