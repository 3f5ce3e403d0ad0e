"""Says what an output is: complete or not, from what, how large, and why it failed last.

    raydist status IDX
    raydist status IDX run.txt s3://bucket/idx format=json

Only the manifest is read; `raydist verify` reads and checks the rest.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator

from raydist import log
from raydist.artefact import planned
from raydist.config.base import Flags
from raydist.config.lifecycle import StatusConfig
from raydist.inventory import State, state_of

Config = StatusConfig
_DIGEST = re.compile("[0-9a-f]{32,}")


def run(config: StatusConfig, flags: Flags) -> None:
    """Prints the state of each output."""
    if planned(flags.dry_run, f"look at {', '.join(config.path)}"):
        return
    states = [state_of(path) for path in config.path]
    if config.format == "json":
        print(json.dumps([dataclasses.asdict(state) for state in states], indent=1))
        return
    for state in states:
        print(f"{state.path}: {headline(state)}")
        rows = list(_rows(state))
        width = max((len(name) for name, _ in rows), default=0)
        for name, text in rows:
            print(f"  {name:<{width}}  {text}")


def headline(state: State) -> str:
    """Returns kind and state in words."""
    if state.writer:
        return f"{state.kind}, being written"
    if state.state == "other":
        return f"a {state.kind}, no output of raydist"
    if state.state == "unfinished":
        return f"{state.kind}, not complete; the same command again continues it"
    return f"{state.kind}, {state.state}"


def _rows(state: State) -> Iterator[tuple[str, str]]:
    if state.writer:
        yield "writer", state.writer
    if state.error:
        yield "last error", state.error
    if state.created:
        yield "completed", f"{state.created} by raydist {state.version}"
    yield "size", f"{log.size(state.bytes)} in {log.count(state.files, 'file')}"
    sources = state.sources()
    for name, fingerprint in state.inputs.items():
        place = f"{sources[name]} " if name in sources else ""
        yield name, f"{place}({fingerprint})"
    for name, value in state.facts.items():
        if isinstance(value, bool) or value is None or isinstance(value, dict):
            continue
        if isinstance(value, list):
            value = len(value)
        yield name.replace("_", " "), _shown(name, value)


def _shown(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value[:12] if _DIGEST.fullmatch(value) else value
    if name == "bytes" or name.endswith("_bytes"):
        return log.size(int(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
