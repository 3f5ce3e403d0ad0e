"""Measures that keep weights of terms sparse, for queries and documents apart.

FLOPS (Paria et al. 2020, https://arxiv.org/abs/2004.05665) is Σ_v a_v², where a_v is the mean
weight of term v over the rows of a whole step: what scoring a random pair costs. It is no mean over
rows, so a rank needs the sums of all ranks and accumulation parts. With own sums s, all sums S and
all rows N it returns (2⟨s, S⟩ − ⟨s, S⟩') / N, where S and the primed term have no gradient: over
ranks these add up to N · FLOPS, and their gradients to that of N · FLOPS, with no further exchange.

IDF-FLOPS divides each a_v by the term's idf first, so that rare terms are kept (Geng et al. 2024,
https://arxiv.org/abs/2411.04403); L1 is the mean of Σ_v |w_v|.

Legend: n rows of this rank, V terms.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from raydist.errors import ConfigError
from raydist.losses.gather import SumCount, logits_dtype
from raydist.losses.inputs import LossBatch
from raydist.losses.parts import LossPart, LossTerms
from raydist.losses.spec import Flops

Side = Literal["query", "document"]
SIDES: tuple[Side, ...] = ("query", "document")


def regulariser(spec: Flops) -> LossPart | None:
    """Returns the measures of a specification, None where it has no weight."""
    weights = {side: weight for side in SIDES if (weight := getattr(spec, side))}
    if not weights:
        return None
    return LossPart(
        {f"{spec.kind}_{side}": weight for side, weight in weights.items()},
        partial(_terms, sides=tuple(weights), kind=spec.kind),
        totals=None if spec.kind == "l1" else partial(_sums, sides=tuple(weights)),
        rise=partial(_rise, ramp=spec.ramp),
        sparse=True,
    )


def counted_terms() -> LossPart:
    """Returns how many terms queries and documents have, which is logged and not learned."""
    names = [f"terms_{side}" for side in SIDES]
    return LossPart(dict.fromkeys(names, 0.0), _counts, measures=frozenset(names), sparse=True)


def flops(rows_nV: Tensor, total_V: Tensor, count: Tensor, idf_V: Tensor | None = None) -> SumCount:
    """Returns a rank's share of N · FLOPS, and its number of rows n.

    Args:
        rows_nV: weights of terms.
        total_V: the sum of all rows of all ranks, without a gradient.
        count: N, the number of all rows.
        idf_V: divides the terms' means, or None.
    """
    sum_V = rows_nV.sum(0).to(total_V.dtype)
    if idf_V is not None:
        idf_V = idf_V.to(total_V.dtype)
        sum_V, total_V = sum_V / idf_V, total_V / idf_V
    product = sum_V @ total_V
    share = (2 * product - product.detach()) / count.clamp(min=1)
    return share, share.new_tensor(len(rows_nV))


def _rise(step: int, steps: int, ramp: int | None) -> float:
    """Returns the factor of the weights at a step, the first of which is 0: a parabola, then 1."""
    rising = max(1, steps // 3) if ramp is None else ramp
    return 1.0 if step >= rising else (step / rising) ** 2


def _rows(batch: LossBatch, side: Side) -> Tensor:
    output = batch.embeddings("flops")
    return output.queries_Bd if side == "query" else output.passages_Pd


def _sums(batch: LossBatch, *, sides: tuple[Side, ...]) -> dict[str, Tensor]:
    """Returns the sum of the rows of each side, and behind it their number."""
    return {
        side: torch.cat([rows.sum(0).to(logits_dtype(rows)), rows.new_tensor([len(rows)])])
        for side in sides
        for rows in [_rows(batch, side).detach()]
    }


def _terms(batch: LossBatch, *, sides: tuple[Side, ...], kind: str) -> LossTerms:
    terms: LossTerms = {}
    for side in sides:
        rows_nV = _rows(batch, side)
        if batch.counting or kind == "l1":
            exact = rows_nV.to(logits_dtype(rows_nV))
            terms[f"{kind}_{side}"] = (exact.abs().sum(), exact.new_tensor(len(exact)))
            continue
        total = batch.total(side, partial(_sums, batch, sides=(side,)))
        terms[f"{kind}_{side}"] = flops(rows_nV, total[:-1], total[-1], _idf(batch, kind))
    return terms


def _idf(batch: LossBatch, kind: str) -> Tensor | None:
    """Returns what divides terms' means: an idf below 1, as of stop words, counts as 1."""
    if kind != "idf_flops":
        return None
    table_V = batch.embeddings(kind).table_V
    if table_V is None:
        raise ConfigError(
            "loss.flops.kind=idf_flops: takes the idf of terms from the table of queries' "
            "weights, which this model lacks (model.query_encoder=fixed model.query_weights=FILE)"
        )
    return table_V.clamp(min=1.0)


def _counts(batch: LossBatch) -> LossTerms:
    terms: LossTerms = {}
    for side in SIDES:
        rows_nV = _rows(batch, side).detach()
        exact = logits_dtype(rows_nV)
        count = torch.tensor(len(rows_nV), dtype=exact, device=rows_nV.device)
        terms[f"terms_{side}"] = ((rows_nV != 0).sum().to(exact), count)
    return terms
