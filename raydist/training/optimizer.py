"""AdamW, and the precision of its moments: float32, bfloat16, or 8 bits by bitsandbytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from raydist.errors import ConfigError
from raydist.training.spec import Optim, check_state

_LOW_BITS = 16
"""Bits of a float32 that a bfloat16 lacks."""


def parameter_groups(module: nn.Module, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Returns AdamW's groups: matrices decay, biases and norms do not."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        # ZeRO 3 leaves a parameter without its dimensions, and keeps them as `ds_shape`.
        {"params": [p for p in trained if _dimensions(p) >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if _dimensions(p) < 2], "weight_decay": 0.0},
    ]
    return [{**group, "lr": lr} for group in groups if group["params"]]


def _dimensions(parameter: nn.Parameter) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))


def adamw(
    module: nn.Module, optim: Optim, *, device: torch.device, fused: bool | None = None
) -> torch.optim.Optimizer:
    """Returns the optimizer of a module that is trained on a device.

    Raises:
        ConfigError: its state cannot be kept as `optim.state` says.
    """
    groups = parameter_groups(module, lr=optim.lr, weight_decay=optim.weight_decay)
    settings: dict[str, Any] = {
        "lr": optim.lr,
        "betas": (optim.beta1, optim.beta2),
        "eps": optim.eps,
    }
    if optim.state == "bfloat16":
        return BFloat16AdamW(groups, **settings)
    if optim.state == "8bit":
        if problems := check_state(optim, gpu=device.type == "cuda"):
            raise ConfigError(problems[0])
        from bitsandbytes.optim import AdamW8bit

        eight_bit: torch.optim.Optimizer = AdamW8bit(groups, **settings)
        return eight_bit
    return torch.optim.AdamW(groups, **settings, fused=fused)


class BFloat16AdamW(torch.optim.Optimizer):
    """AdamW that computes in float32 and keeps its two moments in bfloat16.

    Moments are rounded up or down at random, in proportion to what is lost. Rounded to the nearest,
    a mean of squares would never shrink: its decay of a thousandth is below bfloat16's precision.
    The random bits depend on the step alone, so all ranks that hold a parameter stay equal, and
    so does a run that is resumed.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Does one step with the gradients that are there."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad.float(), group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        state["step"] += 1
        step = int(state["step"])
        beta1, beta2 = group["betas"]
        mean = state["exp_avg"].float().lerp_(gradient, 1 - beta1)
        squares = state["exp_avg_sq"].float().mul_(beta2)
        squares.addcmul_(gradient, gradient, value=1 - beta2)
        bits = torch.Generator(parameter.device).manual_seed(step)
        state["exp_avg"].copy_(_rounded(mean, bits))
        state["exp_avg_sq"].copy_(_rounded(squares, bits))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        scale = squares.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        parameter.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**step))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores a state; torch makes float32 of its moments, which are bfloat16 values."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = state[name].bfloat16()


def _rounded(values: Tensor, bits: torch.Generator) -> Tensor:
    """Returns float32 values as bfloat16, of the two neighbours each, without a bias."""
    noise = torch.randint(
        1 << _LOW_BITS, values.shape, generator=bits, dtype=torch.int32, device=values.device
    )
    whole = (values.contiguous().view(torch.int32) + noise) & -(1 << _LOW_BITS)
    return whole.view(torch.float32).bfloat16()
