"""Measure names as MLflow takes them: without `@ ( ) = ,`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from raydist.errors import ConfigError

_ILLEGAL = re.compile(r"[^\w./: -]")


def metric_name(name: str) -> str:
    """Returns a name that MLflow accepts.

    `nDCG@10` becomes `nDCG_at_10` and `AP(rel=2)@100` becomes `AP_rel_2_at_100`; a name without a
    forbidden character stays what it is.
    """
    text = name.replace("@", "_at_").replace(")", "")
    return _ILLEGAL.sub("_", text)


def metric_names(names: Iterable[str]) -> dict[str, str]:
    """Returns {name: MLflow's name}.

    Raises:
        ConfigError: two names would become the same.
    """
    mapped: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name in names:
        short = metric_name(name)
        if owner.setdefault(short, name) != name:
            raise ConfigError(
                f"metrics: {owner[short]!r} and {name!r} would both be logged as {short!r}; "
                f"leave one of them out"
            )
        mapped[name] = short
    return mapped
