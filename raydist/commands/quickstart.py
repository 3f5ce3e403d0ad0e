"""Indexes, searches and measures a small corpus that needs no download.

The corpus is the documentation of the running Python's standard library: a query is the first
sentence of a docstring, its one relevant document the rest of it. Each step prints the command that
does the same by hand.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path

from raydist import log
from raydist.config.base import Flags
from raydist.config.load import load
from raydist.config.quickstart import QuickstartConfig

__all__ = ["Config", "run"]

Config = QuickstartConfig


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
        log.say("collecting the docstrings of the standard library")
        with disk_errors(data):
            docstrings.write(data)
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
