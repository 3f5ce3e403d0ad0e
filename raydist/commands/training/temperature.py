"""The temperature of contrastive losses, which follows from the model where it is not given.

Cosines lie between -1 and 1, and a softmax of them needs a low temperature. Other scores are larger
by themselves: dot products of weights of terms, sums of a query's tokens, a reranker's logits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar, cast

from raydist.config.training import DistillConfig, TrainConfig
from raydist.losses.spec import COSINES, BiIR, InfoNCE, Loss
from raydist.models.spec import BiEncoderSettings, CrossEncoderSettings

C = TypeVar("C", bound=TrainConfig | DistillConfig)

ANY_SIZE = 1.0
"""Temperature where scores are of any size."""


def decided(config: C) -> C:
    """Returns the configuration with the temperature of each loss.

    Raises:
        ConfigError, DataError: the model cannot be read.
    """
    vectors, unit = scores_of(config.model)  # whatever is open: a mistake is named before work
    if not any(map(_is_open, config.objectives().values())):
        return config
    loss = None if config.loss is None else _decided(config.loss, vectors, unit)
    losses = {name: _decided(each, vectors, unit) for name, each in config.losses.items()}
    return cast(C, config.model_copy(update={"loss": loss, "losses": losses}))


def scores_of(model: BiEncoderSettings | CrossEncoderSettings) -> tuple[bool, bool]:
    """Returns whether a model compares one vector a text, and whether its scores are cosines."""
    if isinstance(model, CrossEncoderSettings):
        return False, False
    if model.path is None:
        vectors, normalize = model.kind in (None, "biencoder"), bool(model.normalize)
    else:
        from raydist.models.backbone import resolve_folder
        from raydist.models.folders.encoder import read_encoder_folder

        contract = read_encoder_folder(resolve_folder(model.path), model)[0].contract
        vectors, normalize = contract.kind == "biencoder", contract.normalize
    return vectors, vectors and normalize


def _is_open(loss: Loss) -> bool:
    return isinstance(loss, InfoNCE | BiIR) and loss.temperature is None


def _decided(loss: Loss, vectors: bool, unit: bool) -> Loss:
    """Returns a loss with its temperature.

    Reinforced-IR does not normalise vectors; its penalty on norms draws them to length 1.
    """
    if not isinstance(loss, InfoNCE | BiIR) or loss.temperature is not None:
        return loss
    if isinstance(loss, InfoNCE):
        return replace(loss, temperature=COSINES if unit else ANY_SIZE)
    answers = loss.answer_temperature if vectors else loss.answer_temperature or ANY_SIZE
    return replace(loss, temperature=COSINES if vectors else ANY_SIZE, answer_temperature=answers)
