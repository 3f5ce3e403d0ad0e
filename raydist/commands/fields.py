"""Prints the reference of a verb, read off its configuration models: `raydist fields VERB`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from raydist.commands import VERBS, check_verb
from raydist.config.base import Block, Verb
from raydist.config.schema import reference

FLAGS: tuple[str, ...] = ()


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


def show(model: type[Block]) -> None:
    """Prints one row per key: name, type, default, help; the keys that all verbs have last."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("key", "type", "default", "help"):
        table.add_column(column, overflow="fold")
    for row in sorted(reference(model), key=lambda row: row.key in Verb.model_fields):
        table.add_row(row.key, row.type, row.default, row.help)
    width = None if sys.stdout.isatty() else 160
    Console(file=sys.stdout, width=width, highlight=False, markup=False).print(table)
