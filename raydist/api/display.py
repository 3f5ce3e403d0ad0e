"""Small tables as text and as HTML, for results that show themselves."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

MARKS = ("\x02", "\x03")
"""Stand before and behind the words to be marked, until it is known how they are shown."""

_STYLE = "text-align:{side};vertical-align:top;padding:.15em .6em"


def text_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns aligned columns, numbers to the right, marked words between asterisks.

    >>> print(text_table(["rank", "text"], [[1, "a heron"], [10, "a canal"]]))
    rank  text
       1  a heron
      10  a canal
    """
    cells = [list(columns), *([_cell(value) for value in row] for row in rows)]
    cells = [[each.replace(MARKS[0], "*").replace(MARKS[1], "*") for each in row] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    right = [_is_number_column(rows, i) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right)
        ).rstrip()
        for row in cells
    )


def html_table(columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> str:
    """Returns the table as HTML; texts are escaped, marked words are in `<mark>`.

    >>> html_table(["text"], [["<b> heron"]]).count("&lt;b&gt; heron")
    1
    """
    sides = ["right" if _is_number_column(rows, i) else "left" for i in range(len(columns))]

    def line(tag: str, values: Sequence[object]) -> str:
        cells = (
            f'<{tag} style="{_STYLE.format(side=side)}">{_marked(_cell(value))}</{tag}>'
            for value, side in zip(values, sides)
        )
        return f"<tr>{''.join(cells)}</tr>"

    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(line("td", row) for row in rows)
    return f"<table>{title}<thead>{line('th', columns)}</thead><tbody>{body}</tbody></table>"


def _marked(text: str) -> str:
    return escape(text).replace(MARKS[0], "<mark>").replace(MARKS[1], "</mark>")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _is_number_column(rows: Sequence[Sequence[object]], column: int) -> bool:
    return bool(rows) and all(row[column] is None or _is_number(row[column]) for row in rows)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
