"""What can be set of a bag-of-words index: how it is built, merged and searched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from raydist.bow.feedback.spec import Feedback
from raydist.spec import ADDED, EXECUTION, Bytes, FromText
from raydist.text.spec import AnalyzerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSpec:
    """How a bag-of-words index is built."""

    analyzer: AnalyzerSpec = field(default_factory=AnalyzerSpec)
    """How text becomes terms."""
    max_docs: Annotated[int, Ge(0)] = 0
    """Index only the first documents; 0 indexes all."""
    merge: bool = True
    """Merge into one segment; false leaves one per split, or more if a split fills the memory."""
    compress: bool = True
    """Bit-packed postings; false writes plain arrays."""
    block_size: Annotated[int, Ge(8), Le(4096)] = 128
    """Postings per block, the unit that a search can skip."""
    positions: Annotated[bool, ADDED] = False
    """Store the positions of terms, for phrases."""
    fields: Annotated[tuple[str, ...], ADDED] = ()
    """Texts of a document that are indexed each by itself, with its own statistics, for a search
    with weights: `title`, `text` and columns (corpus.columns) of strings; else title and text are
    one."""
    store: bool = True
    """Store the texts, for snippets, reranking and training."""
    forward: Annotated[bool, ADDED] = False
    """Keep each document's terms, for feedback and for looking at documents without their texts."""
    reorder: Annotated[bool, ADDED] = False
    """Put similar documents side by side in the postings; the build takes longer. Results stay the
    same, to the bit and in the order of ties."""
    split_bytes: Bytes = 32 << 20
    """Size of a split of the corpus, the unit of work and of restart."""
    duplicates: Annotated[Literal["error", "first", "last", "warn"], EXECUTION] = "error"
    """Documents of one id: an error, or the first or the last of them stays; warn is first with a
    warning. With --append, `last` replaces the documents that the index has."""
    auto_merge: Annotated[bool, EXECUTION] = True
    """Merge the last segments after --append where there are more than ten of them."""
    batch_size: Annotated[int, Ge(1), EXECUTION] = 10_000
    """Documents analysed at once."""
    memory_per_worker: Annotated[Bytes, EXECUTION] = 1 << 30
    """Memory of a worker for documents and postings; its programs take about 300 MB more."""
    workers: Annotated[int, Ge(0), EXECUTION] = 0
    """Ray actors; 0 works in this process, without Ray."""
    cpus_per_worker: Annotated[float, Gt(0), EXECUTION] = 1.0
    """CPUs of an actor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSpec:
    """How the segments of an index are merged."""

    segments: Annotated[int, Ge(1)] = 1
    """How many segments there are afterwards, of about the same number of tokens (or vectors)."""
    memory_per_worker: Annotated[Bytes, EXECUTION] = 1 << 30
    """Memory of a worker for postings; its programs take about 300 MB more."""
    workers: Annotated[int, Ge(0), EXECUTION] = 0
    """Ray actors; 0 works in this process, without Ray."""
    cpus_per_worker: Annotated[float, Gt(0), EXECUTION] = 1.0
    """CPUs of an actor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdm:
    """The sequential dependence model (Metzler and Croft, SIGIR 2005) as in Anserini."""

    tw: Annotated[float, Ge(0), Le(1000)] = 0.85
    """Weight of the terms."""
    ow: Annotated[float, Ge(0), Le(1000)] = 0.1
    """Weight of neighbouring terms in their order, with at most a word between them."""
    uw: Annotated[float, Ge(0), Le(1000)] = 0.05
    """Weight of neighbouring terms in any order, with at most eight words between them."""


def _sdm_from_text(text: str) -> Any:
    values: dict[str, Any] = {"true": {}, "false": None}
    if text.strip().lower() not in values:
        raise ValueError("expected true, false or weights (scoring.sdm.tw, ow, uw)")
    return values[text.strip().lower()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bm25:
    """BM25 and its variants; the default is Lucene's, to the last bit."""

    kind: Literal["bm25"] = "bm25"
    variant: Literal["lucene", "robertson", "atire", "bm25+", "bm25l"] = "lucene"
    """Which formula; the names of Kamphuis et al. (2020)."""
    k1: Annotated[float, Ge(0)] = 0.9
    """Saturation of the term frequency."""
    b: Annotated[float, Ge(0), Le(1)] = 0.4
    """Weight of the document's length."""
    delta: Annotated[float, Ge(0)] = 1.0
    """Lower bound's shift (bm25+, bm25l)."""
    lengths: Literal["norm", "exact", "byte"] = "norm"
    """Document lengths: as Lucene rounds them into a byte; exact, as Anserini's -bm25.accurate has
    them; or the byte itself, which that reads from an index that was built without it."""
    query_side: Annotated[bool, ADDED] = False
    """Weigh the query's terms by Lucene's BM25, too, as Anserini's -bm25.querySide does."""
    sdm: Annotated[Sdm | None, FromText(_sdm_from_text), ADDED] = None
    """Score neighbouring words of the query together, too, as Anserini's -sdm does; `true`, or its
    weights. For indexes with positions=true."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bm25F:
    """BM25 of the weighted sums of frequencies and lengths of fields (Robertson et al., 2004).

    For indexes with fields; as Lucene's CombinedFieldQuery, to the last bit.
    """

    kind: Literal["bm25f"] = "bm25f"
    k1: Annotated[float, Ge(0)] = 0.9
    """Saturation of the term frequency."""
    b: Annotated[float, Ge(0), Le(1)] = 0.4
    """Weight of the document's length."""
    field_b: dict[str, Annotated[float, Ge(0), Le(1)]] | None = None
    """Weights of the lengths of fields, each for itself (`scoring.field_b.title=0.3`), as Zaragoza
    et al. (2004) have it; `b` is that of fields that are not named. Lengths are exact then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLikelihood:
    """Query likelihood with smoothing (Zhai and Lafferty, 2004).

    Lucene's, `qld` and `qljm`, has other probabilities: (cf + 1) / (C + 1), not cf / C. Its `qld`
    counts a document's length for the terms that match alone, and no term adds less than 0.
    """

    kind: Literal["ql"] = "ql"
    smoothing: Literal["dirichlet", "jelinek-mercer"] = "dirichlet"
    """How unseen terms get probability."""
    mu: Annotated[float, Gt(0)] = 1000.0
    """Dirichlet prior."""
    weight: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Share of the collection (jelinek-mercer)."""
    lengths: Literal["norm", "exact"] = "norm"
    """Document lengths as Lucene rounds them into a byte, or exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Qld:
    """Query likelihood with Dirichlet smoothing as Lucene computes it."""

    kind: Literal["qld"] = "qld"
    mu: Annotated[float, Gt(0)] = 1000.0
    """Dirichlet prior."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Qljm:
    """Query likelihood with Jelinek-Mercer smoothing as Lucene computes it."""

    kind: Literal["qljm"] = "qljm"
    weight: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Share of the collection, Lucene's lambda."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inl2:
    """Divergence from randomness: In, L, H2 (Amati and van Rijsbergen, 2002), as in Lucene."""

    kind: Literal["inl2"] = "inl2"
    c: Annotated[float, Gt(0)] = 0.1
    """Normalisation of term frequencies by length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spl:
    """The smoothed power law, an information-based model (Clinchant and Gaussier, 2010).

    As Lucene computes it with document frequencies and the normalisation H2.
    """

    kind: Literal["spl"] = "spl"
    c: Annotated[float, Gt(0)] = 0.1
    """Normalisation of term frequencies by length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class F2Exp:
    """The axiomatic F2-EXP (Fang and Zhai, 2005) as Lucene computes it."""

    kind: Literal["f2exp"] = "f2exp"
    s: Annotated[float, Ge(0), Le(1)] = 0.5
    """Weight of the document's length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class F2Log:
    """The axiomatic F2-LOG (Fang and Zhai, 2005) as Lucene computes it."""

    kind: Literal["f2log"] = "f2log"
    s: Annotated[float, Ge(0), Le(1)] = 0.5
    """Weight of the document's length."""


FieldWeights = dict[str, Annotated[float, Gt(0)]]

Scoring = Bm25 | Bm25F | QueryLikelihood | Qld | Qljm | Inl2 | Spl | F2Exp | F2Log


@dataclass(frozen=True, slots=True, kw_only=True)
class BowSearchSpec:
    """How a bag-of-words index is searched."""

    scoring: Scoring = Bm25()
    """Formula for bag-of-words indexes."""
    feedback: Annotated[Feedback | None, ADDED] = None
    """Expansion of queries by the documents that they find first; for bag-of-words indexes."""
    fields: Annotated[FieldWeights | None, ADDED] = None
    """Weights of the fields to search (`fields.title=2 fields.text=1`), for bag-of-words indexes
    that were built with fields; without them, all fields with weight 1."""
    syntax: Annotated[Literal["terms", "lucene"], ADDED] = "terms"
    """How queries are read: as words, or by Lucene's classic syntax (phrases, + - AND OR NOT,
    groups, boosts); phrases need an index with positions=true. For bag-of-words indexes."""
    effort: Annotated[float, Gt(0), Le(1), ADDED] = 1.0
    """For indexes of weighted terms: 1 ranks exactly; with less, which is faster, documents may be
    missed, since bounds leave out the smallest terms of queries."""
    ties: Literal["docid", "external", "anserini"] = "docid"
    """Order of equal scores: input order, by document id, or Anserini's (of rounded scores)."""
    filter: Annotated[str | None, ADDED] = None
    """Search only the documents whose columns pass: `year >= 2020 and source in ['x', 'y']`; for
    indexes and vectors that were made with corpus.columns."""
    sort: Annotated[str | None, ADDED] = None
    """The first documents by a column instead of the best ones: `year`, or `-year` for the largest
    value first; ties by score. Scores in the output then only count the ranks."""
    in_memory: Annotated[bool, EXECUTION] = False
    """Read the index into memory instead of mapping it."""
    threads: Annotated[int, Ge(1), EXECUTION] = 1
    """Threads that search queries in parallel."""

    @property
    def is_structured(self) -> bool:
        """Whether queries become trees."""
        sdm = self.scoring.sdm if isinstance(self.scoring, Bm25) else None
        return self.syntax == "lucene" or sdm is not None
