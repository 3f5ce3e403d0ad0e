"""The plain engine: one torch module, AdamW, one gradient reduction per step, any number of ranks.

An `Engine` back-propagates, adds gradients over ranks once per step, clips, steps and saves. The
losses divide (see `raydist.losses.gather`), so gradients are summed over ranks, never averaged.
Torch's DistributedDataParallel adds them while the step's last backward pass runs.
`raydist.training.deepspeed` has the same interface for ZeRO 0 to 3.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from raydist.errors import ArtifactError
from raydist.losses.gather import world_size
from raydist.training.optimizer import adamw
from raydist.training.spec import Optim


class Engine(Protocol):
    """What a training step needs of an engine.

    Attributes:
        module: the model.
        device: where it is.
        rank, world_size: of this process.
        steps: optimizer steps done.
        agrees_on_chunks: every rank must make the same number of forward passes (ZeRO 3).
    """

    module: nn.Module
    device: torch.device
    rank: int
    world_size: int
    steps: int
    agrees_on_chunks: bool

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Runs the module's forward."""
        ...

    def one_reduction(self, backwards: int) -> AbstractContextManager[None]:
        """Returns the context of one step's `backwards` calls of `backward` (0: unknown, many)."""
        ...

    def backward(self, share: Tensor, *, last: bool = True) -> None:
        """Back-propagates this rank's share of the loss; gradients of all shares are summed.

        Args:
            share: the scalar.
            last: it is the step's last one.
        """
        ...

    def step(self) -> float | Tensor:
        """Does one optimizer step; returns the global gradient norm before clipping.

        On an accelerator the norm stays there: to read it is to wait for the step.
        """
        ...

    def whole_parameters(self) -> AbstractContextManager[None]:
        """Returns a context in which every rank has all parameters, to read or export them."""
        ...

    def exported(self) -> Any:
        """Returns the model to be saved, or a `Scattered` of it; all ranks call it."""
        ...

    def set_lr(self, lr: float) -> None:
        """Sets the learning rate of the next step."""
        ...

    def save(self, folder: Path) -> None:
        """Writes this rank's part of the full state; every rank calls it."""
        ...

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote; every rank calls it."""
        ...


class TorchEngine:
    """A module trained by AdamW; works with one process and with a process group."""

    agrees_on_chunks = False

    def __init__(
        self,
        module: nn.Module,
        optim: Optim = Optim(),  # noqa: B008  frozen
    ) -> None:
        """Creates the optimizer; ranks start from rank 0's weights.

        Args:
            module: the model, on its device.
            optim: AdamW's numbers; its learning rate holds until `set_lr`.
        """
        add_rows_in_place(module)
        self.module = module
        self.world_size = world_size()
        self.rank = dist.get_rank() if self.world_size > 1 else 0
        self.steps = 0
        self.reductions = 0
        """Number of reductions of gradients over ranks, for the tests."""
        self._max_grad_norm = optim.clip
        self._trained = [p for p in module.parameters() if p.requires_grad]
        named = module.named_parameters(remove_duplicate=False)
        self._frozen = {name for name, p in named if not p.requires_grad}
        self.device = next(module.parameters()).device
        self.optimizer = adamw(module, optim, device=self.device, fused=True)
        self._reduced: nn.Module | None = None
        if self.world_size > 1:
            for tensor in [*module.parameters(), *module.buffers()]:
                dist.broadcast(tensor.detach(), 0)
            self._reduced = _reduced(self._trained)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Runs the module's forward."""
        return self.module(*args, **options)

    def set_lr(self, lr: float) -> None:
        """Sets the learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    @contextmanager
    def one_reduction(self, backwards: int) -> Iterator[None]:
        """Marks one step's backward passes; the last of them reduces."""
        del backwards
        yield

    def backward(self, share: Tensor, *, last: bool = True) -> None:
        """Back-propagates this rank's share of the loss; the last one adds gradients over ranks.

        A parameter that no rank used stays without a gradient.
        """
        if self._reduced is not None:
            share = share * self.world_size  # the mean, which torch makes, is then the sum
            if last:
                self.reductions += 1
                with _unwarned() if self.reductions == 1 else nullcontext():
                    share = self._reduced(share)
        share.backward()  # type: ignore[no-untyped-call]

    def step(self) -> float | Tensor:
        """Clips and steps; returns the norm before clipping.

        On a CPU, a norm that is not finite is returned without a step.
        """
        gradients = [p.grad for p in self._trained if p.grad is not None]
        norm = self._clip(gradients) if self.device.type == "cpu" else self._clip_unread(gradients)
        if isinstance(norm, Tensor) or np.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return norm

    def _clip(self, gradients: list[Tensor]) -> float:
        """Clips gradients and returns their norm before."""
        norm = float(nn.utils.get_total_norm(gradients)) if gradients else 0.0
        if self._max_grad_norm and np.isfinite(norm) and norm > self._max_grad_norm:
            torch._foreach_mul_(gradients, self._max_grad_norm / (norm + 1e-6))
        return norm

    def _clip_unread(self, gradients: list[Tensor]) -> Tensor:
        """Does the same without waiting for the device."""
        norm = nn.utils.get_total_norm(gradients)
        if self._max_grad_norm:
            factor = self._max_grad_norm / (norm.double() + 1e-6)
            factor = torch.where(norm > self._max_grad_norm, factor, 1.0)
            torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))
        return norm

    def whole_parameters(self) -> AbstractContextManager[None]:
        """Returns a context that does nothing: every rank has all parameters."""
        return nullcontext()

    def exported(self) -> nn.Module:
        """Returns the model: every rank has all parameters."""
        return self.module

    def save(self, folder: Path) -> None:
        """Writes what is trained, optimizer and steps (rank 0) and this rank's random state.

        Frozen weights are where the model was loaded from: a state of adapters is as small as they.
        """
        folder.mkdir(parents=True, exist_ok=True)
        save_random_state(folder, self.rank)
        if self.rank:
            return
        state = {
            "module": {n: t for n, t in self.module.state_dict().items() if n not in self._frozen},
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
        }
        torch.save(state, folder / "engine.pt")
        about = {"engine": "torch", "world_size": self.world_size, "steps": self.steps}
        (folder / "engine.json").write_text(json.dumps(about, indent=1) + "\n")

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote, at any world size.

        Raises:
            ArtifactError: the folder holds no state of this engine.
        """
        if not (folder / "engine.pt").exists():
            raise ArtifactError(
                f"{folder}: no engine.pt; this checkpoint was not written by the plain engine "
                "(resume with the deepspeed settings that it was trained with)"
            )
        state = torch.load(folder / "engine.pt", map_location=self.device, weights_only=True)
        missing, foreign = self.module.load_state_dict(state["module"], strict=False)
        if lost := sorted({*missing} - self._frozen) + foreign:
            raise ArtifactError(
                f"{folder}: holds another model's state: {lost[0]} and {len(lost) - 1} more "
                "tensors have no counterpart"
            )
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        load_random_state(folder, self.rank)


def save_random_state(folder: Path, rank: int) -> None:
    """Writes this process's random state (Python, NumPy, torch, CUDA) as `rng-RANK.pt`."""
    name, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": [name, torch.tensor(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    torch.save(state, folder / f"rng-{rank:05d}.pt")


def load_random_state(folder: Path, rank: int) -> None:
    """Restores `rng-RANK.pt`; a rank without such a file keeps its state."""
    file = folder / f"rng-{rank:05d}.pt"
    if not file.exists():
        return
    state = torch.load(file, weights_only=True)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class _Share(nn.Module):
    """A rank's share of the loss on its way through DistributedDataParallel, with the parameters.

    DistributedDataParallel looks at nothing but what it returns: whatever forward passes a share
    was computed from, its backward pass reduces the gradients of all that were made before.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.trained = nn.ParameterList(parameters)

    def forward(self, share: Tensor) -> Tensor:
        return share


def _reduced(parameters: Sequence[nn.Parameter]) -> nn.Module:
    """Returns what makes a backward pass average gradients over ranks, while it runs."""
    return DistributedDataParallel(
        _Share(parameters),
        find_unused_parameters=True,  # a tower that a batch does not read is one
        gradient_as_bucket_view=True,
        init_sync=False,
    )


@contextmanager
def _unwarned() -> Iterator[None]:
    """Hides torch's warning that no parameter is unused: it is C++'s own, and comes but once."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def add_rows_in_place(module: nn.Module) -> None:
    """Makes embedding tables on a CPU add gradients to the rows that were read.

    PyTorch makes a gradient as large as the table for every backward pass and adds it to the
    parameter's: a chunk of texts reads some hundred rows, and pays for all 30,522 x 384 values of
    MiniLM. Accelerators keep PyTorch's way, for only there it adds in a fixed order.

    Only for an engine that reads `grad` when all backward passes are done: the tables' own hooks
    get no gradient to look at, only the parameter's own. Only tables trained in full precision are
    changed.
    """
    for part in module.modules():
        if type(part) is not nn.Embedding or part.max_norm is not None:
            continue
        if not (part.scale_grad_by_freq or part.sparse):
            part.forward = partial(_look_up, part)  # type: ignore[method-assign]


def _look_up(table: nn.Embedding, ids: Tensor) -> Tensor:
    weight = table.weight
    exact = weight.dtype in (torch.float32, torch.float64)
    if weight.device.type == "cpu" and weight.requires_grad and exact and torch.is_grad_enabled():
        return _Lookup.apply(weight, ids, table.padding_idx)  # type: ignore[no-any-return, no-untyped-call]
    return nn.Embedding.forward(table, ids)


class _Lookup(torch.autograd.Function):
    """Rows of a table; the backward pass writes to the table's `grad` itself."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding = weight, padding
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        (ids,) = ctx.saved_tensors
        weight, rows = ctx.weight, ids.reshape(-1)
        gradient = gradient.reshape(len(rows), -1)
        if ctx.padding is not None:
            real = rows != ctx.padding
            rows, gradient = rows[real], gradient[real]
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, rows, gradient)
        return None, None, None
