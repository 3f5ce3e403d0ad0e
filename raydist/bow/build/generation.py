"""What the generations of an index are made of: segments, deletions and stores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raydist.bow.index import KIND
from raydist.data.store.reader import piece_names
from raydist.generations import Layout


def _named(folder: Path, manifest: Mapping[str, Any]) -> set[Path]:
    names = {*manifest["segments"], *manifest.get("deletions", {}).values()}
    store = manifest.get("store")
    if store:
        names |= {store, *piece_names(folder / store)}
    return {folder / name for name in names}


LAYOUT = Layout(KIND, ("segments/*", "deletions/*", "store*", "joined-*"), _named)
