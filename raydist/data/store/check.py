"""Checks every byte of one folder of a document store, and names every file that is damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from raydist.checks import Report
from raydist.data.store.format import PART, read_header
from raydist.data.store.piece import Piece
from raydist.errors import ArtifactError
from raydist.log import count


def verify(folder: Path, report: Report) -> str:
    """Adds what is wrong to the report; returns what was checked.

    Raises:
        ArtifactError: there is no store, or its files contradict each other.
    """
    about = read_header(folder)
    sizes = {f"parts/{name}": size for name, size in about["parts"].items()}
    sizes |= {name: each["bytes"] for name, each in about["files"].items()}
    if not report.add(_sizes(folder, sizes)):
        return count(len(sizes), "file")
    piece = Piece(folder, about)
    if not report.add(_damaged(piece, about["files"])):
        return count(len(sizes), "file")
    rows = sum(piece.block(block).num_rows for block in range(len(piece.blocks_B)))
    if rows != len(piece):
        raise ArtifactError(f"{folder}: {rows:,} texts, store.json says {len(piece):,}")
    blocks = count(len(piece.blocks_B), "block")
    return f"{count(len(sizes), 'file')}, {count(rows, 'text')} in {blocks}"


def _sizes(folder: Path, sizes: Mapping[str, int]) -> Iterator[str]:
    """Yields each file that is missing or has another size."""
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            yield f"{path}: is missing; build the index again"
        elif path.stat().st_size != size:
            yield f"{path}: {path.stat().st_size} bytes, expected {size}; build the index again"


def _damaged(piece: Piece, names: Iterable[str]) -> Iterator[str]:
    """Yields each file with a wrong checksum; of a part, its first batch that has one."""
    try:
        for name in names:
            piece.check_file(name)
        blocks_B = piece.blocks_B
    except ArtifactError as error:
        yield str(error)
        return
    for part in range(len(piece.parts)):
        try:
            piece.check_frame(part)
            for block in np.flatnonzero(blocks_B[:, PART] == part).tolist():
                piece.block(block)
        except ArtifactError as error:
            yield str(error)
