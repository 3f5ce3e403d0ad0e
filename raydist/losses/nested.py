"""Nested (Matryoshka) embeddings: the same losses on several prefixes of the vectors.

Kusupati et al., Matryoshka Representation Learning, 2022: the prefixes' losses are averaged, so
that the first dimensions alone already make a good embedding.

Legend: B queries, P documents, d the embedding's width, m a prefix of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor
from torch.nn import functional as F

from raydist.losses.inputs import Embeddings, Forward
from raydist.losses.objective import Objective
from raydist.losses.parts import Part, Terms


def nested(
    objective: Objective, dimensions: Sequence[int], *, width: int, normalize: bool
) -> Objective:
    """Returns the objective averaged over prefixes and the whole vector.

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
            suffix = "" if m == width else f"@{m}"
            weights = {f"{name}{suffix}": w * share for name, w in part.weights.items()}
            compute = part.compute
            if suffix:
                compute = partial(_prefix_terms, part=part, m=m, suffix=suffix, normalize=normalize)
            parts.append(Part(weights, compute, part.answers))
    return Objective(tuple(parts))


def _prefix_terms(batch: Forward, *, part: Part, m: int, suffix: str, normalize: bool) -> Terms:
    whole = batch.embeddings("nested")
    cut = partial(_prefix, m=m, normalize=normalize)
    answers = None if whole.answers is None else cut(whole.answers)
    output = Embeddings(cut(whole.queries_Bd), cut(whole.passages_Pd), answers)
    terms = part.compute(Forward(output, batch.targets))
    return {f"{name}{suffix}": term for name, term in terms.items()}


def _prefix(vectors: Tensor, m: int, normalize: bool) -> Tensor:
    short = vectors[:, :m]
    return F.normalize(short, dim=-1) if normalize else short
