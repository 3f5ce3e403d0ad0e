"""ZeRO 1 to 3 against the plain engine on one process; states at this and other world sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from raydist.errors import ArtifactError
from raydist.losses.objective import Objective, make_part
from raydist.losses.spec import BiIR, Distillation, InfoNCE, RankNet
from raydist.training.engine import Engine, TorchEngine
from raydist.training.skeleton import fill, from_bytes, to_bytes
from raydist.training.spec import DeepSpeed, Optim
from tests.training import tiny
from tests.training.spawn import spawn
from tests.training.steps import forward_backward

STAGES = [1, 2, 3]
CHUNKS = [0, 2]
GOAL = Objective(
    (
        make_part(
            BiIR(training_type="retrieval_answer_passage", temperature=0.7, scope="cross_device"),
            distill=Distillation(kind="m3_kd", hard=True),
        ),
        make_part(InfoNCE(temperature=0.5, scope="no_in_batch", weight=0.5), "own"),
        make_part(RankNet(per_query=True, weight=0.3), "ranknet"),
    )
)
STEPS = 3


def make(zero: int | None, clip: float = 0.5, *, frozen: bool = False, **options: Any) -> Any:
    optim = Optim(lr=1e-2, clip=clip, **options)
    module = tiny.TinyEncoder(torch.float32)
    module.tokens.requires_grad_(not frozen)
    if zero is None:
        return TorchEngine(module, optim)
    from raydist.training.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(module, optim, DeepSpeed(zero=zero), whole_below=0)


def weights(engine: Engine) -> torch.Tensor:
    """All weights but those that never have a gradient: ZeRO's flat optimizer decays even them."""
    with engine.whole_parameters():
        return torch.cat(
            [
                parameter.detach().flatten().clone()
                for name, parameter in engine.module.named_parameters()
                if "unused" not in name
            ]
        )


def train(
    engine: Engine, rows: range, steps: int, chunk: int, *, cut: bool = False
) -> list[tuple[float, float]]:
    """Losses and norms of some steps, the second one, on request, in two accumulation parts."""
    whole = tiny.data()
    curve = []
    for _ in range(steps):
        engine.set_lr(1e-2 / (1 + engine.steps))
        parts = [tiny.batch(whole, rows)]
        if cut and engine.steps == 1:
            parts = [tiny.batch(whole, rows[:1]), tiny.batch(whole, rows[1:])]
        terms = forward_backward(engine, parts, GOAL, chunk_size=chunk)
        curve.append((GOAL.total(terms), engine.step()))
    return curve


def exported(engine: Any) -> Any:
    """The model of a ZeRO 3 engine, filled on rank 0."""
    scattered = engine.exported()
    own = dict(scattered.module.named_parameters())
    for name, tensor in zip(own, scattered.gather(list(own))):
        fill(own[name], tensor)
    return scattered.module


def shares(world: int) -> list[range]:
    return {1: [range(9)], 2: [range(5), range(5, 9)], 3: [range(3), range(3, 6), range(6, 9)]}[
        world
    ]


def every_stage(rank: int, world: int, folder: Path) -> None:
    results: dict[Any, Any] = {}
    for zero in STAGES:
        for chunk in CHUNKS:
            engine = make(zero)
            curve = train(engine, shares(world)[rank], STEPS, chunk, cut=True)
            assert engine.reductions == STEPS
            results[zero, chunk] = (curve, weights(engine))
            unclipped = make(zero, clip=0.0)
            results[zero, chunk, "unclipped"] = train(unclipped, shares(world)[rank], 1, chunk)
    for zero in STAGES:
        save_and_go_on(zero, rank, world, folder)
    if rank == 0:
        torch.save(results, folder / f"stages-{world}.pt")


def save_and_go_on(zero: int, rank: int, world: int, folder: Path) -> None:
    target = folder / f"zero-{zero}"
    undisturbed = make(zero)
    train(undisturbed, shares(world)[rank], 1, 2)
    undisturbed.save(target)
    before = weights(undisturbed)
    expected = train(undisturbed, shares(world)[rank], STEPS, 2)
    after = weights(undisturbed)
    resumed = make(zero)
    resumed.load(target)
    assert resumed.steps == 1
    assert torch.equal(weights(resumed), before)
    assert train(resumed, shares(world)[rank], STEPS, 2) == expected
    assert torch.equal(weights(resumed), after)
    if rank == 0:
        torch.save((before, expected, after), folder / f"went-on-{zero}.pt")


def other_world(rank: int, world: int, folder: Path) -> None:
    for zero in STAGES:
        engine = make(zero)
        engine.load(folder / f"zero-{zero}")
        before, _, after = torch.load(folder / f"went-on-{zero}.pt")
        torch.testing.assert_close(weights(engine), before, rtol=0, atol=1e-7)
        assert engine.steps == 1
        train(engine, shares(world)[rank], STEPS, 2)
        # The moments came along: without them the next steps would differ in the first digit.
        torch.testing.assert_close(weights(engine), after, rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("zero")
    spawn(every_stage, 2, target)
    return target


def alone() -> tuple[list[tuple[float, float]], torch.Tensor]:
    """The plain engine on one process, its accumulation parts cut as two ranks cut theirs."""
    engine = make(None)
    whole = tiny.data()
    curve = []
    for step in range(STEPS):
        engine.set_lr(1e-2 / (1 + step))
        rows: list[Any] = [range(9)] if step != 1 else [[0, 5], [1, 2, 3, 4, 6, 7, 8]]
        terms = forward_backward(engine, [tiny.batch(whole, part) for part in rows], GOAL)
        curve.append((GOAL.total(terms), engine.step()))
    return curve, weights(engine)


@pytest.mark.parametrize("zero", STAGES)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_every_stage_on_two_ranks_trains_as_the_plain_engine_alone(
    folder: Path, zero: int, chunk: int
) -> None:
    results = torch.load(folder / "stages-2.pt")
    curve, after = results[zero, chunk]
    expected, expected_after = alone()
    for ours, single in zip(curve, expected):
        assert ours == pytest.approx(single, rel=1e-5, abs=1e-5)
    torch.testing.assert_close(after, expected_after, rtol=0, atol=1e-5)
    # The norm is known, and is that before clipping, where nothing is clipped as well.
    assert results[zero, chunk, "unclipped"][0] == pytest.approx(expected[0], rel=1e-5)


def test_a_state_moves_to_other_numbers_of_ranks(folder: Path) -> None:
    for world in (1, 3):
        spawn(other_world, world, folder)


def partly_trained(rank: int, world: int, folder: Path) -> None:
    for zero in STAGES:
        target, rows = folder / f"partly-{zero}", shares(world)[rank]
        through = make(zero, frozen=True, state="bfloat16")
        train(through, rows, 1, 0)
        through.save(target)
        expected = train(through, rows, STEPS, 0)
        resumed = make(zero, frozen=True, state="bfloat16")
        resumed.load(target)
        assert train(resumed, rows, STEPS, 0) == expected
        assert torch.equal(weights(resumed), weights(through))
        with pytest.raises(ArtifactError, match=r"another model's state: tokens\.weight"):
            make(zero).load(target)
        saved = (
            torch.load(target / "state/mp_rank_00_model_states.pt", weights_only=False)
            if (zero < 3)
            else torch.load(
                target / "state/zero_pp_rank_0_mp_rank_00_model_states.pt", weights_only=False
            )
        )
        assert "body.0.weight" in saved["module"] and "tokens.weight" not in saved["module"]
        assert saved["frozen_param_fragments"] is None


def partly_trained_elsewhere(rank: int, world: int, folder: Path) -> None:
    for zero in STAGES:
        engine = make(zero, frozen=True, state="bfloat16")
        engine.load(folder / f"partly-{zero}")
        assert engine.steps == 1
        train(engine, shares(world)[rank], STEPS, 0)


def test_frozen_weights_are_no_part_of_a_state_and_moments_may_be_bfloat16(tmp_path: Path) -> None:
    spawn(partly_trained, 2, tmp_path)
    spawn(partly_trained_elsewhere, 1, tmp_path)


def parts_alone(rank: int, world: int, folder: Path) -> None:
    """ZeRO 3 where rank 0 alone has loaded the model; a tied weight, a buffer, a frozen table."""
    module = tiny.TinyEncoder(torch.float32)
    module.register_buffer("shift", torch.tensor([0.5]))
    module.tied = module.body[0]
    module.tokens.requires_grad_(False)
    expected = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    if rank:
        module = from_bytes(to_bytes(module))
        assert all(t.is_meta for t in (*module.parameters(), *module.buffers()))
    from raydist.training.deepspeed import DeepSpeedEngine

    optim = Optim(lr=1e-2, clip=0.5)
    engine = DeepSpeedEngine(
        module, optim, DeepSpeed(zero=3), device=torch.device("cpu"), whole_below=0
    )
    assert module.tied is module.body[0] and float(module.shift) == 0.5
    for parameter in module.parameters():
        assert parameter.numel() == 0 and parameter.ds_tensor.numel() <= parameter.ds_numel // 2 + 1
    whole = exported(engine)
    assert whole.tied is whole.body[0]
    if rank == 0:
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
        torch.testing.assert_close(
            whole(tiny.data().queries, "query"),
            tiny.TinyEncoder(torch.float32)(tiny.data().queries, "query"),
        )
    curve = train(engine, shares(world)[rank], STEPS, 0)
    after = exported(engine)
    if rank == 0:
        torch.save((curve, after.state_dict()), folder / "parts.pt")


def test_ranks_of_zero_3_build_a_model_that_none_of_them_but_the_first_has_loaded(
    tmp_path: Path,
) -> None:
    spawn(parts_alone, 2, tmp_path)
    curve, after = torch.load(tmp_path / "parts.pt")
    module = tiny.TinyEncoder(torch.float32)
    module.tokens.requires_grad_(False)
    plain = TorchEngine(module, Optim(lr=1e-2, clip=0.5))
    expected = train(plain, range(9), STEPS, 0)
    for ours, single in zip(curve, expected, strict=True):
        assert ours == pytest.approx(single, rel=1e-5, abs=1e-5)
    for name, tensor in module.state_dict().items():
        if "unused" not in name:
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-5)


def test_a_state_of_another_stage_is_refused(folder: Path) -> None:
    spawn(refusals, 1, folder)


def refusals(rank: int, world: int, folder: Path) -> None:
    del rank, world
    engine = make(2)
    with pytest.raises(ArtifactError, match=r"deepspeed\.zero=1, this run has deepspeed\.zero=2"):
        engine.load(folder / "zero-1")
    with pytest.raises(ArtifactError, match="written by something else"):
        engine.load(folder)


def poisoned(rank: int, world: int, folder: Path) -> None:
    del rank, world, folder
    for zero in (1, 2, 3):
        engine = make(zero)
        before = weights(engine)
        with engine.one_reduction(1):
            engine.backward((engine(tiny.data().queries, "query") * math.nan).sum())
        assert not math.isfinite(engine.step())
        assert torch.equal(weights(engine), before)


def test_a_gradient_that_is_not_finite_is_reported_and_reaches_no_weight(tmp_path: Path) -> None:
    spawn(poisoned, 1, tmp_path)


def test_the_switch_that_avoids_compiling_still_takes_effect() -> None:
    import deepspeed.ops
    from deepspeed.comm.torch import build_shm_op

    from raydist.training.deepspeed import avoid_compilation

    avoid_compilation()
    assert deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] is False
    assert build_shm_op() is None
