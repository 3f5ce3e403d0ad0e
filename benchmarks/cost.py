"""The cost model of building an index and of embedding: from rates to hours on N nodes.

    index   T = A + S / (r W) + (D m + q R s) / W + i N log2 N
    embed   T = A + L / (t W)

A seconds until workers are at work, S bytes of text, W workers, N documents, D postings, L tokens;
s splits, each a run to be merged, and R ranges of terms that are merged by themselves. Rates: r
bytes/s and t tokens/s of a worker, m seconds of a worker per merged posting, q seconds of a worker
for looking into one run for one range, i seconds of the driver per document and doubling (it looks
for duplicate ids). Two terms grow faster than the corpus: N log N, and s R, as
every range looks into every run, which grows with its square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

RANGE = 4 << 20
"""Postings of a range where workers merge; `raydist.bow.build.merge` makes them no larger."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What a corpus is to the model: documents, bytes of its files, postings, tokens, splits."""

    documents: float
    nbytes: float
    postings: float
    tokens: float
    split_bytes: float = 64 << 20

    @property
    def splits(self) -> float:
        """Runs to merge."""
        return max(1.0, self.nbytes / self.split_bytes)

    @property
    def ranges(self) -> float:
        """Ranges of terms, each merged by itself."""
        return max(1.0, self.postings / RANGE)


@dataclass(frozen=True, slots=True)
class Rates:
    """The measured rates; the module explains the letters."""

    start_s: float
    bytes_per_s: float
    merge_s: float
    look_s: float
    ids_log_s: float
    tokens_per_s: float


MS_MARCO_V2 = Collection(
    documents=138_364_198,
    nbytes=138_364_198 * 480,
    postings=138_364_198 * 33,
    tokens=138_364_198 * 78,
)
"""Passages of MS MARCO v2; assumed per passage: 480 bytes of a line with id and text, 33 distinct
terms after stop words and stemming, 78 word pieces (v1 passages have 57 words; v2's are longer)."""


def index_seconds(rates: Rates, corpus: Collection, workers: int) -> dict[str, float]:
    """Returns the seconds of the parts of a build with that many workers, in order."""
    merged = corpus.postings * rates.merge_s
    looked = rates.look_s * corpus.ranges * corpus.splits
    ids = rates.ids_log_s * corpus.documents * math.log2(max(2.0, corpus.documents))
    return {
        "start": rates.start_s,
        "splits": corpus.nbytes / (rates.bytes_per_s * min(workers, corpus.splits)),
        "merge": merged / workers,
        "looking": looked / workers,
        "ids": ids,
    }


def embed_seconds(rates: Rates, corpus: Collection, workers: int) -> dict[str, float]:
    """Returns the seconds of the parts of embedding a corpus with that many workers."""
    return {"start": rates.start_s, "encode": corpus.tokens / (rates.tokens_per_s * workers)}
