"""Nested (Matryoshka) embeddings: the same losses on several prefixes of the vectors.

Kusupati et al., Matryoshka Representation Learning, 2022: the prefixes' losses are averaged, so
that the first dimensions alone already make a good embedding.

Legend: B queries, P documents, d the embedding's width, m a prefix of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor
from torch.nn import functional as F

from raydist.losses.inputs import Embeddings, LossBatch
from raydist.losses.objective import Objective
from raydist.losses.parts import LossPart, LossTerms


def nested(
    objective: Objective, dimensions: Sequence[int], *, width: int, normalize: bool
) -> Objective:
    """Returns the objective averaged over prefixes and the whole vector.

    Terms about whole vectors alone (the norm of answers) stay as they are.

    The whole vector's term keeps its name, such as `infonce`; a prefix's is called `infonce@64`.

    Args:
        objective: for a bi-encoder.
        dimensions: the lengths of the prefixes.
        width: d, added to them if missing.
        normalize: whether the model gives unit vectors; prefixes are then scaled to unit length.
    """
    lengths = sorted({*dimensions, width}, reverse=True)
    share = 1.0 / len(lengths)
    parts = []
    for part in objective.parts:
        for m in lengths:
            if m == width:
                shares = {n: w if n in part.whole else w * share for n, w in part.weights.items()}
                parts.append(replace(part, weights=shares))
                continue
            suffix = f"@{m}"
            names = part.weights.keys() - part.whole
            weights = {f"{n}{suffix}": w * share for n, w in part.weights.items() if n in names}
            compute = partial(_prefix_terms, part=part, m=m, suffix=suffix, normalize=normalize)
            parts.append(replace(part, weights=weights, compute=compute, whole=frozenset()))
    return Objective(tuple(parts))


def _prefix_terms(
    batch: LossBatch, *, part: LossPart, m: int, suffix: str, normalize: bool
) -> LossTerms:
    whole = batch.embeddings("nested")
    cut = partial(_prefix, m=m, normalize=normalize)
    answers = None if whole.answers is None else cut(whole.answers)
    output = Embeddings(cut(whole.queries_Bd), cut(whole.passages_Pd), answers)
    terms = part.compute(LossBatch(output, batch.supervision))
    return {f"{name}{suffix}": term for name, term in terms.items() if name not in part.whole}


def _prefix(vectors: Tensor, m: int, normalize: bool) -> Tensor:
    short = vectors[:, :m]
    return F.normalize(short, dim=-1) if normalize else short
