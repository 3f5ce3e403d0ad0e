"""Indexes, searches and measures a small corpus that needs no download.

The corpus is the documentation of the running Python's standard library and packages: a query is
the first sentence of a docstring, its one relevant document the rest of it. Each step prints the
command that does the same by hand.
"""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from raydist import log
from raydist.config.base import Flags
from raydist.config.load import load
from raydist.config.quickstart import QuickstartConfig
from raydist.data.docstrings import Entry
from raydist.shards import Split, Stats, shard_path, sharded_map

__all__ = ["Config", "run"]

Config = QuickstartConfig
_MODULES = 100  # per split


def run(config: QuickstartConfig, flags: Flags) -> int:
    """Writes data, index and run below `out` and prints the measures."""
    from raydist.data import docstrings
    from raydist.manifest import disk_errors

    out = Path(config.out)
    data = out / "data"
    if flags.dry_run:
        log.say(f"would write a collection, its index and a run below {out}")
        return 0
    if not (data / "corpus.jsonl").exists():
        names = ", ".join(["the standard library", *config.packages])
        log.say(f"collecting the docstrings of {names}")
        read = partial(_read, data.with_name(".modules"), config.workers)
        entries = docstrings.collect(config.packages, read)
        with disk_errors(data):
            docstrings.write(data, entries)
    corpus, queries, qrels = data / "corpus.jsonl", data / "queries.jsonl", data / "qrels.txt"
    index, ranking = out / "index", out / "bm25.txt"
    steps = [
        ("index", f"corpus={corpus}", f"out={index}", f"workers={config.workers}"),
        ("search", f"index={index}", f"queries={queries}", "k=100", f"out={ranking}"),
        ("evaluate", f"run={ranking}", f"qrels={qrels}", "measures=nDCG@10,RR@10,R@100"),
    ]
    for verb, *arguments in steps:
        print(f"\n$ {shlex.join(['raydist', verb, *arguments])}", file=sys.stderr)
        module = importlib.import_module(f"raydist.commands.{verb}")
        module.run(load(module.Config, (), arguments), Flags())
    log.say(
        "\nnext: raydist train jobs/quickstart/train.yaml trains a bi-encoder on the same data;\n"
        "      raydist VERB --help lists a verb's keys; README.md has a page per task"
    )
    return 0


def _read(
    folder: Path,
    workers: int,
    extract: Callable[[tuple[str, str]], list[Entry]],
    modules: Sequence[tuple[str, str]],
) -> Iterator[list[Entry]]:
    """Yields the entries of all modules; workers parse the sources."""
    shutil.rmtree(folder, ignore_errors=True)  # the sources may be others since
    splits = [
        {"modules": modules[at : at + _MODULES], "size": len(modules[at : at + _MODULES])}
        for at in range(0, len(modules), _MODULES)
    ]
    make_worker = partial(_Reader, extract)
    sharded_map(splits, make_worker, folder, workers=workers, label="reading", unit="modules")
    for number in range(len(splits)):
        rows = json.loads(shard_path(folder, number).read_text(encoding="utf-8"))
        yield [Entry(*row) for row in rows]
    shutil.rmtree(folder)


class _Reader:
    def __init__(self, extract: Callable[[tuple[str, str]], list[Entry]]) -> None:
        self._extract = extract

    def __call__(self, split: Split, target: Path) -> Stats:
        """Writes the entries of some modules."""
        found = [e for name, path in split["modules"] for e in self._extract((name, path))]
        rows = [(e.name, e.summary, e.rest) for e in found]
        target.write_text(json.dumps(rows), encoding="utf-8")
        return {"modules": len(split["modules"])}
