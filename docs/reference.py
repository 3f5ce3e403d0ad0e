"""The reference of each verb as a page, read off its configuration models and docstring."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from types import ModuleType

from raydist.commands import VERBS
from raydist.config.schema import Row, reference
from raydist.text.languages.table import LANGUAGES

FLAGS = {
    "--print": "show the resolved configuration and stop",
    "--dry-run": "check configuration and inputs, start nothing",
    "--resume": "continue an interrupted run",
    "--append": "add to an existing output",
}
"""The flags that verbs take, `--help` aside."""

COMMON = ("storage", "lock_wait", "fingerprint")
"""Keys of every verb that writes an output; they stand last."""


def verbs() -> list[str]:
    """Returns the names of all verbs, in the order of `raydist --help`."""
    return list(VERBS)


def verb_table() -> str:
    """Returns the list of all verbs, with links to their pages."""
    lines = [f"| [`{verb}`](verb/raydist-{verb}.md) | {text} |" for verb, text in VERBS.items()]
    return "\n".join(["| verb | does |", "|---|---|", *lines])


def language_table() -> str:
    """Returns the languages that have an analyzer, and what each does."""
    lines = ["| `en` | english | 's is cut off | Apache Lucene (33) | Porter, as Lucene has it |"]
    for each in sorted(LANGUAGES, key=lambda each: each.code):
        before, after = each.normalized[0], each.respelled[0]
        spelling = "; ".join(
            part for part in (before, after and f"after stop words: {after}") if part
        )
        stops = f"{each.source} ({len(each.stops)})"
        lines.append(f"| `{each.code}` | {each.name} | {spelling} | {stops} | {each.stemmer} |")
    head = "| code | name | spellings | stop words | stemmer |\n|---|---|---|---|---|"
    return "\n".join([head, *lines])


def verb_page(verb: str) -> str:
    """Returns the page of a verb: what it does, its flags, a table of keys for each block."""
    module = importlib.import_module(f"raydist.commands.{verb}")
    parts = [f"# raydist {verb}", _prose(module.__doc__ or VERBS[verb])]
    if not hasattr(module, "Config"):
        return "\n\n".join(parts) + "\n"
    parts += ["## Flags", _flags(module), "## Keys"]
    rows = list(reference(module.Config))
    groups: dict[str, list[Row]] = {}
    for row in rows:
        head, _, below = row.key.partition(".")
        block = below or row.type in ("block", "mapping of blocks")
        name = head if block else "common" if head in COMMON else ""
        groups.setdefault(name, []).append(row)
    for name in sorted(groups, key=lambda name: (name == "common", name != "", name)):
        block = groups[name]
        if name == "common":
            parts += ["### Of every verb that writes an output"]
        elif name:
            first, *block = block
            parts += [f"### `{name}`", _block_line(first)]
        if block:
            parts.append(_table(block))
    return "\n\n".join(parts) + "\n"


def _prose(docstring: str) -> str:
    """Returns a docstring's text as Markdown; its indented lines are commands."""
    blocks = []
    for part in docstring.strip().split("\n\n"):
        if part.startswith("    "):
            lines = "\n".join(line.removeprefix("    ") for line in part.splitlines())
            blocks.append(f"```sh\n{lines}\n```")
        else:
            blocks.append(_escaped(part))
    return "\n\n".join(blocks)


def _flags(module: ModuleType) -> str:
    taken = dict.fromkeys(("--print", *getattr(module, "FLAGS", ("--dry-run",))))
    return "\n".join(f"- `{flag}`: {FLAGS[flag]}" for flag in taken)


def _block_line(row: Row) -> str:
    if row.default == "required":
        return f"{_escaped(row.help)} **Required.**"
    default = f" Default: `{row.default}`." if row.default not in ("", "null", "{}") else ""
    return _escaped(row.help) + default


def _table(rows: list[Row]) -> str:
    return "\n".join(["| key | type | default | |", "|---|---|---|---|", *map(_line, rows)])


def _line(row: Row) -> str:
    kind = ", ".join(filter(None, [row.type, row.bounds]))
    default = {"required": "**required**", "null": "", "": ""}.get(row.default)
    if default is None:
        default = f"`{_cell(row.default)}`"
    cells = [f"`{row.key}`{{ #{row.key} }}", _cell(kind), default, _escaped(_cell(row.help))]
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _escaped(text: str) -> str:
    """Returns text in which nothing but code in backticks is markup."""
    return "".join(_plain(part) if at % 2 == 0 else f"`{part}`" for at, part in _codes(text))


def _codes(text: str) -> Iterator[tuple[int, str]]:
    yield from enumerate(text.split("`"))


def _plain(text: str) -> str:
    return re.sub(r"([*_<\[\]])", r"\\\1", text)
