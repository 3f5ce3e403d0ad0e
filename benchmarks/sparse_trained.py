"""Weights of terms by a trained model, of all texts of the test collections.

The model is that of `jobs/nfcorpus/sparse.yaml`. Documents are those of all collections, one after
the other, and queries as many as are asked for, evenly of all of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.learning import trained
from benchmarks.models import bfloat16_is_fast, contents
from benchmarks.report import SHARED
from benchmarks.sparse_data import Vectors

COLLECTIONS = (
    "biomappings-mesh",
    "cacm",
    "cranfield",
    "msmarco-dl19-judged",
    "nfcorpus",
    "vaswani",
)
_BATCH = 2_000


def vectors(count: int) -> tuple[Iterator[Vectors], Vectors]:
    """Returns the vectors of the documents, in batches, and of `count` queries."""
    from raydist.data.readers import read_queries
    from raydist.models.biencoder import BiEncoder
    from raydist.models.encode import Role, encode_terms

    dtype = "bfloat16" if bfloat16_is_fast() else "float32"
    model = BiEncoder.load(trained("nfcorpus", "sparse"), device="cpu", dtype=dtype)

    def encoded(texts: list[str], role: Role) -> Vectors:
        rows = encode_terms(model, texts, role)
        return Vectors(rows.offsets, rows.terms.astype(np.uint16), rows.weights)

    def batches() -> Iterator[Vectors]:
        texts = [text for name in COLLECTIONS for _, text in contents(name)]
        for first in range(0, len(texts), _BATCH):
            yield encoded(texts[first : first + _BATCH], "document")

    asked = [
        query.text
        for name in COLLECTIONS
        for query in read_queries(SHARED / name / "queries.jsonl")
    ]
    chosen = np.linspace(0, len(asked) - 1, count).astype(int)
    return batches(), encoded([asked[row] for row in chosen], "query")
