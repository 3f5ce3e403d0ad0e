"""AdamW with moments in bfloat16, against its formula; moments in 8 bits are refused."""

from __future__ import annotations

import copy
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from raydist.config.load import load
from raydist.config.training import TrainConfig
from raydist.errors import ConfigError
from raydist.training.engine import TorchEngine
from raydist.training.optimizer import BFloat16AdamW, adamw, parameter_groups
from raydist.training.spec import Optim

CPU = torch.device("cpu")
LEAN = Optim(lr=1e-2, state="bfloat16", weight_decay=0.1, clip=0.0)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 20))


def steps(engine: TorchEngine, count: int) -> None:
    for _ in range(count):
        torch.manual_seed(100 + engine.steps)
        with engine.one_reduction(1):
            engine.backward((engine(torch.randn(16, 40)) ** 2).mean())
        engine.step()


def neighbours(exact: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The bfloat16 numbers at and below, and above, an exact magnitude."""
    low = (exact.float().abs().view(torch.int32) & -65536).view(torch.float32)
    return low, (low.view(torch.int32) + 65536).view(torch.float32)


def test_each_step_is_adamw_s_formula_on_the_moments_that_are_kept() -> None:
    torch.manual_seed(1)
    weights = nn.Parameter(torch.randn(50, 30))
    optimizer = BFloat16AdamW([weights], lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    m = v = torch.zeros(50, 30, dtype=torch.float64)
    for t in range(1, 6):
        weights.grad = torch.randn(50, 30) * t
        g, w = weights.grad.double(), weights.detach().double()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w * (1 - 1e-2 * 0.1)
        w -= 1e-2 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        optimizer.step()
        torch.testing.assert_close(weights.detach().double(), w, rtol=1e-6, atol=1e-6)
        state = optimizer.state[weights]
        for exact, kept in ((m, state["exp_avg"]), (v, state["exp_avg_sq"])):
            assert kept.dtype == torch.bfloat16
            low, high = neighbours(exact * (1 - 1e-6))
            higher = neighbours(exact * (1 + 1e-6))[1]
            size = kept.float().abs()
            assert bool(((size == low) | (size == high) | (size == higher)).all())
        m, v = state["exp_avg"].double(), state["exp_avg_sq"].double()


def test_the_first_step_is_torch_s_adamw() -> None:
    ours, theirs = network(), network()
    lean = adamw(ours, LEAN, device=CPU)
    plain = torch.optim.AdamW(parameter_groups(theirs, lr=1e-2, weight_decay=0.1))
    for module, optimizer in ((ours, lean), (theirs, plain)):
        module(torch.ones(3, 40)).square().sum().backward()
        optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_a_mean_of_squares_shrinks_without_gradients_and_rounding_has_no_bias() -> None:
    weights = nn.Parameter(torch.ones(20_000))
    optimizer = BFloat16AdamW([weights], lr=0.0)
    for t in range(500):
        weights.grad = torch.ones(20_000) if t == 0 else torch.zeros(20_000)
        optimizer.step()
    mean = float(optimizer.state[weights]["exp_avg_sq"].double().mean())
    assert mean == pytest.approx(0.001 * 0.999**499, rel=5e-3)


def test_a_resumed_state_goes_on_to_the_same_bits(tmp_path) -> None:
    through = TorchEngine(network(), LEAN)
    steps(through, 2)
    through.save(tmp_path)
    steps(through, 3)
    resumed = TorchEngine(network(), LEAN)
    resumed.load(tmp_path)
    steps(resumed, 3)
    for a, b in zip(through.module.parameters(), resumed.module.parameters(), strict=True):
        assert torch.equal(a, b)
    state = next(iter(resumed.optimizer.state.values()))
    assert state["exp_avg"].dtype == torch.bfloat16
    plain = TorchEngine(copy.deepcopy(network()), Optim(clip=0.0))
    steps(plain, 1)
    plain.save(tmp_path / "plain")
    sizes = [(place / "engine.pt").stat().st_size for place in (tmp_path, tmp_path / "plain")]
    assert sizes[0] < 0.75 * sizes[1]


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_moments_of_8_bits_need_what_is_not_here() -> None:
    message = r"optim\.state = 8bit: bitsandbytes is not installed; bfloat16 needs nothing"
    with pytest.raises(ConfigError, match=message):
        TorchEngine(network(), Optim(state="8bit"))
    with pytest.raises(ConfigError, match=message):
        load(TrainConfig, (), ["data=d.jsonl", "model=M", "out=R", "optim.state=8bit"])
