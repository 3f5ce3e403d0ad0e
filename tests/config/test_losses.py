"""Losses as they are configured, and the objectives built from them."""

from __future__ import annotations

import pickle
from typing import get_args, get_type_hints

import pytest
import torch

from raydist.config.base import Block
from raydist.config.load import load
from raydist.errors import ConfigError
from raydist.losses.objective import make_objective
from raydist.losses.spec import (
    BiIR,
    Distillation,
    InfoNCE,
    Loss,
    Target,
    TargetSpec,
    check_losses,
)
from raydist.losses.targets import make_targets


class Run(Block):
    """A verb with losses."""

    loss: Loss | None = None
    """The loss."""
    distill: Distillation = Distillation()
    """The distillation beside it."""
    losses: dict[str, Loss] = {}
    """Losses by name."""
    target: Target = TargetSpec()
    """Targets."""


def test_the_defaults_are_those_of_the_recipes() -> None:
    config = load(Run, [], ["loss.kind=infonce"])
    assert config.loss == InfoNCE(temperature=None, scope="in_batch", weight=1.0)
    assert config.distill.kind == "kl_div" and config.distill.temperature == 1.0
    answers = load(Run, [], ["loss=biir"]).loss
    assert isinstance(answers, BiIR)
    assert answers.training_type == "retrieval_answer" and answers.normalize_answer
    assert answers.answer_temperature is None


@pytest.mark.parametrize(
    "kind",
    [kind for spec in get_args(Loss) for kind in get_args(get_type_hints(spec)["kind"])],
)
def test_every_kind_is_built_alone_and_among_others_and_can_be_pickled(kind: str) -> None:
    config = load(Run, [], [f"loss.kind={kind}", "loss.weight=0.5"])
    objective = make_objective(config.loss, None, {})
    assert 0.5 in objective.weights.values()
    several = load(Run, [], [f"losses.a.kind={kind}", "losses.b.kind=adr_mse"])
    objective = make_objective(None, None, several.losses)
    assert all(name.startswith(("a", "b")) for name in objective.names) and "b" in objective.names
    assert pickle.loads(pickle.dumps(objective)).names == objective.names  # noqa: S301


def test_distillation_is_a_term_beside_one_loss() -> None:
    config = load(Run, [], ["loss=infonce", "distill.kind=m3_kd", "distill.weight=0.3"])
    assert make_objective(config.loss, config.distill, {}).weights == {
        "infonce": 1.0,
        "m3_kd": 0.3,
    }
    config = load(Run, [], ["loss=biir", "distill=none"])
    names = make_objective(config.loss, config.distill, {}).names
    assert names == ("qp", "qa", "answer_norm")
    several = load(Run, [], ["losses.a=infonce", "losses.b=infonce", "losses.c=kl_div"])
    assert make_objective(None, several.distill, several.losses).names == ("a", "b", "c")


def test_a_target_is_a_kind_or_a_kind_with_a_threshold() -> None:
    assert load(Run, [], ["target=minmax"]).target.kind == "minmax"
    binary = load(Run, [], ["target=binary(0.5)"]).target
    assert (binary.kind, binary.threshold) == ("binary", 0.5)
    with pytest.raises(ConfigError, match=r"binary needs a threshold, as in target=binary"):
        load(Run, [], ["target=binary"])
    scores, mask = torch.tensor([[0.4, 0.5]]), torch.ones(1, 2, dtype=torch.bool)
    assert make_targets(scores, mask, binary).tolist() == [[0.0, 1.0]]
    assert torch.equal(make_targets(scores, mask), scores)


def test_contradictions_are_reported() -> None:
    infonce = InfoNCE(scope="cross_device")
    assert check_losses(infonce, None, {}, pairs=False) == []
    assert "losses: give only one" in check_losses(infonce, None, {"a": infonce}, pairs=False)[0]
    problems = check_losses(None, Distillation(), {"a": infonce, "b": BiIR()}, pairs=True)
    assert [line.split(":")[0].split(";")[0] for line in problems] == [
        "distill goes with loss",
        "losses.a.scope = cross_device",
        "losses.b.kind = biir",
    ]


@pytest.mark.parametrize("wrong", ["temperature=0", "weight=-1", "scope=everywhere", "tau=1"])
def test_values_out_of_bounds_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=rf"loss\.{wrong.partition('=')[0]}"):
        load(Run, [], ["loss.kind=infonce", f"loss.{wrong}"])
