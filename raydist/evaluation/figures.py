"""Pictures of an evaluation: distributions, recall and precision, scores, wins and losses.

Each function returns a matplotlib figure; `save` writes it. Nothing is boxes on a screen and no
global state is touched. R runs, Q queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raydist.evaluation.significance import PairedTest
from raydist.records import Qrels, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECALL_LEVELS = tuple(i / 10 for i in range(11))
# Okabe and Ito's colours, which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#B8A800")
_STYLES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v")
_GREY = "#767676"


def box_plot(values: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draws how a measure is distributed over queries.

    Args:
        values: measure -> run -> values [Q].

    A box holds the middle half of the queries, its line is the median, the whiskers reach the
    5th and 95th percentile, the diamond is the mean.
    """
    runs = list(next(iter(values.values())))
    labels = [_wrapped(run, 24) for run in runs]
    longest = _width(labels)
    rotation = 0 if longest * len(runs) <= 20 else 30 if longest <= 12 else 90
    figure = _figure(
        width=max(4.5, 1.2 + len(values) * (0.8 + 0.55 * len(runs))),
        height=4.2 + 0.08 * longest * (rotation == 90),
    )
    axes = figure.subplots(1, len(values), squeeze=False, sharey=False)[0]
    for axis, (measure, by_run) in zip(axes, values.items()):
        boxes = axis.boxplot(
            [by_run[run] for run in runs],
            whis=(5, 95),
            showmeans=True,
            showfliers=False,
            widths=0.6,
            patch_artist=True,
            medianprops={"color": "black", "linewidth": 1.6},
            meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": "black"},
        )
        for i, box in enumerate(boxes["boxes"]):
            box.set(facecolor=_COLOURS[i % len(_COLOURS)], alpha=0.75)
        axis.set_title(measure)
        axis.set_xticks(
            range(1, len(runs) + 1),
            labels,
            rotation=rotation,
            ha="right" if rotation == 30 else "center",
        )
        top = max(float(v.max(initial=0.0)) for v in by_run.values())
        if top <= 1:
            axis.set_ylim(-0.03, 1.03)
        axis.grid(axis="y", alpha=0.3)
    queries = len(next(iter(next(iter(values.values())).values())))
    axes[0].set_ylabel(f"value per query ({queries} queries)")
    figure.supxlabel(
        "box: middle half, line: median, whiskers: 5 % and 95 %, diamond: mean",
        fontsize=8,
        color=_GREY,
    )
    return figure


def recall_precision_values(run: Run, qrels: Qrels) -> np.ndarray:
    """Returns the interpolated precision [11] at recall 0, 0.1 ... 1, averaged over queries.

    The interpolated precision at r is the highest precision at any recall of at least r; this is
    trec_eval's iprec_at_recall, for which int(r · relevant + 0.9) documents are a recall of r.
    """
    from raydist.evaluation.measures import ordered

    total = np.zeros(len(RECALL_LEVELS))
    for query_id, doc_ids, scores in run:
        judged = qrels.get(query_id, {})
        relevant = sum(grade > 0 for grade in judged.values())
        if not relevant or not doc_ids:
            continue
        docs, _ = ordered(doc_ids, scores, "score")
        hits = np.cumsum([judged.get(doc, 0) > 0 for doc in docs])
        precision = hits / np.arange(1, len(hits) + 1)
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        cuts = [int(level * relevant + 0.9) for level in RECALL_LEVELS]
        total += best[np.searchsorted(hits, cuts)]
    return total / len(qrels)


def recall_precision(curves: Mapping[str, np.ndarray]) -> Figure:
    """Draws interpolated recall-precision curves.

    Args:
        curves: run -> precision [11] at `RECALL_LEVELS`.
    """
    columns = max(1, 54 // (8 + _width(curves)))
    figure = _figure(width=5.6, height=4.4 + 0.23 * -(-len(curves) // columns))
    axis = figure.subplots()
    for i, (run, precision) in enumerate(curves.items()):
        axis.plot(
            RECALL_LEVELS, precision, marker=_MARKERS[i % len(_MARKERS)], markersize=6, label=run,
            markerfacecolor="none", color=_COLOURS[i % len(_COLOURS)], alpha=0.8,
            linestyle=_STYLES[i % len(_STYLES)],
        )  # fmt: skip  # lines that lie on each other can be told apart
    axis.set(xlabel="recall", ylabel="interpolated precision, mean over queries")
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xticks(RECALL_LEVELS)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    return figure


def split_scores(run: Run, qrels: Qrels) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores of relevant results and of all others, over judged queries."""
    positive, negative = [], []
    for query_id, doc_ids, scores in run:
        judged = qrels.get(query_id)
        if judged is None:
            continue
        relevant = np.array([judged.get(doc_id, 0) > 0 for doc_id in doc_ids], bool)
        positive.append(scores[relevant])
        negative.append(scores[~relevant])
    empty = [np.empty(0, np.float32)]
    return np.concatenate(positive or empty), np.concatenate(negative or empty)


def score_histogram(scores: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draws how well scores separate relevant results from the others.

    Args:
        scores: run -> (scores of relevant results, scores of all other results).
    """
    columns = min(len(scores), 3)
    rows = -(-len(scores) // columns)
    figure = _figure(width=4.6 * columns, height=3.4 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (run, (positive, negative)) in zip(axes, scores.items()):
        both = np.concatenate([positive, negative])
        low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
        bins = np.linspace(low, high if high > low else low + 1.0, 41)
        for part, label, colour in (
            (negative, "not relevant or unjudged", _COLOURS[1]),
            (positive, "relevant", _COLOURS[0]),
        ):
            weights = np.full(len(part), 100.0 / max(len(part), 1))
            axis.hist(
                part, bins, weights=weights, alpha=0.6, color=colour,
                label=f"{label} (n = {len(part):,})",
            )  # fmt: skip
        axis.set_title(_wrapped(run, 44), fontsize=11)
        axis.set_xlabel("score")
        axis.set_ylabel("share of its group (%)")
        axis.margins(y=0.25)
        axis.legend(fontsize=8, loc="upper right")  # "best" is slow where bars are many
    for axis in axes[len(scores) :]:
        axis.set_visible(False)
    return figure


def wins_and_losses(
    comparisons: Mapping[str, Mapping[str, PairedTest]],
    p_values: Mapping[str, Mapping[str, float]],
    baseline: str,
) -> Figure:
    """Draws on how many queries each run is above, equal to and below the baseline.

    Args:
        comparisons: measure -> run -> comparison with the baseline.
        p_values: measure -> run -> corrected p-value.
        baseline: the baseline's name.
    """
    rows = [
        (_wrapped(f"{run}, {measure}", 32), paired, p_values[measure][run])
        for measure, by_run in comparisons.items()
        for run, paired in by_run.items()
    ]
    longest = _width([label for label, _, _ in rows])
    figure = _figure(width=6.0 + 0.085 * longest, height=1.7 + 0.42 * len(rows))
    axis = figure.subplots()
    ys = np.arange(len(rows))[::-1]
    left = np.zeros(len(rows), int)
    queries = max(paired.wins + paired.ties + paired.losses for _, paired, _ in rows)
    for field, label, colour in (
        ("wins", "better", _COLOURS[2]),
        ("ties", "equal", "#BBBBBB"),
        ("losses", "worse", _COLOURS[3]),
    ):
        counts = [getattr(paired, field) for _, paired, _ in rows]
        axis.barh(ys, counts, left=left, color=colour, label=label, height=0.7)
        for y, count, start in zip(ys, counts, left):
            if count >= 0.015 * len(str(count)) * queries:  # else it has no room
                axis.text(start + count / 2, y, str(count), ha="center", va="center", size=8)
        left += counts
    for y, (_, paired, p) in zip(ys, rows):
        note = f"{paired.difference:+.4f}, {_p(p)}"
        axis.text(queries * 1.02, y, note, va="center", size=8)
    axis.set_yticks(ys, [label for label, _, _ in rows])
    axis.set_xticks([tick for tick in axis.get_xticks() if 0 <= tick <= queries])
    axis.set_xlim(0, queries * 1.34)
    named = _wrapped(f"compared with {baseline}", 60)
    axis.set_xlabel(f"queries, {named}\nbeside: mean difference and corrected p")
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines["bottom"].set_bounds(0, queries)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def differences(by_measure: Mapping[str, np.ndarray], run: str, baseline: str) -> Figure:
    """Draws a run's difference to the baseline for each query, sorted.

    Args:
        by_measure: measure -> run − baseline [Q].
        run: the run's name.
        baseline: the baseline's name.
    """
    figure = _figure(width=max(5.0, 4.2 * len(by_measure)), height=3.6)
    axes = figure.subplots(1, len(by_measure), squeeze=False)[0]
    for axis, (measure, values) in zip(axes, by_measure.items()):
        ordered = np.sort(values)[::-1]
        edges = np.arange(len(ordered) + 1) + 0.5
        # One shape a sign: a bar a query would take seconds where there are thousands.
        for part, colour in ((ordered.clip(0), _COLOURS[2]), (ordered.clip(max=0), _COLOURS[3])):
            axis.stairs(part, edges, fill=True, color=colour)
        mean = float(values.mean())
        axis.axhline(0, color="black", linewidth=0.8)
        axis.axhline(mean, color=_COLOURS[0], linestyle="--", label=f"mean {mean:+.4f}")
        axis.set(title=measure, xlabel="queries, sorted by difference")
        axis.legend(loc="upper right")
        axis.grid(axis="y", alpha=0.3)
    short = len(run) + len(baseline) <= 36
    axes[0].set_ylabel(f"{_wrapped(run, 36)}{' ' if short else chr(10)}− {_wrapped(baseline, 36)}")
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure as a picture of 150 dots per inch and returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None} if path.suffix == ".png" else None)
    return path


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _wrapped(name: str, width: int) -> str:
    """Returns a name in lines of at most `width` letters, where its parts are no longer."""
    lines = [""]
    for part in re.split(r"(?<=[-_/\s])|(?<=\.)(?!\d)", name):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def _width(labels: Iterable[str]) -> int:
    """Returns how many letters the longest line has."""
    return max(len(line) for label in labels for line in label.splitlines() or [""])


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
