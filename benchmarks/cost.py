"""The cost model of building an index and of embedding: from rates to hours on N nodes.

    python -m benchmarks.cost      # 10^9 passages on 64 nodes, from the last records

    index   T = A + S / (r W) + (D m + q R s) / W + i N log2 N
    embed   T = A + L / (t W)

A seconds until workers are at work, S bytes of text, W workers, N documents, D postings, L tokens;
s splits, each a run to be merged, and R ranges of terms that are merged by themselves. Rates: r
bytes/s and t tokens/s of a worker, m seconds of a worker per merged posting, q seconds of a worker
for looking into one run for one range, i seconds of the driver per document and doubling (it looks
for duplicate ids). Two terms grow faster than the corpus: N log N, and s R, as
every range looks into every run, which grows with its square.

A search asks all nodes, each of which has its share of the documents; it takes a thread of each in
proportion to them. `docs/how-to/cluster.md` shows the tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from benchmarks.report import markdown, recorded

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


@dataclass(frozen=True, slots=True)
class Search:
    """What searching was measured to take, in one thread.

    Attributes:
        bytes_per_posting: of an index without texts, dictionary included.
        text_s: of a query, by how many documents it asks for, per document of the index.
        vector_s: of a query alone, per vector; int8, rescored from a finer form.
        vector_batch_s: of a query in a batch, per vector.
        driver_s: seconds of the driver for a build of 10^9 documents, predicted from fewer.
        driver_mb: its peak for 10^7 and for 10^8 ids.
    """

    bytes_per_posting: float
    text_s: dict[int, float]
    vector_s: float
    vector_batch_s: float
    driver_s: float
    driver_mb: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Nodes:
    """What is rented: assumed."""

    count: int = 64
    workers: int = 16
    dollars_per_hour: float = 1.61
    round_s: float = 0.001
    dimension: int = 384


BILLION = Collection(
    documents=1e9,
    nbytes=1e9 * 480,
    postings=1e9 * 33,
    tokens=1e9 * 78,
)
"""Passages as those of MS MARCO v2, but more of them."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a kind of index costs on all nodes.

    Attributes:
        build_h: hours until it can be searched.
        build_dollars: of all nodes for that time.
        node_gb: what a node holds in memory to answer without reading a disk.
        disk_gb: what a node reads of its disk for some documents alone.
        latency_ms: of a query that has all nodes for itself.
        queries_per_s: of all nodes, each of which works on every query.
        dollars_per_million: of queries, at that rate.
    """

    build_h: float
    build_dollars: float
    node_gb: float
    disk_gb: float
    latency_ms: float
    queries_per_s: float
    dollars_per_million: float


def estimates(rates: Rates, search: Search, corpus: Collection, nodes: Nodes) -> list[Estimate]:
    """Returns what text (k = 10, k = 1000) and vectors cost on nodes that share a corpus."""
    workers, own = nodes.count * nodes.workers, corpus.documents / nodes.count
    build = index_seconds(rates, corpus, workers) | {"ids": search.driver_s}
    text_gb = corpus.postings * search.bytes_per_posting / nodes.count / 1e9
    kinds = []
    for seconds in search.text_s.values():
        one = seconds * own  # a query has one thread of each node, and asks them twice
        latency, rate = one + 2 * nodes.round_s, nodes.workers / one
        kinds.append(_estimate(sum(build.values()), text_gb, 0.0, latency, rate, nodes))
    embed = embed_seconds(rates, corpus, workers)
    gb = own * (nodes.dimension + 4) / 1e9  # a byte a dimension, and a scale
    latency = search.vector_s * own / nodes.workers + nodes.round_s
    rate = nodes.workers / (search.vector_batch_s * own)
    fine = own * 2 * nodes.dimension / 1e9
    kinds.append(_estimate(sum(embed.values()), gb, fine, latency, rate, nodes))
    return kinds


def _estimate(
    build_s: float, gb: float, disk_gb: float, latency_s: float, rate: float, nodes: Nodes
) -> Estimate:
    hourly = nodes.count * nodes.dollars_per_hour
    return Estimate(
        build_h=build_s / 3600,
        build_dollars=build_s / 3600 * hourly,
        node_gb=gb,
        disk_gb=disk_gb,
        latency_ms=latency_s * 1e3,
        queries_per_s=rate,
        dollars_per_million=1e6 / rate / 3600 * hourly,
    )


def measured() -> tuple[Rates, Search]:
    """Returns the rates of the last records of `scaling`, `bow` and `vectors`."""
    figures, _ = recorded("scaling")
    bow, about = recorded("bow")
    vectors, rows = recorded("vectors")
    scaling: dict[str, Any] = dict(figures)
    rates = Rates(
        start_s=max(scaling["index_2_workers_start_s"], scaling["embed_2_workers_start_s"]),
        bytes_per_s=scaling["index_bytes_per_s"],
        merge_s=scaling["merge_ns_per_posting"] / 1e9,
        look_s=scaling["look_ms_per_range_and_run"] / 1e3,
        ids_log_s=scaling["ids_s_per_million"] / 1e6 / math.log2(scaling["documents"]),
        tokens_per_s=scaling["embed_tokens_per_s"],
    )
    own = next(row for row in about["table"] if row["engine"] == "raydist")
    number = rows["rows"]
    return rates, Search(
        bytes_per_posting=(bow["size_mb"] or math.nan) * 1e6 / scaling["postings"],
        text_s={k: own[f"ms k={k}"] / 1e3 / about["documents"] for k in (10, 1000)},
        vector_s=1 / (vectors["int8_rescored_single_qps"] or math.nan) / number,
        vector_batch_s=1 / (vectors["int8_rescored_batch_qps"] or math.nan) / number,
        driver_s=scaling["driver_ids_1e9_s_predicted"],
        driver_mb=(scaling["driver_ids_1e7_peak_mb"], scaling["driver_ids_1e8_peak_mb"]),
    )


def tables(corpus: Collection = BILLION, nodes: Nodes = Nodes()) -> str:
    """Returns three tables in Markdown: what it costs, what was measured, what is assumed."""
    rates, search = measured()
    kinds = estimates(rates, search, corpus, nodes)
    few, many = search.driver_mb
    driver = many + (many - few) / 9e7 * (corpus.documents - 1e8)
    names = ["BM25, k = 10", "BM25, k = 1000", "vectors, int8 rescored"]
    cost = [
        [
            name,
            f"{each.build_h:.2g} h",
            f"${each.build_dollars:,.0f}",
            f"{each.node_gb:.2g} GB",
            f"{_rounded(each.latency_ms)} ms",
            f"{_rounded(each.queries_per_s)}/s",
            f"${each.dollars_per_million:,.2g}"
            if each.dollars_per_million < 10
            else f"${each.dollars_per_million:,.0f}",
        ]
        for name, each in zip(names, kinds)
    ]
    known = [
        ["bytes of text that a worker indexes in a second", f"{rates.bytes_per_s / 1e6:.0f} MB"],
        ["merging a posting", f"{rates.merge_s * 1e9:.0f} ns"],
        ["looking into a run for a range of terms", f"{rates.look_s * 1e3:.1f} ms"],
        ["the driver's work for 10^9 ids, from 10^7 and 10^8", f"{search.driver_s / 60:.0f} min"],
        ["the driver's peak of memory, likewise", f"{driver / 1e3:.2g} GB"],
        ["word pieces that a thread embeds in a second (MiniLM)", f"{rates.tokens_per_s:,.0f}"],
        ["an index, a posting", f"{search.bytes_per_posting:.2g} bytes"],
        *(
            [f"BM25, k = {k}, a query and million documents", f"{each * 1e9:.2f} ms"]
            for k, each in search.text_s.items()
        ),
        ["int8, rescored, a query and million vectors", f"{search.vector_s * 1e9:.0f} ms"],
        ["the same in a batch", f"{search.vector_batch_s * 1e9:.0f} ms"],
    ]
    assumed = [
        ["a passage", "480 bytes, 33 distinct terms, 78 word pieces, 384 dimensions"],
        ["the nodes", f"{nodes.count} of {nodes.workers} cores, each as fast as the measured one"],
        ["a node's price", f"${nodes.dollars_per_hour} an hour (32 virtual CPUs on demand)"],
        ["the storage", f"reads {rates.bytes_per_s * nodes.workers / 1e9:.1g} GB/s a node"],
        ["a round of questions to all nodes", f"{nodes.round_s * 1e3:.0f} ms; BM25 asks twice"],
        ["a search", "takes as long as its documents are many; pruned ones take less"],
        ["a single query", "one thread a node for BM25, all of them for vectors"],
    ]
    columns = ["", "build", "costs", "memory of a node", "a query alone", "queries"]
    parts = [([*columns, "a million queries"], cost)]
    parts += [(["measured", "is"], known), (["assumed", "is"], assumed)]
    return "\n\n".join(markdown(*each) for each in parts)


def raylets() -> str:
    """Returns a table in Markdown: what each node and the driver do where nodes are added."""
    figures = recorded("scaling")[0]
    counts = sorted({int(name.split("_")[1]) for name in figures if name.startswith("nodes_")})
    rows = []
    for what in ("index", "embed", "search"):
        for name, label, unit in (
            ("driver_peak_mb", "the driver's peak of memory", "MB"),
            ("driver_network_mb", "the driver's network", "MB"),
            ("network_mb_per_node", "a node's network", "MB"),
            ("node_cpu_s", "a node's CPU", "s"),
        ):
            values = [figures[f"nodes_{count}_{what}_{name}"] for count in counts]
            shown = [f"{value:.3g} {unit}" for value in values]
            rows.append([f"{what}: {label}", *shown])
    return markdown(["", *(f"{count} nodes" for count in counts)], rows)


def _rounded(value: float) -> str:
    return f"{float(f'{value:.2g}'):,g}"


if __name__ == "__main__":
    print(tables())
