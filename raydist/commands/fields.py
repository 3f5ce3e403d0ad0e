"""Prints every key of a verb, or of all verbs.

    raydist fields index

`raydist help index` shows the keys of a repeated block once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from raydist.commands import VERBS, check_verb
from raydist.config.base import Block, Verb
from raydist.config.schema import Row, reference

FLAGS: tuple[str, ...] = ()
_WIDE = 120  # columns of a terminal in which four columns can be read
_LONG = 30  # characters of a default that are shown
_MANY = 4  # keys of a block that are not repeated


def run_words(words: Sequence[str], flags: Sequence[str]) -> int:
    """Prints the keys of the verbs in `words`, or of all."""
    for verb in words or VERBS:
        check_verb(verb)
        module = importlib.import_module(f"raydist.commands.{verb}")
        if hasattr(module, "Config"):
            print(f"raydist {verb}: {VERBS[verb]}\n")
            show(module.Config)
            print()
        elif words:
            print(f"raydist {verb}: {VERBS[verb]}\n\n{(module.__doc__ or '').strip()}")
    return 0


def show(model: type[Block], *, once: bool = False) -> None:
    """Prints the keys with type, default and help; those that all verbs have come last.

    A narrow terminal gets two columns.

    Args:
        model: the configuration.
        once: a block whose keys are those of an earlier one refers to it instead.
    """
    from rich.console import Console
    from rich.table import Table

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False)
    wide = console.width >= _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("key", "type", "default", "help") if wide else ("key", "help"):
        table.add_column(column, overflow="fold")
    rows = sorted(reference(model), key=lambda row: row.key in Verb.model_fields)
    for row in _once(rows) if once else rows:
        if wide:
            table.add_row(row.key, row.type, _cut(row.default) if once else row.default, row.help)
        else:
            row = replace(row, default=_cut(row.default))
            default = row.default if row.default in ("required", "") else f"default {row.default}"
            facts = ", ".join(filter(None, [row.type, default.replace("default null", "")]))
            table.add_row(row.key, f"{row.help} ({facts})")
    console.print(table)


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]} …"


def _once(rows: Sequence[Row]) -> Iterator[Row]:
    """Yields rows without the keys of blocks that are those of an earlier block."""
    first: dict[tuple[tuple[str, str], ...], str] = {}
    hidden = ""
    for at, row in enumerate(rows):
        if hidden and row.key.startswith(hidden):
            continue
        hidden = ""
        if row.type in ("block", "mapping of blocks"):
            prefix = f"{row.key}." if row.type == "block" else f"{row.key}.ID."
            below = [each for each in rows[at + 1 :] if each.key.startswith(prefix)]
            keys = tuple((each.key.removeprefix(prefix), each.type) for each in below)
            if len(keys) >= _MANY and (shown := first.setdefault(keys, prefix)) != prefix:
                row = replace(row, help=f"{row.help} Keys: those of `{shown[:-1]}`.")
                hidden = prefix
        yield row
