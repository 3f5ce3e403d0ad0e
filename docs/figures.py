"""Draws the pictures of the pages from `benchmarks/results`: `python -m docs.figures [FOLDER]`.

The site draws them anew whenever it is built. Text takes the colour of the page around it, so one
file is readable in the light theme and in the dark one.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docs.architecture import architecture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks/results"
IMAGES = Path(__file__).parent / "images"

_INK = "#010203"
"""Drawn by matplotlib, replaced by the page's own colour."""

OURS, OTHERS = "#0b9e8e", ("#e07b39", "#5b8def", "#a76bcf", "#8a8f98")

Record = Mapping[str, Any]

_KINDS = {
    "bm25": ("BM25", OTHERS[3]),
    "ql": ("query likelihood", OTHERS[3]),
    "dense": ("dense", OTHERS[1]),
    "dense_int8": ("dense, int8", OTHERS[1]),
    "dense_binary": ("dense, binary", OTHERS[1]),
    "dense_hnsw": ("dense, HNSW", OTHERS[2]),
    "dense_ivf_pq": ("dense, IVF-PQ", OTHERS[2]),
    "hybrid_rrf": ("hybrid, RRF", OURS),
    "hybrid_weighted": ("hybrid, weighted", OURS),
    "bm25_reranked": ("BM25, first 100 reranked", OTHERS[0]),
}
"""Kinds of search: name and colour."""

_LEARNED = {
    "bm25": ("BM25", OTHERS[3]),
    "dense": ("dense", OTHERS[1]),
    "sparse start": ("sparse, untrained", OTHERS[2]),
    "sparse trained": ("sparse", OTHERS[2]),
    "multivector start": ("multi-vector, untrained", OTHERS[0]),
    "multivector trained": ("multi-vector", OTHERS[0]),
    "bm25+dense": ("BM25 + dense", OURS),
    "bm25+sparse": ("BM25 + sparse", OURS),
    "bm25+multivector": ("BM25 + multi-vector", OURS),
    "bm25+dense+sparse+multivector": ("all four", OURS),
}
"""The same of `benchmarks.learning`; fusions are by ranks (RRF)."""


def record(name: str) -> Record:
    """Returns what a benchmark has recorded."""
    content: Record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def index(figure: Figure) -> None:
    """One million passages: the costs of the index and of a query, by engine."""
    rows = record("bow")["notes"]["table"]
    proper = {"lucene": "Lucene", "pisa": "PISA"}
    names = [proper.get(row["engine"], row["engine"]) for row in rows]
    build, size, search = figure.subplots(1, 3, width_ratios=[1, 1, 1.5])
    _bars(build, names, [row["build CPU s"] for row in rows], "build, CPU seconds")
    _bars(size, names, [row["disk MB"] for row in rows], "index, MB")
    size.set_yticklabels([])
    for at, (row, color) in enumerate(zip(rows, (OURS, *OTHERS))):
        values = [row[f"ms k={k}"] for k in (10, 100, 1000)]
        search.plot([10, 100, 1000], values, "o-", color=color, label=names[at], lw=2.5 - (at > 0))
    search.set(xscale="log", ylim=(0, 3.9))
    search.set_xticks([10, 100, 1000], ["k = 10", "100", "1000"])
    search.minorticks_off()
    search.set_title("query, CPU milliseconds", loc="left")
    search.legend(frameon=False, labelcolor=_INK, ncols=2, loc="upper left")


def quality(figure: Figure) -> None:
    """nDCG@10 of kinds of retrieval on small collections."""
    figures = record("embedding")["figures"]
    collections = {"cacm": "CACM", "vaswani": "Vaswani", "nfcorpus": "NFCorpus"}
    kinds = {"bm25": "BM25", "dense": "dense (MiniLM)", "hybrid": "hybrid (RRF)"}
    groups = {
        label: [figures[f"ndcg10_{name}_{kind}"] for kind in kinds]
        for name, label in collections.items()
    }
    first, second = figure.subplots(1, 2, width_ratios=[1.6, 1])
    _grouped(first, groups, list(kinds.values()), "nDCG@10", [OTHERS[3], OTHERS[1], OURS])
    first.set_ylim(0, 0.72)
    trained = record("reranking")["figures"]
    steps = {
        "BM25": trained["dl19_ndcg10_bm25"],
        "trained on pairs": trained["dl19_ndcg10_stage1"],
        "distilled, ADR-MSE": trained["dl19_ndcg10_adr_mse"],
    }
    _bars(second, list(steps), list(steps.values()), "DL19, nDCG@10", digits=3, last_is_ours=True)


def retrieval(figure: Figure) -> None:
    """Quality against latency of every kind of search; a mark's area is its size on the disk."""
    figures = record("retrieval")["figures"]
    rows = {
        label: (color, *(figures[f"{name}_{unit}"] for unit in ("ndcg10", "ms", "mb")))
        for name, (label, color) in _KINDS.items()
    }
    _ways(figure, rows)


def learned(figure: Figure) -> None:
    """The same of learned sparse and multi-vector search, before and after training."""
    figures = record("learning")["figures"]
    rows, intervals = {}, {}
    for name, (label, color) in _LEARNED.items():
        kind, _, state = name.partition(" ")
        end = f"nfcorpus_{state}".rstrip("_")
        if f"{kind}_ndcg10_{end}" not in figures:
            continue  # not trained yet
        units = (figures[f"{kind}_{unit}_{end}"] for unit in ("ndcg10", "ms", "mb"))
        rows[label] = (color, *units)
        intervals[label] = tuple(figures[f"{kind}_ndcg10_{end}_{side}"] for side in ("low", "high"))
    _ways(figure, rows, intervals)


def _ways(
    figure: Figure,
    rows: Mapping[str, tuple[Any, ...]],
    intervals: Mapping[str, tuple[Any, ...]] | None = None,
) -> None:
    """Draws ways of search, each with its colour, nDCG@10, milliseconds and MB."""
    axes, names = figure.subplots(1, 2, width_ratios=[1.7, 1])
    best_first = sorted(rows, key=lambda label: -rows[label][1])
    for at, label in enumerate(best_first):
        color, ndcg, ms, mb = rows[label]
        if intervals:
            axes.plot([ms, ms], intervals[label], color=color, lw=1, alpha=0.6, zorder=1)
        axes.scatter(ms, ndcg, s=40 * mb, color=color, alpha=0.8, lw=0)
        time = f"{ms:,.0f}" if ms >= 10 else f"{ms:.2g}"
        name_and_line = names.annotate(
            f"{label}: {ndcg:.3f}, {time} ms, {mb:.1f} MB",
            (ms, ndcg),
            (0, 1 - (at + 0.5) / len(best_first)),
            xycoords=axes.transData,
            textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.7, "relpos": (0, 0.5)},
        )
        name_and_line.set_in_layout(False)  # it reaches into the other axes
    names.set_axis_off()
    axes.set(xscale="log", xlabel="CPU milliseconds of a query, its encoding counted")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_title("NFCorpus, nDCG@10", loc="left")


def recall(figure: Figure) -> None:
    """The recall that an approximate index states, beside what queries see of it."""
    figures = record("retrieval")["figures"]
    names = {"hnsw": "HNSW, search_effort", "ivf_pq": "IVF-PQ, probes"}
    for axes, (kind, label) in zip(figure.subplots(1, 2), names.items()):
        prefix = f"recall10_{kind}_"
        efforts = sorted(
            int(key.removeprefix(prefix))
            for key in figures
            if key.startswith(prefix) and not key.endswith("_stated")
        )
        stated = [figures[f"{prefix}{effort}_stated"] for effort in efforts]
        measured = [figures[f"{prefix}{effort}"] for effort in efforts]
        axes.plot(efforts, stated, "o--", color=OTHERS[3], label="stated by embed", lw=2)
        axes.plot(efforts, measured, "o-", color=OURS, label="measured with queries", lw=2)
        axes.set(xscale="log")
        axes.set_xticks(efforts, [str(effort) for effort in efforts])
        axes.minorticks_off()
        axes.set_title(f"recall@10 by {label}", loc="left")
        axes.legend(frameon=False, labelcolor=_INK, loc="lower right")


def scaling(figure: Figure) -> None:
    """What workers add on one machine, and what the model predicts for many."""
    figures = record("scaling")["figures"]
    one, many = figure.subplots(1, 2, width_ratios=[1, 1.2])
    names = ["0_workers", "1_worker", "2_workers"]
    start = [figures.get(f"index_{name}_start_s", 0) for name in names]
    splits = [figures[f"index_{name}_splits_s"] for name in names]  # the start is in it
    parts = {
        "start": start,
        "splits": [both - first for both, first in zip(splits, start)],
        "merge": [figures[f"index_{name}_merge_s"] for name in names],
    }
    left = [0.0] * len(names)
    labels = ["no Ray", "1 worker", "2 workers"]
    for (part, values), color in zip(parts.items(), (OTHERS[3], OURS, OTHERS[0])):
        one.barh(labels, values, left=left, label=part, color=color, height=0.6)
        left = [a + b for a, b in zip(left, values)]
    one.invert_yaxis()
    one.set_title("1 M passages indexed, seconds", loc="left")
    one.legend(
        frameon=False, labelcolor=_INK, ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.1)
    )
    nodes = [1, 2, 4, 8, 16]
    for kind, label, color in (("index", "index", OURS), ("embed", "embed, CPUs", OTHERS[0])):
        hours = [figures[f"msmarco_v2_{kind}_h_{n}_nodes"] for n in nodes]
        many.plot(nodes, hours, "o-", color=color, label=label, lw=2)
    many.set(xscale="log", yscale="log")
    many.set_xticks(nodes, [str(n) for n in nodes])
    many.set_yticks([1 / 60, 1 / 6, 1, 10], ["1 min", "10 min", "1 h", "10 h"])
    many.minorticks_off()
    many.set_title("138 M passages, predicted, by nodes of 16 workers", loc="left")
    many.legend(frameon=False, labelcolor=_INK)


def training(figure: Figure) -> None:
    """The memory of a step, the cost of the loop, and what training gains."""
    figures = record("training")["figures"]
    memory, speed, gain = figure.subplots(1, 3, width_ratios=[1.1, 1, 1.2])
    peaks = {
        "raydist, cached": figures["cached_extra_mib"],
        "sentence-transformers, cached": figures["st_peak_mib"],
        "no cache": figures["uncached_extra_mib"],
    }
    names = [name.replace(", ", ",\n") for name in peaks]
    _bars(memory, names, list(peaks.values()), "memory of a step, MiB")
    speeds = {
        "raydist": figures["samples_per_s"],
        "plain torch\nloop": figures["plain_samples_per_s"],
    }
    _bars(speed, list(speeds), list(speeds.values()), "samples per second", digits=1)
    groups = {
        "quickstart,\nfrom nothing": [
            figures["quickstart_ndcg10_start"],
            figures["quickstart_ndcg10_trained"],
        ],
        "NFCorpus,\ndev": [
            figures["nfcorpus_dev_ndcg10_start"],
            figures["nfcorpus_dev_ndcg10_trained"],
        ],
        "NFCorpus,\ntest": [figures["nfcorpus_ndcg10_start"], figures["nfcorpus_ndcg10_trained"]],
    }
    _grouped(gain, groups, ["before", "after"], "nDCG@10", [OTHERS[3], OURS])
    gain.set_ylim(0, 0.56)


def serving(figure: Figure) -> None:
    """The reranking service beside others, under the same load."""
    notes = record("serving")["notes"]["rerank"]
    labels = {
        "raydist": "raydist",
        "infinity_onnx": "infinity, ONNX",
        "infinity_torch": "infinity, torch",
        "fastapi_st": "FastAPI +\nsentence-transformers",
    }
    speed, wait = figure.subplots(1, 2)
    per_s = [notes["settings"]["documents"] * notes["requests_per_s"][name] for name in labels]
    _bars(speed, list(labels.values()), per_s, "pairs per second")
    waits = [notes["p99_ms"][name] / 1000 for name in labels]
    _bars(wait, list(labels.values()), waits, "99th percentile, seconds", digits=1)
    wait.set_yticklabels([])


CHARTS: dict[str, tuple[Callable[[Figure], None], float]] = {
    "index": (index, 2.9),
    "quality": (quality, 2.9),
    "retrieval": (retrieval, 3.8),
    "learned": (learned, 3.8),
    "recall": (recall, 2.6),
    "scaling": (scaling, 2.9),
    "training": (training, 2.9),
    "serving": (serving, 2.4),
}
"""Each picture's function and its height in inches."""


def draw() -> dict[str, str]:
    """Returns every picture as SVG, by its name."""
    return {
        "architecture.svg": _in_both_themes(architecture()),
        **{f"{name}.svg": _chart(name, *chart) for name, chart in CHARTS.items()},
    }


def _chart(name: str, paint: Callable[[Figure], None], height: float) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **{key: _INK for key in ("text.color", "axes.edgecolor", "axes.titlecolor")},
        **{key: _INK for key in ("xtick.color", "ytick.color", "axes.labelcolor")},
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.6, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(id|xlink:href|clip-path)="(#|url\(#)?([^"]+)"', _unique(name), svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return _in_both_themes(svg)


def _unique(name: str) -> Callable[[re.Match[str]], str]:
    """Several pictures on one page must not share ids."""

    def rename(match: re.Match[str]) -> str:
        return f'{match[1]}="{match[2] or ""}{name}-{match[3]}"'

    return rename


def _in_both_themes(svg: str) -> str:
    """Adds the colour for a picture that is shown alone, where no page gives one."""
    at = svg.index(">") + 1
    style = (
        "<style>:root{color:#24292f}@media(prefers-color-scheme:dark){:root{color:#d0d7de}}</style>"
    )
    return f"{svg[:at]}{style}{svg[at:].rstrip()}\n"


def _bars(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[float],
    title: str,
    *,
    digits: int = 0,
    last_is_ours: bool = False,
) -> None:
    ours = len(values) - 1 if last_is_ours else 0
    colors = [OURS if at == ours else OTHERS[3] for at in range(len(values))]
    bars = axes.barh(range(len(values)), values, color=colors, height=0.6)
    axes.set_yticks(range(len(values)), names)
    axes.bar_label(bars, [f"{value:.{digits}f}" for value in values], padding=3, color=_INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.18)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(left=False)
    axes.set_title(title, loc="left")


def _grouped(
    axes: Axes,
    groups: Mapping[str, Sequence[float]],
    series: Sequence[str],
    title: str,
    colors: Sequence[str],
) -> None:
    width = 0.8 / len(series)
    for at, (name, color) in enumerate(zip(series, colors)):
        values = [group[at] for group in groups.values()]
        places = [place + (at - (len(series) - 1) / 2) * width for place in range(len(groups))]
        bars = axes.bar(places, values, width * 0.92, color=color, label=name)
        axes.bar_label(bars, [f"{value:.2f}"[1:] for value in values], padding=2, color=_INK)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(bottom=False)
    axes.set_title(title, loc="left")
    axes.legend(frameon=False, labelcolor=_INK, ncols=len(series), loc="upper right")


def main(folder: Path = IMAGES) -> None:
    """Writes all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in draw().items():
        (folder / name).write_text(svg, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
