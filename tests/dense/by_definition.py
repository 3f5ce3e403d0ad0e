"""Rankings of documents by their passages, as they are defined."""

from __future__ import annotations

import numpy as np


def documents_by_definition(
    ranking: list[tuple[str, float]], k: int, best: int
) -> list[tuple[str, float]]:
    """Returns the best documents of a whole ranking of passages `DOC#i`; ties by first passage."""
    scores: dict[str, list[float]] = {}
    for passage, score in ranking:
        scores.setdefault(passage.rpartition("#")[0], []).append(score)
    means = [(doc, float(np.float32(np.mean(own[:best])))) for doc, own in scores.items()]
    return sorted(means, key=lambda pair: -pair[1])[:k]
