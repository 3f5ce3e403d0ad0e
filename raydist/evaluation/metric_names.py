"""Names of metrics, parameters and tags that MLflow accepts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_ILLEGAL = re.compile(r"[^\w./: -]")
_LENGTH = 250  # the longest that MLflow takes


def metric_name(name: str) -> str:
    """Returns a name that MLflow accepts.

    `nDCG@10` becomes `nDCG_at_10` and `AP(rel=2)@100` becomes `AP_rel_2_at_100`; a name without a
    forbidden character stays what it is.
    """
    text = name.replace("@", "_at_").replace(")", "")
    return _ILLEGAL.sub("_", text)


def metric_names(names: Iterable[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Returns {name: MLflow's name}, all different: the second `a_b` becomes `a_b_2`.

    Args:
        names: the names.
        taken: names of MLflow's that others have.
    """
    mapped: dict[str, str] = {}
    used = set(taken)
    for name in names:
        base = metric_name(name)
        short, number = base[:_LENGTH], 2
        while short in used:
            suffix = f"_{number}"
            short, number = f"{base[: _LENGTH - len(suffix)]}{suffix}", number + 1
        used.add(short)
        mapped[name] = short
    return mapped
