"""Runs a function in several processes joined by gloo."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _worker(rank: int, world: int, folder: str, work: Callable[[int, int, Path], None]) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("error", category=UserWarning)
    store = f"file://{folder}/store-{world}-{work.__name__}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    try:
        work(rank, world, Path(folder))
    finally:
        dist.destroy_process_group()


def spawn(work: Callable[[int, int, Path], None], world: int, folder: Path) -> None:
    """Calls work(rank, world, folder) in `world` processes; raises what one of them raised."""
    mp.spawn(_worker, (world, str(folder), work), nprocs=world)
