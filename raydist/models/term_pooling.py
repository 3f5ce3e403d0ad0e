"""Weights of a vocabulary's terms, out of a language model's logits that never exist as a whole.

A text's weight for a term is the largest over its tokens (or the sum) of log(1 + max(logit, 0)):
SPLADE (Formal et al. 2021, https://arxiv.org/abs/2109.10086). A batch's logits [B, T, V] would be
gigabytes, so they are computed for a block of terms at a time and pooled at once, in the forward
and in the backward pass. The largest logit alone has a gradient, so that the backward pass of `max`
multiplies sparse matrices: at most one entry for a text and a term.

Shapes: B texts, T tokens, H the width of a token's vector, V terms, C terms of a block.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raydist.models.spec import Saturation

BLOCK_LOGITS = 1 << 22
"""Logits held at a time on a CPU (16 MiB in float32), 16 times as many elsewhere."""


with warnings.catch_warnings():  # that such matrices are new, which torch says once a process
    warnings.simplefilter("ignore", UserWarning)
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)


@dataclass(frozen=True, slots=True)
class TermPooling:
    """How the logits of a text's tokens become weights of terms."""

    pooling: Literal["max", "sum"] = "max"
    saturation: Saturation = "log1p"

    def of_logits(self, logits_BTV: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Returns the weights [B, V] of logits, in float32 (float64 for float64)."""
        logits_BTV = logits_BTV.to(_exact(logits_BTV))
        if self.pooling == "max":
            return self.saturated(_hidden_out(logits_BTV, mask_BT).amax(1).clamp(min=0))
        weights_BTV = self.saturated(logits_BTV.clamp(min=0))
        if mask_BT is not None:
            weights_BTV = weights_BTV * mask_BT[:, :, None]
        return weights_BTV.sum(1)

    def saturated(self, values: Tensor) -> Tensor:
        """Returns the weights of logits that are not negative."""
        once = values.log1p()
        return once if self.saturation == "log1p" else once.log1p()

    def slope(self, weights: Tensor) -> Tensor:
        """Returns the derivative by the logit at these weights; 0 where the weight is 0."""
        slope = (-weights).exp()
        if self.saturation == "log1p_twice":
            slope = slope * (-weights.expm1()).exp()
        return slope * (weights > 0)


class TermDecoder(nn.Linear):
    """A language model's last layer, from token vectors to logits, that pools what it computes.

    Without `pooling` it returns the token vectors as they are, so that a model's own forward ends
    with them.
    """

    def forward(
        self, hidden_BTH: Tensor, pooling: TermPooling | None = None, mask_BT: Tensor | None = None
    ) -> Tensor:
        """Returns weights [B, V] in float32 (float64 for float64), or without pooling the input.

        Args:
            hidden_BTH: vectors of tokens.
            pooling: of the logits.
            mask_BT: 1 where a token is real; None where nothing is padded.
        """
        if pooling is None:
            return hidden_BTH
        device = hidden_BTH.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        with torch.autocast(device, enabled=False):
            return _Pool.apply(  # type: ignore[no-any-return, no-untyped-call]
                hidden_BTH, self.weight, self.bias, mask_BT, pooling, half
            )


def heaviest(weights_BV: Tensor, terms: int) -> Tensor:
    """Returns the weights with all but the largest `terms` of each text set to 0."""
    if terms >= weights_BV.shape[1]:
        return weights_BV
    values_Bk, at_Bk = weights_BV.topk(terms, dim=1)
    return torch.zeros_like(weights_BV).scatter_(1, at_Bk, values_Bk)


def pools_blocks(decoder: Any) -> bool:
    """Makes a language model's last layer a `TermDecoder`, in place; returns whether it can be."""
    if type(decoder) is nn.Linear:
        decoder.__class__ = TermDecoder
    return isinstance(decoder, TermDecoder)


class _Pool(torch.autograd.Function):
    """The weights [B, V] of token vectors; the backward pass keeps one position for each weight."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_BTH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        mask_BT: Tensor | None,
        pooling: TermPooling,
        half: torch.dtype | None,
    ) -> Tensor:
        rows, length, _ = hidden_BTH.shape
        terms = weight_VH.shape[0]
        out_BV = hidden_BTH.new_empty((rows, terms), dtype=_exact(hidden_BTH))
        largest = pooling.pooling == "max"
        index = torch.int16 if length <= torch.iinfo(torch.int16).max else torch.int32
        at_BV = out_BV.new_empty(out_BV.shape if largest else (0, 0), dtype=index)
        for part in _blocks(hidden_BTH, terms):
            logits_BTC = _logits(hidden_BTH, weight_VH, bias_V, part, half)
            if largest:
                best_BC, where_BC = _hidden_out(logits_BTC, mask_BT).max(1)
                out_BV[:, part] = pooling.saturated(best_BC.to(out_BV.dtype).clamp_(min=0))
                at_BV[:, part] = where_BC
            else:
                out_BV[:, part] = pooling.of_logits(logits_BTC, mask_BT)
        ctx.save_for_backward(hidden_BTH, weight_VH, bias_V, mask_BT, out_BV, at_BV)
        ctx.arguments = (pooling, half)
        return out_BV

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_BTH, weight_VH, bias_V, mask_BT, out_BV, at_BV = ctx.saved_tensors
        pooling, half = ctx.arguments
        (gradient_BV,) = gradients
        exact = out_BV.dtype
        tokens_nH = hidden_BTH.flatten(0, 1).to(exact)
        to_hidden = torch.zeros_like(tokens_nH)
        to_weight = torch.zeros_like(weight_VH, dtype=exact)
        to_bias = None if bias_V is None else torch.zeros_like(bias_V, dtype=exact)
        for part in _blocks(hidden_BTH, weight_VH.shape[0]):
            rows_CH = weight_VH[part].to(exact)
            if pooling.pooling == "max":
                slope_BC = gradient_BV[:, part] * pooling.slope(out_BV[:, part])
                shares = _at_positions(slope_BC, at_BV[:, part], hidden_BTH.shape[1])
                if to_bias is not None:
                    to_bias[part] = slope_BC.sum(0)
            else:
                logits_BTC = _logits(hidden_BTH, weight_VH, bias_V, part, half).to(exact)
                weights_BTC = pooling.saturated(logits_BTC.clamp_(min=0))
                slope_BTC = gradient_BV[:, None, part] * pooling.slope(weights_BTC)
                if mask_BT is not None:
                    slope_BTC = slope_BTC * mask_BT[:, :, None]
                shares = slope_BTC.flatten(0, 1), slope_BTC.flatten(0, 1).T
                if to_bias is not None:
                    to_bias[part] = slope_BTC.sum((0, 1))
            to_hidden += shares[0] @ rows_CH
            to_weight[part] = shares[1] @ tokens_nH
        return (
            to_hidden.view_as(hidden_BTH).to(hidden_BTH.dtype),
            to_weight.to(weight_VH.dtype),
            None if to_bias is None or bias_V is None else to_bias.to(bias_V.dtype),
            *(None, None, None),
        )


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _blocks(hidden_BTH: Tensor, terms: int) -> list[slice]:
    """Returns the terms whose logits are held together."""
    held = BLOCK_LOGITS * (1 if hidden_BTH.device.type == "cpu" else 16)
    size = max(1, held // max(1, hidden_BTH.shape[0] * hidden_BTH.shape[1]))
    return [slice(start, min(start + size, terms)) for start in range(0, terms, size)]


def _logits(
    hidden_BTH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    part: slice,
    half: torch.dtype | None,
) -> Tensor:
    rows_CH, bias_C = weight_VH[part], None if bias_V is None else bias_V[part]
    dtype = half or rows_CH.dtype
    bias_C = None if bias_C is None else bias_C.to(dtype)
    return F.linear(hidden_BTH.to(dtype), rows_CH.to(dtype), bias_C)


def _hidden_out(logits_BTC: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Returns the logits, minus infinity at padding."""
    if mask_BT is None:
        return logits_BTC
    return logits_BTC.masked_fill(mask_BT[:, :, None] == 0, -torch.inf)


def _at_positions(slope_BC: Tensor, at_BC: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Returns the gradient of the logits [B·T, C], and the same transposed.

    They are sparse on a CPU. An accelerator would wait for their number of entries.
    """
    rows, terms = slope_BC.shape
    token_BC = at_BC.long() + length * torch.arange(rows, device=at_BC.device)[:, None]
    if slope_BC.device.type != "cpu":
        dense = _dense_positions(slope_BC, token_BC, rows * length)
        return dense, dense.T
    term_e, row_e = slope_BC.T.nonzero(as_tuple=True)
    value_e, token_e = slope_BC[row_e, term_e], token_BC[row_e, term_e]
    by_term = _csr(term_e, token_e, value_e, (terms, rows * length))
    order = token_e.argsort(stable=True)
    by_token = _csr(token_e[order], term_e[order], value_e[order], (rows * length, terms))
    return by_token, by_term


def _dense_positions(slope_BC: Tensor, token_BC: Tensor, tokens: int) -> Tensor:
    return slope_BC.new_zeros((tokens, slope_BC.shape[1])).scatter_(0, token_BC, slope_BC)


def _csr(row_e: Tensor, column_e: Tensor, value_e: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns a sparse matrix of entries in the order of their rows."""
    ends = F.pad(torch.bincount(row_e, minlength=size[0]).cumsum(0), (1, 0))
    return torch.sparse_csr_tensor(ends, column_e, value_e, size, check_invariants=False)
