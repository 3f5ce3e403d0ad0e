"""The picture of what raydist does, drawn from text."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

BOXES = """
corpus   | data | 0 0.5 | corpus   | jsonl, Parquet, TREC …
queries  | data | 1 2   | queries  | ids and texts
qrels    | data | 0 3.2 | qrels    | judgements
index    | verb | 1 0   | index    | bag of words
embed    | verb | 1 1   | embed    | vectors
search   | verb | 2 0.5 | search   | one, or several fused
rerank   | verb | 3 0.5 | rerank   | BM25, encoders, Qwen3
serve    | verb | 4 0.5 | serve    | HTTP for all of it
evaluate | verb | 4 1.9 | evaluate | numbers, tests, MLflow
mine     | verb | 2 3.2 | mine, score | negatives, teachers
train    | verb | 3 3.2 | train, distill, tune | measured by search
export   | verb | 4 3.2 | export   | Hugging Face folder
"""
"""name | kind | column row | title | what stands below it."""

ARROWS = """
corpus -> index
corpus -> embed
queries -> search
index -> search
embed -> search
search -> rerank : run
rerank -> serve
rerank -> evaluate
qrels -> evaluate
search v mine : run
mine -> train
train ^ rerank : model
train -> export
"""
"""Arrows to the right (->), down (v) and up (^), some with what they carry."""

WIDTH, HEIGHT, COLUMN, ROW, MARGIN = 148, 50, 190, 84, 12

_STYLE = """
.data rect { fill: none; stroke-dasharray: 4 3; }
.verb rect { fill: #0b9e8e; fill-opacity: .16; stroke: #0b9e8e; }
rect { stroke: currentColor; stroke-width: 1.3; }
text { fill: currentColor; font: 12.5px sans-serif; text-anchor: middle; }
.title { font-weight: 600; font-size: 14px; }
.arrow { fill: none; stroke: currentColor; stroke-opacity: .6; stroke-width: 1.4; }
.carried { font-style: italic; font-size: 12px; }
"""


class Box(NamedTuple):
    """A box of the picture; x and y are its left upper corner."""

    kind: str
    x: float
    y: float
    title: str
    below: str


def architecture() -> str:
    """Returns the picture as SVG."""
    boxes = dict(map(_box, BOXES.strip().splitlines()))
    width = max(box.x for box in boxes.values()) + WIDTH + MARGIN
    height = max(box.y for box in boxes.values()) + HEIGHT + MARGIN
    arrows = [_arrow(line, boxes) for line in ARROWS.strip().splitlines()]
    head = '<path d="M0 0 8 4 0 8z" fill="currentColor" fill-opacity=".7"/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">',
            "<title>The verbs of raydist and what passes between them</title>",
            f"<style>{_STYLE}</style>",
            '<defs><marker id="architecture-head" markerWidth="8" markerHeight="8" refX="7" '
            f'refY="4" orient="auto" markerUnits="userSpaceOnUse">{head}</marker></defs>',
            *arrows,
            *map(_drawn, boxes.values()),
            "</svg>\n",
        ]
    )


def _box(line: str) -> tuple[str, Box]:
    name, kind, place, title, below = (part.strip() for part in line.split("|"))
    column, row = map(float, place.split())
    return name, Box(kind, MARGIN + column * COLUMN, MARGIN + row * ROW, title, below)


def _drawn(box: Box) -> str:
    middle = box.x + WIDTH / 2
    return (
        f'<g class="{box.kind}"><rect x="{box.x:g}" y="{box.y:g}" width="{WIDTH}" '
        f'height="{HEIGHT}" rx="7"/>'
        f'<text class="title" x="{middle:g}" y="{box.y + 21:g}">{escape(box.title)}</text>'
        f'<text x="{middle:g}" y="{box.y + 39:g}">{escape(box.below)}</text></g>'
    )


def _arrow(line: str, boxes: dict[str, Box]) -> str:
    path, _, carried = (part.strip() for part in line.partition(" : "))
    start, way, end = path.split()
    a, b = boxes[start], boxes[end]
    if way == "->":
        x1, y1, x2, y2 = a.x + WIDTH, a.y + HEIGHT / 2, b.x - 2, b.y + HEIGHT / 2
        reach = (COLUMN - WIDTH) * (1 if x2 - x1 < COLUMN else 2.6)  # a long one lies flat
        curve = f"M{x1:g} {y1:g}C{x1 + reach:g} {y1:g} {x2 - reach:g} {y2:g} {x2:g} {y2:g}"
        label = (x1 + x2) / 2, (y1 + y2) / 2 - (5 if y1 == y2 else -4)
    else:
        x = a.x + WIDTH / 2
        y1, y2 = (a.y + HEIGHT, b.y - 2) if way == "v" else (a.y, b.y + HEIGHT + 2)
        curve = f"M{x:g} {y1:g}V{y2:g}"
        label = x + 22, (y1 + y2) / 2 - 40
    text = (
        f'<text class="carried" x="{label[0]:g}" y="{label[1]:g}">{escape(carried)}</text>'
        if carried
        else ""
    )
    return f'<path class="arrow" marker-end="url(#architecture-head)" d="{curve}"/>{text}'
