"""A search's configuration is checked as the training's is, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raydist.config.load import load
from raydist.config.training import DistillConfig
from raydist.config.tune import Tune, TuneConfig, trial_config
from raydist.errors import ConfigError
from raydist.tuning.objective import Objective, choose_objective

DEV = [f"validation.dev.{name}={name}" for name in ("corpus", "queries", "qrels")]
LINE = ["data=train.jsonl", "model=PATH", "out=DIR", *DEV]
LR = "space.optim.lr=log(1e-6, 1e-4)"


def tune(*words: str) -> Tune:
    return load(TuneConfig, (), [*LINE, *words])


def test_a_trial_is_the_training_with_its_values() -> None:
    config = tune(LR, "space.loss.temperature=choice(0.02, 0.05)", "steps=20", "distill=none")
    trial = trial_config(config, {"optim.lr": "2e-05", "loss.temperature": "0.05"}, out="T")
    assert (trial.optim.lr, trial.out, trial.steps) == (2e-5, "T", 20)
    assert trial.loss is not None and trial.loss.kind == "infonce"
    assert trial.loss.temperature == 0.05 and trial.distill.kind == "none"
    assert "epochs" not in trial.model_fields_set, "what was not set stays so"


def test_a_search_may_be_over_a_distillation(tmp_path: Path) -> None:
    words = [LR, "space.sampler.size=choice(4, 8)", "steps=20", "verb=distill"]
    config = tune(*words)
    trial = trial_config(config, {"optim.lr": "2e-05", "sampler.size": "4"}, out="T")
    expected = [*LINE[:2], *DEV, "out=T", "steps=20", "optim.lr=2e-05", "sampler.size=4"]
    assert trial == load(DistillConfig, (), expected)
    file = tmp_path / "distill.yaml"
    file.write_text(yaml.safe_dump({"sampler": {"kind": "listwise"}}))
    with pytest.raises(ConfigError, match="sampler: a key of raydist distill; verb=distill tunes"):
        load(TuneConfig, [str(file)], [*LINE, LR])


def test_a_file_may_nest_the_keys_of_its_space(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    space = {"optim": {"lr": "log(1e-6, 1e-4)"}, "loss.temperature": "uniform(0.01, 0.1)"}
    file.write_text(yaml.safe_dump({"space": space, "trials": 2}))
    config = load(TuneConfig, [str(file)], [*LINE, "space.batch_size=int(8, 16)"])
    assert set(config.search.space) == {"optim.lr", "loss.temperature", "batch_size"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "space: required, for example 'space.optim.lr=log(1e-6, 1e-4)'"),
        (["space.optim.lrr=log(1e-6, 1e-4)"], "space.optim.lrr: unknown key; did you mean optim.l"),
        (["space.optim.lr=log(0, 1)"], "space.optim.lr = 'log(0, 1)': expected log(a, b) with 0 <"),
        (["space.optim.lr=uniform(-1, 1)"], "space.optim.lr = '-1.0': input should be greater"),
        (["space.batch_size=uniform(8, 9)"], "valid integer, unable to parse string"),
        (["space.loss.kind=choice(infonce, infonse)"], "space.loss.kind = 'infonse'"),
        (["space.workers=int(1, 2)"], "space.workers: does not change what is trained"),
        (["space.validation.dev.interval=int(1, 2)"], "cannot be compared"),
        (["space.batch_size=int(1, 3)", "accumulation=3"], "batch_size = 1: expected at least one"),
        (["space.optim.lr=log()"], "space.optim.lr = 'log()': log() has no two bounds"),
        (["space.optim.lr=choice(1, 1.0, 2)"], "1 and 1.0 are the same value"),
        (["space.accumulation=choice(1, 2)"], "trials = 16: the space has only 2 different"),
        ([LR, "sampler.kind=listwise"], "sampler"),
        ([LR, "reduction=1"], "reduction = '1': input should be greater than 1"),
        ([LR, "metric=test"], "metric = 'test': no such listener; there are dev"),
        ([LR, "metric=dev/RR"], "dev does not measure RR; it has map"),
        ([LR, "validation.dev.metrics={map: false}"], "validation.dev.metrics='{map: true}' keeps"),
    ],
)
def test_mistakes_are_explained(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tune(*words)
    assert message in str(caught.value)


def test_a_search_without_a_listener_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"add validation\.dev\.corpus=CORPUS"):
        load(TuneConfig, (), [word for word in LINE if "validation" not in word] + [LR])


def test_an_aggregate_decides_where_there_is_one() -> None:
    others = [word.replace(".dev.", ".test.") for word in DEV]
    with pytest.raises(ConfigError, match=r"metric: required, there are several listeners"):
        tune(LR, *others)
    mean = ["validation.all.kind=aggregate", "validation.all.listeners=dev,test"]
    config = tune(LR, *others, *mean)
    assert choose_objective(config.validation) == Objective("all", "map")
    assert choose_objective(config.validation, "test") == Objective("test", "map")
