"""The DeepSpeed engine: ZeRO 1 to 3 behind the plain engine's interface; the only importer of it.

DeepSpeed averages gradients over ranks while the losses here already divide, so shares are scaled
up by the number of ranks before its backward pass. All backward passes of a step travel between
ranks in one reduction. A checkpoint for another number of ranks goes through DeepSpeed's universal
format. ZeRO 3 gathers parameters in every forward pass, so all ranks must make as many of them.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

if not os.environ.get("DS_ACCELERATOR"):
    os.environ.pop("DS_ACCELERATOR", None)
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import deepspeed.ops
from deepspeed.checkpoint import ds_to_universal

from raydist.errors import ArtifactError
from raydist.training.engine import load_random_state, save_random_state
from raydist.training.optimizer import adamw
from raydist.training.scattered import Scattered
from raydist.training.skeleton import fill, skeleton
from raydist.training.spec import DeepSpeed, Optim

_NEVER = 1e30
"""A norm that no gradient reaches: DeepSpeed measures the norm only where it clips."""

_TAG = "state"


def avoid_compilation() -> None:
    """Keeps DeepSpeed from compiling its shared-memory operator for CPU (minutes, for nothing).

    The table of operators is private to DeepSpeed; a test checks that this still takes effect.
    """
    table = getattr(deepspeed.ops, "__compatible_ops__", None)
    if isinstance(table, dict):
        table["deepspeed_shm_comm"] = False


class DeepSpeedEngine:
    """A module trained by AdamW under ZeRO."""

    def __init__(
        self,
        module: nn.Module,
        optim: Optim,
        spec: DeepSpeed,
        *,
        device: torch.device | None = None,
        overlap_communication: bool | None = None,
        bucket_size: int = 1 << 26,
        whole_below: int = 10_000,
    ) -> None:
        """Wraps a module; ranks start from rank 0's weights.

        Args:
            module: the model, on its device; under ZeRO 3 on any, and without weights
                (`raydist.training.skeleton`) on ranks other than 0.
            optim: AdamW's numbers; its learning rate holds until `set_lr`.
            spec: what is spread over ranks.
            device: where to train; where the module is if None.
            overlap_communication: reduce while the backward pass runs; on GPUs by default.
            bucket_size: values that travel in one reduction.
            whole_below: parameters of fewer values stay whole on every rank (ZeRO 3).
        """
        self.device = device or next(module.parameters()).device
        _join_group(self.device)
        self.module = module
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.steps = 0
        self.zero = zero = spec.zero
        self.agrees_on_chunks = zero == 3
        self.reductions = 0
        """Number of reductions of gradients over ranks, for the tests."""
        self._max_grad_norm = optim.clip
        overlap = (
            self.device.type == "cuda" if overlap_communication is None else (overlap_communication)
        )
        stage: dict[str, Any] = {
            "stage": zero,
            "overlap_comm": overlap,
            "reduce_bucket_size": bucket_size,
            "allgather_bucket_size": bucket_size,
        }
        if zero == 3:
            stage["stage3_param_persistence_threshold"] = whole_below
        if spec.offload_optimizer:
            stage["offload_optimizer"] = {"device": "cpu"}
        if spec.offload_parameters and zero == 3:
            stage["offload_param"] = {"device": "cpu"}
        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "zero_optimization": stage,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "gradient_clipping": optim.clip or _NEVER,
            "steps_per_print": None,
        }
        if zero == 3:
            self._skeleton = skeleton(module)  # before there are hooks
            _spread(module, settings, self.device)
        named = module.named_parameters(remove_duplicate=False)
        self._frozen = {name for name, p in named if not p.requires_grad}
        self._adam = adamw(module, optim, device=self.device)
        self._decays = [group["weight_decay"] for group in self._adam.param_groups]
        self._engine: Any = deepspeed.initialize(
            model=module, optimizer=self._adam, config=settings, dist_init_required=False
        )[0]
        self.optimizer = self._engine.optimizer

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Runs the module's forward."""
        return self._engine(*args, **options)

    def set_lr(self, lr: float) -> None:
        """Sets the learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    @contextmanager
    def one_reduction(self, backwards: int) -> Iterator[None]:
        """Gathers a step's backward passes into one reduction, made when the context ends."""
        self.reductions += 1
        if backwards == 1:
            yield
        else:
            with self._engine.coalesce_grad_reduction():
                yield

    def backward(self, share: Tensor, *, last: bool = True) -> None:
        """Back-propagates this rank's share of the loss."""
        del last  # see `one_reduction`
        self._engine.backward(share * self.world_size, scale_wrt_gas=False)

    def step(self) -> float | Tensor:
        """Clips and steps; returns the global gradient norm before clipping."""
        self._engine.step()
        self.steps += 1
        norm: float | Tensor = self._engine.get_global_grad_norm()
        return float(norm) if self.device.type == "cpu" else norm

    def whole_parameters(self) -> AbstractContextManager[None]:
        """Returns a context in which every rank has all parameters (all ranks enter it).

        Ranks may run forward passes of the module in it, as many as each likes.
        """
        return self._gathered() if self.zero == 3 else nullcontext()

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        """Gathers parameters and takes ZeRO's hooks off the module.

        The hooks would give parameters away after the first forward pass, and wait for all ranks
        in the next one. DeepSpeed's `unwrap_model_for_generation` leaves the one that waits.
        """
        hooks = self.optimizer.parameter_offload
        with deepspeed.zero.GatheredParameters(list(self.module.parameters())):
            hooks.destroy()
            hooks.forward_hooks, hooks.backward_hooks = [], []
            try:
                yield
            finally:
                hooks.setup_zero_stage3_hooks()

    def exported(self) -> nn.Module | Scattered:
        """Returns the model to be saved; every rank calls its `save`.

        Under ZeRO 3 no rank holds it whole: rank 0 writes it shard by shard.
        """
        if self.zero < 3:
            return self.module
        form = copy.deepcopy(self._skeleton)
        for own, empty in zip(self.module.buffers(), form.buffers(), strict=True):
            fill(empty, own.detach().to("cpu", copy=True))
        return Scattered(form.eval(), self._gather, not self.rank)

    def _gather(self, names: Sequence[str]) -> list[Tensor]:
        own = dict(self.module.named_parameters())
        copies = []
        for name in names:
            with deepspeed.zero.GatheredParameters([own[name]]):
                if not self.rank:
                    copies.append(own[name].detach().to("cpu", copy=True))
        return copies

    def save(self, folder: Path) -> None:
        """Writes this rank's part of what is trained; every rank calls it, each to its folder.

        Frozen weights are where the model was loaded from.
        """
        folder.mkdir(parents=True, exist_ok=True)
        save_random_state(folder, self.rank)
        self._engine.save_checkpoint(
            str(folder),
            tag=_TAG,
            client_state={"steps": self.steps},
            exclude_frozen_parameters=True,
        )
        if not self.rank:
            about = {
                "engine": "deepspeed",
                "zero": self.zero,
                "world_size": self.world_size,
                "steps": self.steps,
            }
            (folder / "engine.json").write_text(json.dumps(about, indent=1) + "\n")

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote; another number of ranks goes through the universal format.

        Raises:
            ArtifactError: the state is of another engine or ZeRO stage, or a part is missing.
        """
        about = self._about(folder)
        if about["world_size"] == self.world_size:
            self._load(folder)
            load_random_state(folder, self.rank)
        else:
            with self._universal(folder) as converted:
                self._engine._config.load_universal_checkpoint = True
                try:
                    self._load(converted)
                finally:
                    self._engine._config.load_universal_checkpoint = False
            self._repair_groups()
        self.steps = about["steps"]

    def _load(self, folder: Path) -> None:
        path, _ = self._engine.load_checkpoint(str(folder), tag=_TAG, custom_load_fn=self._restore)
        if path is None:
            raise ArtifactError(f"{folder}: incomplete, some of DeepSpeed's files are missing")

    def _restore(self, src: dict[str, Tensor], dst: nn.Module) -> None:
        """Restores the parameters of a state, which lacks those that are frozen."""
        missing, foreign = dst.load_state_dict(src, strict=False)
        if lost := sorted({*missing} - self._frozen) + foreign:
            raise ArtifactError(f"the checkpoint holds another model's state: {lost[0]}")

    def _repair_groups(self) -> None:
        """Undoes what ZeRO 3's universal loading mixes up between parameter groups.

        All of them get one step counter, which each would then advance, and the first group's
        weight decay.
        """
        for state in self._adam.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].clone()
        for group, decay in zip(self._adam.param_groups, self._decays):
            group["weight_decay"] = decay

    def _about(self, folder: Path) -> dict[str, Any]:
        file = folder / "engine.json"
        about = json.loads(file.read_text()) if file.exists() else {}
        if about.get("engine") != "deepspeed" or about.get("zero") != self.zero:
            writer = f"deepspeed.zero={about['zero']}" if "zero" in about else "the plain engine"
            raise ArtifactError(
                f"{folder}: written by {writer if about else 'something else'}, this run has "
                f"deepspeed.zero={self.zero}; resume with the stage that the run began with"
            )
        checked: dict[str, Any] = about
        return checked

    @contextmanager
    def _universal(self, folder: Path) -> Iterator[Path]:
        """Yields the universal form of a checkpoint: converted by rank 0 and on each machine."""
        name = [tempfile.mkdtemp(prefix="raydist-universal-") if not self.rank else ""]
        if not self.rank:
            _convert(folder / _TAG, Path(name[0]) / _TAG)
        dist.broadcast_object_list(name, 0)
        target = Path(name[0])
        owner = not self.rank
        if not (target / _TAG).is_dir():
            target, owner = Path(tempfile.mkdtemp(prefix="raydist-universal-")), True
            _convert(folder / _TAG, target / _TAG)
        try:
            yield target
            dist.barrier()
        finally:
            if owner:
                shutil.rmtree(target, ignore_errors=True)


def _spread(module: nn.Module, settings: dict[str, Any], device: torch.device) -> None:
    """Gives each rank its part of rank 0's parameters, one after the other, and all buffers."""
    first: Any = None
    for parameter in module.parameters():
        if parameter.is_meta:
            fill(parameter, torch.empty_like(parameter, device=device))
        if first is None:
            first = parameter
            deepspeed.zero.Init(nn.ParameterList([parameter]), config_dict_or_path=settings)
        else:
            first.convert_to_zero_parameters(param_list=[parameter])
    for buffer in module.buffers():
        # Filled before it travels: a broadcast holds its tensor a little longer than it lasts.
        if buffer.is_meta:
            fill(buffer, torch.empty_like(buffer, device=device))
        elif buffer.device != device:
            fill(buffer, buffer.to(device))
        dist.broadcast(buffer, 0)


def _convert(source: Path, target: Path) -> None:
    options = SimpleNamespace(
        input_folder=str(source),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)


def _join_group(device: torch.device) -> None:
    """Joins DeepSpeed to the process group, a group of one where there is none."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    avoid_compilation()
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1
        )
    os.environ.setdefault("LOCAL_RANK", str(device.index or 0))
    deepspeed.init_distributed(
        dist_backend=dist.get_backend(), auto_mpi_discovery=False, verbose=False
    )
