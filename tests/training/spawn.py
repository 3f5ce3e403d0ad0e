"""Runs a function in several processes joined by gloo."""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

Work = Callable[[int, int, Path], None]


def _worker(rank: int, world: int, store: str, folder: Path, work: Work) -> None:
    faulthandler.enable()
    torch.set_num_threads(1)
    warnings.filterwarnings("error", category=UserWarning)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    try:
        work(rank, world, folder)
    finally:
        dist.destroy_process_group()
    # The work is done and its groups are closed. How native libraries fare while an interpreter
    # winds down is not what these tests are about, and one process in hundreds received a SIGABRT.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def spawn(work: Work, world: int, folder: Path) -> None:
    """Calls work(rank, world, folder) in `world` processes; raises what one of them raised."""
    with tempfile.TemporaryDirectory() as place:
        mp.spawn(_worker, (world, f"file://{place}/store", folder, work), nprocs=world)
