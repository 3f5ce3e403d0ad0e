"""Compares two outputs: how their configurations and the content of their inputs differ.

    raydist diff OLD NEW
    raydist diff IDX s3://bucket/idx format=json

A key or input has a line, with what it was and what it is.
"""

from __future__ import annotations

import json

from raydist.artefact import planned
from raydist.config.base import Flags
from raydist.config.lifecycle import DiffConfig
from raydist.inventory import configuration_of
from raydist.sameness import differences

Config = DiffConfig


def run(config: DiffConfig, flags: Flags) -> None:
    """Prints a line per difference."""
    old, new = config.path
    if planned(flags.dry_run, f"compare {old} with {new}"):
        return
    lines = differences(configuration_of(old), configuration_of(new))
    if config.format == "json":
        print(json.dumps(lines, indent=1))
        return
    print("\n".join(lines) or f"{old} and {new}: the same configuration, the same inputs")
