"""The results of a suite as one page of HTML: bars with their intervals, then the whole table.

The page loads nothing, and follows the reader's theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from raydist.evaluation.report import Row, cells, columns
from raydist.evaluation.suite import AVERAGE, Suite

_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1c2024; --faint: #5f6872;
  --line: #d9dee3; --bar: #7fa8d6; --base: #aab2bb; --better: #17867a; --worse: #b4472e; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --ink: #e6e9ec; --faint: #9aa4ae;
  --line: #333b43; --bar: #4273a8; --base: #5c6670; --better: #4cc4b5; --worse: #f0876b; } }
body { margin: 0 auto; padding: 1.5rem; max-width: 80rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; max-width: 60rem; } .faint, figcaption, small { color: var(--faint); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .25rem; }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 12px; fill: var(--ink); }
svg .tick { fill: var(--faint); font-size: 11px; } svg .grid { stroke: var(--line); }
svg .bar { fill: var(--bar); } svg .base { fill: var(--base); }
svg .whisker { stroke: var(--ink); stroke-width: 1.25; }
svg .better, td.better { fill: var(--better); color: var(--better); }
svg .worse, td.worse { fill: var(--worse); color: var(--worse); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .45rem; font-size: 14px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 600; }
th.word, td.word { text-align: left; } tr.first td { border-top: 2px solid var(--line); }
"""

_WIDTH, _ROW, _TOP, _BOTTOM, _VALUE = 420, 22, 4, 20, 76
_LETTER = 8.2  # pixels of a letter, wide ones taken into account
_LONGEST = 26  # letters of a name in a figure


def render_page(suite: Suite, title: str, alpha: float = 0.05) -> str:
    """Returns the page.

    Args:
        suite: the results.
        title: of the page.
        alpha: differences whose corrected p is below it are marked.
    """
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="faint">{escape(_summary(suite))}</p>']
    parts.append(f'<p class="faint">{escape(_legend(suite, alpha))}</p>')
    for name, rows in suite.sections.items():
        queries = (
            "" if name == AVERAGE else f" <small>{suite.reports[name].queries} queries</small>"
        )
        heading = "Average over the collections" if name == AVERAGE else escape(name)
        figures = "".join(
            _figure(measure, [row for row in rows if row.measure == measure], suite, alpha)
            for measure in suite.measures
            if any(row.measure == measure for row in rows)
        )
        parts.append(f'<h2>{heading}{queries}</h2>\n<div class="figures">{figures}</div>')
    notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in suite.notes)
    parts.append(f'<h2>All figures</h2>\n<div class="wide">{_table(suite, alpha)}</div>\n{notes}')
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _summary(suite: Suite) -> str:
    systems, collections = len(suite.systems), len(suite.reports)
    return (
        f"{systems} {'system' if systems == 1 else 'systems'} on "
        f"{collections} {'collection' if collections == 1 else 'collections'}"
    )


def _legend(suite: Suite, alpha: float) -> str:
    text = "A bar is a mean over the judged queries, the line across it its confidence interval."
    if len(suite.systems) < 2:
        return text
    return (
        f"{text} {suite.baseline} is the baseline; ▲ is better and ▼ worse than it, "
        f"with a corrected p below {alpha:g}."
    )


def _mark(row: Row, alpha: float) -> tuple[str, str]:
    """Returns the sign and the class of a difference; both are empty where chance explains it."""
    if row.paired is None or row.p is None or not row.p < alpha:
        return "", ""
    return ("▲", "better") if row.paired.difference > 0 else ("▼", "worse")


def _figure(measure: str, rows: Sequence[Row], suite: Suite, alpha: float) -> str:
    """Returns the bars of the systems by one measure."""
    names = [_short(row.run) for row in rows]
    left = 10 + _LETTER * max(map(len, names))
    ends = [end for row in rows for end in (row.mean, row.interval.high) if math.isfinite(end)]
    top, step = _scale(max(ends, default=0.0))
    right = _WIDTH - _VALUE

    def x(value: float) -> float:
        return round(left + (right - left) * min(max(value / top, 0.0), 1.0), 1)

    height = _TOP + _ROW * len(rows) + _BOTTOM
    parts = []
    for i in range(round(top / step) + 1):
        at = x(i * step)
        foot = height - _BOTTOM
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{foot}"/>')
        parts.append(
            f'<text class="tick" x="{at}" y="{foot + 14}" text-anchor="middle">{i * step:g}</text>'
        )
    for i, (row, name) in enumerate(zip(rows, names)):
        middle = _TOP + _ROW * (i + 0.5)
        kind = "base" if row.run == suite.baseline and len(rows) > 1 else "bar"
        bar = max(x(row.mean) - left, 0.0)
        parts += [
            f'<text x="{left - 8:.1f}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{left:.1f}" y="{middle - 7}" width="{bar:.1f}" height="14" '
            'rx="2"/>',
        ]
        low, high = row.interval.low, row.interval.high
        if math.isfinite(low) and math.isfinite(high):
            a, b = x(low), x(high)
            parts.append(
                f'<path class="whisker" fill="none" d="M{a} {middle - 4}v8M{b} {middle - 4}v8'
                f'M{a} {middle}H{b}"/>'
            )
        sign, css = _mark(row, alpha)
        parts.append(
            f'<text class="{css}" x="{right + 8}" y="{middle + 4}">{row.mean:.4f} {sign}</text>'
        )
    label = f"{measure}: " + ", ".join(f"{row.run} {row.mean:.4f}" for row in rows)
    return (
        f"<figure><figcaption>{escape(measure)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _scale(highest: float) -> tuple[float, float]:
    """Returns where an axis ends, and the step between its ticks: 1, 2 or 5 times a power of 10."""
    if highest <= 0:
        return 1.0, 0.5
    magnitude = 10.0 ** math.floor(math.log10(highest / 5))
    step = next(each * magnitude for each in (1, 2, 5, 10) if highest <= 5 * each * magnitude)
    return math.ceil(highest / step - 1e-9) * step, step


def _table(suite: Suite, alpha: float) -> str:
    tested = any(row.paired for rows in suite.sections.values() for row in rows)
    words = ["collection", "measure", "system"]
    head = "".join(f'<th class="word">{word}</th>' for word in words)
    head += "".join(f"<th>{name}</th>" for name in columns(tested))
    lines = []
    last = ("", "")
    for name, rows in suite.sections.items():
        for row in rows:
            texts = [name, *cells(row, 2, tested)]
            _, css = _mark(row, alpha)
            filled = [f'<td class="word">{escape(text)}</td>' for text in texts[:3]]
            for column, text in zip(columns(tested), texts[3:]):
                marked = f' class="{css}"' if css and column == "difference" else ""
                filled.append(f"<td{marked}>{escape(text)}</td>")
            first = ' class="first"' if last != (name, row.measure) else ""
            last = (name, row.measure)
            lines.append(f"<tr{first}>{''.join(filled)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
