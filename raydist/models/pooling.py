"""Pooling: one vector per text out of one vector per token.

Shapes: B texts, T tokens (padded), D dimensions.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from raydist.models.spec import Pooling

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def pool(hidden_BTD: Tensor, mask_BT: Tensor | None, pooling: Pooling) -> Tensor:
    """Returns the pooled vectors [B, D] in float32 (float64 for float64 input).

    Right under padding on either side: `cls` is the first attended token, `last_token` the last,
    and `weighted_mean` counts from the first attended token on (its weight is 1, the next one's 2).

    Args:
        hidden_BTD: the backbone's last hidden state, in any floating dtype.
        mask_BT: 1 where a token is real; None where nothing is padded.
        pooling: one of `POOLINGS`; `mean_sqrt_len` divides a sum by the root of the tokens' number.
    """
    exact = torch.promote_types(hidden_BTD.dtype, torch.float32)
    if pooling not in POOLINGS:
        raise ValueError(f"pooling: {pooling!r}: expected one of {', '.join(POOLINGS)}")
    if pooling in ("cls", "last_token"):
        return _one_token(hidden_BTD, mask_BT, first=pooling == "cls").to(exact)
    if pooling == "max":
        if mask_BT is not None:
            hidden_BTD = hidden_BTD.masked_fill(mask_BT.unsqueeze(-1) == 0, float("-inf"))
        return hidden_BTD.amax(dim=1).to(exact)
    if mask_BT is None:
        if pooling == "mean":
            return hidden_BTD.mean(dim=1, dtype=exact)
        mask_BT = torch.ones(hidden_BTD.shape[:2], dtype=torch.int64, device=hidden_BTD.device)
    weights_BT = mask_BT.to(exact)
    if pooling == "weighted_mean":
        weights_BT = weights_BT.cumsum(dim=1) * weights_BT
    sums_BD = (hidden_BTD.to(exact) * weights_BT.unsqueeze(-1)).sum(dim=1)
    total_B1 = weights_BT.sum(dim=1, keepdim=True).clamp(min=1)
    return sums_BD / (total_B1.sqrt() if pooling == "mean_sqrt_len" else total_B1)


def _one_token(hidden_BTD: Tensor, mask_BT: Tensor | None, *, first: bool) -> Tensor:
    if mask_BT is None:
        return hidden_BTD[:, 0 if first else -1]
    real_BT = mask_BT.to(torch.int32)
    if first:
        position_B = real_BT.argmax(dim=1)
    else:
        position_B = real_BT.shape[1] - 1 - real_BT.flip(1).argmax(dim=1)
    rows_B = torch.arange(hidden_BTD.shape[0], device=hidden_BTD.device)
    return hidden_BTD[rows_B, position_B]
