"""Pooling: one vector per text out of one vector per token.

Shapes: B texts, T tokens (padded), D dimensions.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Pooling = Literal["cls", "mean", "last_token"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def pool(hidden_BTD: Tensor, mask_BT: Tensor | None, pooling: Pooling) -> Tensor:
    """Returns the pooled vectors [B, D] in float32 (float64 for float64 input).

    Right under padding on either side: `cls` is the first attended token and `last_token` the last.

    Args:
        hidden_BTD: the backbone's last hidden state, in any floating dtype.
        mask_BT: 1 where a token is real; None where nothing is padded.
        pooling: `cls`, `mean` or `last_token`.
    """
    exact = torch.promote_types(hidden_BTD.dtype, torch.float32)
    if pooling == "mean":
        if mask_BT is None:
            return hidden_BTD.mean(dim=1, dtype=exact)
        weights_BT = mask_BT.to(exact)
        sums_BD = (hidden_BTD.to(exact) * weights_BT.unsqueeze(-1)).sum(dim=1)
        return sums_BD / weights_BT.sum(dim=1, keepdim=True).clamp(min=1)
    if pooling not in POOLINGS:
        raise ValueError(f"pooling: {pooling!r}: expected one of {', '.join(POOLINGS)}")
    if mask_BT is None:
        return hidden_BTD[:, 0 if pooling == "cls" else -1].to(exact)
    real_BT = mask_BT.to(torch.int32)
    if pooling == "cls":
        position_B = real_BT.argmax(dim=1)
    else:
        position_B = real_BT.shape[1] - 1 - real_BT.flip(1).argmax(dim=1)
    rows_B = torch.arange(hidden_BTD.shape[0], device=hidden_BTD.device)
    return hidden_BTD[rows_B, position_B].to(exact)
