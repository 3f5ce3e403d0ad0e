"""Configuration of `raydist train`."""

from __future__ import annotations

from pydantic import Field, model_validator

from raydist.config.training import TrainingConfig
from raydist.losses.spec import Distillation, InfoNCE, Loss, Target, TargetSpec, check_losses
from raydist.models.spec import TrainedEncoder, check_precision


class TrainConfig(TrainingConfig):
    """A bi-encoder trained by contrast, with or without a teacher."""

    model: TrainedEncoder
    """What to start from: a path or name, or `model.scratch` for nothing."""
    train_group_size: int | None = Field(None, ge=1)
    """Positive and negatives of a sample together; 8 if not given, 1 where no sample has any."""
    loss: Loss | None = InfoNCE()
    """What is optimised."""
    target: Target = TargetSpec()
    """How teacher scores become targets."""

    @model_validator(mode="after")
    def _losses_agree(self) -> TrainConfig:
        several = self.losses and self.distill == Distillation()
        problems = check_losses(
            self.loss, None if several else self.distill, self.losses, pairs=False
        )
        problems += check_precision(self.model, self.deepspeed.zero)
        if problems:
            raise ValueError("; ".join(problems))
        return self
