"""Configuration of `raydist tune`: that of a training run, and a search over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import model_validator

from raydist.config.base import Block, Flat, resolved
from raydist.config.load import load
from raydist.config.training import DistillConfig, TrainConfig
from raydist.errors import ConfigError
from raydist.evaluation.mirror import flatten
from raydist.spec import ADDED
from raydist.tuning.objective import choose_objective
from raydist.tuning.spec import Search, draws, parse_distribution


def _nested_keys(cls: type[Block], data: Any) -> Any:
    """A file may write `{optim: {lr: ...}}` for `{optim.lr: ...}`."""
    if isinstance(data, dict) and "sampler" not in cls.model_fields and "sampler" in data:
        raise ValueError("sampler: a key of raydist distill; verb=distill tunes such a file")
    if isinstance(data, dict) and isinstance(data.get("space"), Mapping):
        return {**data, "space": flatten(data["space"])}
    return data


def _searchable(config: Any) -> Any:
    problems = []
    space = config.search.space
    if not space:
        problems.append("space: required, for example 'space.optim.lr=log(1e-6, 1e-4)'")
    for key, text in space.items():
        problems += _key_problems(config, key, text)
    if not problems:
        problems += _trial_problems(config)
    try:
        choose_objective(config.validation, config.search.metric)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return config


class TuneDistillConfig(DistillConfig):
    """Trains students of drawn configurations from a teacher's rankings and keeps the best."""

    verb: Literal["distill"]
    """What the configuration is of."""
    search: Flat[Search]

    nested_keys = model_validator(mode="before")(_nested_keys)
    searchable = model_validator(mode="after")(_searchable)


class TuneConfig(TrainConfig):
    """Trains models of drawn configurations and keeps the best."""

    variants = ("verb", {"distill": TuneDistillConfig})

    verb: Annotated[Literal["train", "distill"], ADDED] = "train"
    """What the configuration is of: `raydist train`, or `raydist distill` with all its keys."""
    search: Flat[Search]

    nested_keys = model_validator(mode="before")(_nested_keys)
    searchable = model_validator(mode="after")(_searchable)


Tune = TuneConfig | TuneDistillConfig


def training_of(config: Tune) -> type[TrainConfig] | type[DistillConfig]:
    """Returns the kind of configuration that trials have."""
    return TrainConfig if isinstance(config, TuneConfig) else DistillConfig


def trial_config(
    config: Tune, values: Mapping[str, str], **others: Any
) -> TrainConfig | DistillConfig:
    """Returns the training configuration of a trial: the search's with its values, and others.

    Raises:
        ConfigError: a value is not one that its key takes, or contradicts another.
    """
    training = training_of(config)
    fields = {
        field.alias or name: resolved(getattr(config, name))
        for name, field in training.model_fields.items()
        if name in config.model_fields_set
    }
    arguments = [f"{key}={value}" for key, value in values.items()]
    return load(training, [{**fields, **others}], arguments)


def _key_problems(config: Tune, key: str, text: str) -> list[str]:
    """Returns what is wrong with one key of the space, tried at its extreme values."""
    try:
        distribution = parse_distribution(text)
    except ValueError as error:
        return [f"space.{key} = {text!r}: {error}"]
    if key.split(".")[0] == "validation":
        return [f"space.{key}: trials that are validated differently cannot be compared"]
    ends = distribution.ends()
    problems = [f"space.{line}" for end in ends for line in _problems(config, {key: end})]
    if not problems:
        identities = [trial_config(config, {key: end}).identity() for end in ends]
        if all(identity == identities[0] for identity in identities):
            return [f"space.{key}: does not change what is trained; set {key}= itself"]
        for i, end in enumerate(ends):
            if identities[i] in identities[:i]:
                same = ends[identities.index(identities[i])]
                return [f"space.{key} = {text!r}: {same} and {end} are the same value"]
    return list(dict.fromkeys(problems))


def _trial_problems(config: Tune) -> list[str]:
    """Returns what is wrong with the first trial that cannot be trained."""
    try:
        drawn = draws(config.search.space, config.search.trials, config.seed)
    except ValueError as error:
        return [str(error)]
    for trial, values in enumerate(drawn):
        if problems := _problems(config, values):
            shown = ", ".join(f"{key}={value}" for key, value in values.items())
            return [f"{line} (trial {trial}: {shown})" for line in problems]
    return []


def _problems(config: Tune, values: Mapping[str, str]) -> list[str]:
    try:
        trial_config(config, values)
    except ConfigError as error:
        return str(error).splitlines()
    return []
