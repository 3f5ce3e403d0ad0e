"""Memory of one training step: uncached, cached, and sentence-transformers' cached loss.

    python -m benchmarks.training_memory MODE     # one process, one figure
    (uncached | cached | st, and of weights of terms: sparse | sparse_st)

MiniLM (for weights of terms, with a language-model head of its own), 128 queries of 16 tokens
against their 128 passages of 64 tokens, chunks of 8 (16 of them). A step of two pairs comes first,
to allocate gradients and buffers; the figure is the process's highest resident memory during the
step (the kernel's mark, reset before) less what it held before.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.models import minilm
from benchmarks.report import WORK, memory_bytes

PAIRS, CHUNK = 128, 8
QUERY_TOKENS, PASSAGE_TOKENS = 16, 64
_MEASURED: dict[str, dict[str, float]] = {}


def cached_extra_memory_vs_uncached() -> tuple[float, dict[str, float]]:
    """Returns extra memory of the cached step over that of the uncached one, and both in MiB."""
    uncached, cached = _measured("uncached"), _measured("cached")
    return cached["extra_mib"] / uncached["extra_mib"], {
        "uncached_extra_mib": uncached["extra_mib"],
        "cached_extra_mib": cached["extra_mib"],
        "uncached_seconds": uncached["seconds"],
        "cached_seconds": cached["seconds"],
    }


def cached_peak_vs_st() -> tuple[float, dict[str, float]]:
    """Returns our cached step's peak over sentence-transformers', and both in MiB.

    Both peaks are above the same floor: what a process holds before its step, without which the
    figure would compare imports.
    """
    ours, theirs = _measured("cached"), _measured("st")
    return ours["extra_mib"] / theirs["extra_mib"], {
        "cached_peak_mib": ours["extra_mib"],
        "st_peak_mib": theirs["extra_mib"],
        "cached_loss": ours["loss"],
        "st_loss": theirs["loss"],
        "st_seconds": theirs["seconds"],
    }


def sparse_peak_vs_st() -> tuple[float, dict[str, float]]:
    """Returns our peak over sentence-transformers' CachedSpladeLoss's, and both in MiB."""
    ours, theirs = _measured("sparse"), _measured("sparse_st")
    return ours["extra_mib"] / theirs["extra_mib"], {
        f"{name}_{of}": figures[of]
        for name, figures in (("sparse", ours), ("sparse_st", theirs))
        for of in ("extra_mib", "seconds", "loss")
    }


def _measured(mode: str) -> dict[str, float]:
    """Returns a mode's figures, measured once, in a process of its own."""
    if mode not in _MEASURED:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.training_memory", mode],
            check=True,
            capture_output=True,
            text=True,
            timeout=1800,
        )
        _MEASURED[mode] = json.loads(done.stdout.splitlines()[-1])
    return _MEASURED[mode]


def measure(mode: str) -> dict[str, float]:
    """Returns extra memory (MiB), loss and seconds of one step in this process."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    if mode.startswith("sparse"):
        folder = _sparse_model()
        step = _sparse(folder) if mode == "sparse" else _their_sparse(folder)
    else:
        model = minilm()
        step = _ours(model, CHUNK if mode == "cached" else 0) if mode != "st" else _theirs(model)
    step(2)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the first step freed is not held
    before = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    started = time.perf_counter()
    loss = step(PAIRS)
    seconds = time.perf_counter() - started
    return {
        "extra_mib": (memory_bytes("VmHWM") - before) / 2**20,
        "before_mib": before / 2**20,
        "loss": loss,
        "seconds": seconds,
    }


def _ours(folder: Path, chunk_size: int) -> Any:
    from raydist.losses.spec import InfoNCE
    from raydist.models.biencoder import BiEncoder

    model = BiEncoder.load(str(folder), normalize=True, dropout=0.0)
    loss = InfoNCE(temperature=0.05, scope="cross_device", mask_duplicates=False)
    return _step_of(model, loss, chunk_size)


def _sparse(folder: Path) -> Any:
    from raydist.losses.spec import Flops, InfoNCE
    from raydist.models.biencoder import BiEncoder

    model = BiEncoder.load(str(folder), dropout=0.0)
    flops = Flops(document=0.001, query=0.005, ramp=0)
    loss = InfoNCE(temperature=1.0, scope="cross_device", mask_duplicates=False, flops=flops)
    return _step_of(model, loss, CHUNK)


def _step_of(model: Any, loss: Any, chunk_size: int) -> Any:
    import torch

    from raydist.losses.inputs import Supervision
    from raydist.losses.objective import make_objective
    from raydist.training.collate import Batch
    from raydist.training.engine import TorchEngine
    from raydist.training.spec import Optim
    from raydist.training.step import start_step

    engine = TorchEngine(model, Optim(lr=1e-5))
    goal = make_objective(loss)

    def step(pairs: int) -> float:
        queries, passages = _inputs(pairs)
        supervision = Supervision(
            sizes_B=torch.ones(pairs, dtype=torch.int64),
            mask_BD=torch.ones(pairs, 1, dtype=torch.bool),
            hashes_P=torch.arange(pairs),
        )
        batch = Batch(supervision, queries=queries, passages=passages)
        unread = start_step(engine, batch, goal, chunk_size=chunk_size)
        return goal.total(unread.of(unread.values.tolist()))

    return step


def _theirs(folder: Path) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.losses import CachedMultipleNegativesRankingLoss

    model = SentenceTransformer(str(folder), device="cpu").train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loss = CachedMultipleNegativesRankingLoss(model, scale=20.0, mini_batch_size=CHUNK)

    def step(pairs: int) -> float:
        value = loss(list(_inputs(pairs)), torch.zeros(0))
        value.backward()
        return float(value.item())

    return step


def _sparse_model() -> Path:
    """Returns MiniLM with a random head that gives weights of terms."""
    from raydist.models.biencoder import BiEncoder

    folder = WORK / "minilm-sparse"
    if not (folder / "raydist.json").exists():
        BiEncoder.load(minilm(), kind="sparse", fresh_head=True, device="cpu").save(folder)
    return folder


def _their_sparse(folder: Path) -> Any:
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.losses import (
        CachedSpladeLoss,
        SparseMultipleNegativesRankingLoss,
    )

    model = SparseEncoder(str(folder), device="cpu").train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    base = SparseMultipleNegativesRankingLoss(model)
    loss = CachedSpladeLoss(model, base, 0.001, 0.005, mini_batch_size=CHUNK)

    def step(pairs: int) -> float:
        value = sum(loss(list(_inputs(pairs)), torch.zeros(0)).values())
        value.backward()
        return float(value.item())

    return step


def _inputs(pairs: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random tokens, lengths between half and the whole of the longest."""
    import torch

    generator = torch.Generator().manual_seed(1)

    def rows(longest: int) -> dict[str, Any]:
        lengths = torch.randint(longest // 2, longest + 1, (pairs, 1), generator=generator)
        lengths[0] = longest
        mask = (torch.arange(longest)[None] < lengths).long()
        ids = torch.randint(1000, 20000, (pairs, longest), generator=generator) * mask
        return {"input_ids": ids, "attention_mask": mask}

    return rows(QUERY_TOKENS), rows(PASSAGE_TOKENS)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
