"""Configuration of `raydist tune`: that of a training run, and a search over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from raydist.config.base import Flat, resolved
from raydist.config.load import load
from raydist.config.training import TrainConfig
from raydist.errors import ConfigError
from raydist.evaluation.mirror import flatten
from raydist.tuning.objective import choose_objective
from raydist.tuning.spec import Search, draw, parse_distribution


class TuneConfig(TrainConfig):
    """Trains bi-encoders of drawn configurations and keeps the best."""

    search: Flat[Search]

    @model_validator(mode="before")
    @classmethod
    def _nested_keys(cls, data: Any) -> Any:
        """A file may write `{optim: {lr: ...}}` for `{optim.lr: ...}`."""
        if isinstance(data, dict) and isinstance(data.get("space"), Mapping):
            return {**data, "space": flatten(data["space"])}
        return data

    @model_validator(mode="after")
    def _searchable(self) -> TuneConfig:
        problems = []
        space = self.search.space
        if not space:
            problems.append("space: required, for example 'space.optim.lr=log(1e-6, 1e-4)'")
        for key, text in space.items():
            problems += _key_problems(self, key, text)
        if not problems:
            for trial in range(self.search.trials):
                values = draw(space, trial, self.seed)
                shown = ", ".join(f"{key}={value}" for key, value in values.items())
                problems += [f"{line} (trial {trial}: {shown})" for line in _problems(self, values)]
                if problems:
                    break
        try:
            choose_objective(self.validation, self.search.metric)
        except ValueError as error:
            problems.append(str(error))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def trial_config(config: TuneConfig, values: Mapping[str, str], **others: Any) -> TrainConfig:
    """Returns the training configuration of a trial: the search's with its values, and others.

    Raises:
        ConfigError: a value is not one that its key takes, or contradicts another.
    """
    fields = {
        field.alias or name: resolved(getattr(config, name))
        for name, field in TrainConfig.model_fields.items()
        if name in config.model_fields_set
    }
    arguments = [f"{key}={value}" for key, value in values.items()]
    return load(TrainConfig, [{**fields, **others}], arguments)


def _key_problems(config: TuneConfig, key: str, text: str) -> list[str]:
    """Returns what is wrong with one key of the space, tried at its extreme values."""
    try:
        ends = parse_distribution(text).ends()
    except ValueError as error:
        return [f"space.{key} = {text!r}: {error}"]
    if key.split(".")[0] == "validation":
        return [f"space.{key}: trials that are validated differently cannot be compared"]
    problems = [f"space.{line}" for end in ends for line in _problems(config, {key: end})]
    if not problems:
        identities = [trial_config(config, {key: end}).identity() for end in ends]
        if all(identity == identities[0] for identity in identities):
            return [f"space.{key}: does not change what is trained; set {key}= itself"]
    return list(dict.fromkeys(problems))


def _problems(config: TuneConfig, values: Mapping[str, str]) -> list[str]:
    try:
        trial_config(config, values)
    except ConfigError as error:
        return str(error).splitlines()
    return []
