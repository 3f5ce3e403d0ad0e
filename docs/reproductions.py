"""The published figures that raydist measures again, as sections of a page."""

from __future__ import annotations

import json
from pathlib import Path

from raydist.config.reproduce import Page, read_pages

RECORD = Path(__file__).resolve().parents[1] / "benchmarks/results/reproductions.json"


def sections() -> str:
    """Returns a section for each page: its command, its source, its figures, what is left out."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))["figures"]
    parts = [_section(name, page, record[name]) for name, page in read_pages().items()]
    return "\n\n".join(parts)


def _section(name: str, page: Page, rows: list[list[str | float]]) -> str:
    lines = [f"| collection | system | measure | {page.kind} | measured | agrees |"]
    lines.append("|---|---|---|---:|---:|---|")
    for collection, system, measure, measured in rows:
        figure = page.expected[str(collection)][str(system)][str(measure)]
        agrees = "yes" if figure == measured else "**no**"
        lines.append(
            f"| {collection} | {system} | {measure} | {figure:.4f} | {measured:.4f} | {agrees} |"
        )
    parts = [f"## {name}", page.title, f"```sh\nraydist reproduce {name}\n```", "\n".join(lines)]
    parts.append(f"{page.kind.capitalize()}: {page.source}")
    if page.left_out:
        parts.append("Left out:\n\n" + "\n".join(f"- {each}" for each in page.left_out))
    files = "\n".join(f"{digest}  {file}" for file, digest in page.files.items())
    parts.append(
        f'??? note "Where the collection comes from"\n    ```text\n{_indented(page.obtain)}\n\n'
        f"{_indented(files)}\n    ```"
    )
    return "\n\n".join(parts)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
