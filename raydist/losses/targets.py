"""How a teacher's scores become the targets of a loss.

Legend: B queries, D documents of the longest list; larger is better everywhere.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from raydist.losses.spec import TargetSpec


def make_targets(
    teacher_BD: Tensor,
    mask_BD: Tensor,
    target: TargetSpec = TargetSpec(),  # noqa: B008  frozen
) -> Tensor:
    """Returns the targets of lists, 0 where padded.

    Ties share their mean rank; if all are tied, `minmax` gives 0.
    """
    if target.kind == "score":
        values = teacher_BD
    elif target.kind == "rank":
        lengths_B1 = mask_BD.sum(1, keepdim=True)
        values = lengths_B1 - ranks(teacher_BD, mask_BD) + 1
    elif target.kind == "minmax":
        values = scaled(teacher_BD, mask_BD)
    else:
        assert target.threshold is not None
        values = (teacher_BD >= target.threshold).to(teacher_BD.dtype)
    return values.masked_fill(~mask_BD, 0.0)


def scaled(scores_BD: Tensor, mask_BD: Tensor) -> Tensor:
    """Returns the scores of each list scaled to [0, 1], 0 where padded or all are equal."""
    low_B1 = scores_BD.masked_fill(~mask_BD, torch.inf).amin(1, keepdim=True)
    high_B1 = scores_BD.masked_fill(~mask_BD, -torch.inf).amax(1, keepdim=True)
    differ_BD = mask_BD & (high_B1 > low_B1)
    # What is masked is divided by 1: else its gradient were not a number.
    widths_BD = (high_B1 - low_B1).expand_as(scores_BD).masked_fill(~differ_BD, 1.0)
    return ((scores_BD - low_B1) / widths_BD).masked_fill(~differ_BD, 0.0)


def ranks(
    scores_BD: Tensor, mask_BD: Tensor, *, ties: Literal["average", "ordinal"] = "average"
) -> Tensor:
    """Returns each document's rank in its list, 1 for the largest score; 1 where padded.

    Args:
        scores_BD: scores.
        mask_BD: true where there is a document.
        ties: equal scores share the mean of their ranks, or rank in the order given.
    """
    valid = mask_BD[:, None, :]
    larger = (scores_BD[:, None, :] > scores_BD[:, :, None]) & valid
    equal = (scores_BD[:, None, :] == scores_BD[:, :, None]) & valid
    if ties == "ordinal":
        positions = torch.arange(scores_BD.shape[1], device=scores_BD.device)
        earlier = positions[None, :] < positions[:, None]
        result = 1.0 + larger.sum(2) + (equal & earlier).sum(2)
    else:
        result = larger.sum(2) + (equal.sum(2) + 1.0) / 2.0
    return result.to(scores_BD.dtype).masked_fill(~mask_BD, 1.0)


def repair_positive(teacher_BD: Tensor, mask_BD: Tensor) -> Tensor:
    """Returns scores in which a positive below the highest is raised to 0.8·s + 0.2·max.

    This changes the teacher's scores, as the Reinforced-IR recipe does.
    """
    highest_B = teacher_BD.masked_fill(~mask_BD, -torch.inf).amax(1)
    first_B = teacher_BD[:, 0]
    repaired = teacher_BD.clone()
    repaired[:, 0] = torch.where(first_B < highest_B, 0.8 * first_B + 0.2 * highest_B, first_B)
    return repaired
