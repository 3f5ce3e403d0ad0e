"""Lists what lies in a folder: each output's kind, state, size and source.

    raydist ls
    raydist ls FOLDER
    raydist ls s3://bucket/outputs format=json

A file or folder has a line; what failed has its last error at the end.
"""

from __future__ import annotations

import dataclasses
import json

from raydist import log
from raydist.artefact import planned
from raydist.config.base import Flags
from raydist.config.lifecycle import LsConfig
from raydist.inventory import State, states_in

Config = LsConfig


def run(config: LsConfig, flags: Flags) -> None:
    """Prints a line per file and folder."""
    if planned(flags.dry_run, f"list {config.path}"):
        return
    states = list(states_in(config.path))
    if config.format == "json":
        print(json.dumps([dataclasses.asdict(state) for state in states], indent=1))
        return
    rows = [("name", "kind", "state", "size", "completed", "from"), *map(_row, states)]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    for row in rows:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths))
        print(line.rstrip())


def _row(state: State) -> tuple[str, ...]:
    """Returns the cells of a line; what is not complete has its last error as its source."""
    name = state.path.rpartition("/")[2]
    if state.state == "other":
        return name, state.kind, "", log.size(state.bytes), "", ""
    text = state.error or ", ".join(f"{k}={v}" for k, v in state.sources().items())
    done = "being written" if state.writer else state.state
    return name, state.kind, done, log.size(state.bytes), state.created or "", text[:80]
