"""Stores made of other stores, of some documents of a corpus, and of queries."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.data.files import PathLike
from raydist.data.ids import IdList, filter_documents
from raydist.data.store.format import PART, ROW, ArrayFile, seal, write_index
from raydist.data.store.piece import Piece
from raydist.data.store.reader import DocumentStore
from raydist.data.store.writer import StoreWriter
from raydist.disk import remove
from raydist.kernels.bits import Bits
from raydist.log import Progress
from raydist.records import Query, document_table


def concatenate(stores: Sequence[PathLike], folder: PathLike) -> dict[str, Any]:
    """Joins stores into one, in order, linking their parts (copying across file systems).

    Args:
        stores: folders of stores, with or without an index.
        folder: a folder that does not exist yet, or is empty.

    Returns:
        `{documents, empty, bytes, blocks, duplicates, examples}`: how many documents repeat an
        earlier one's id, and up to ten `[id, first position, repeated position]`.

    Raises:
        ArtifactError: one of them is damaged.
    """
    target = Path(folder)
    (target / "parts").mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    facts = {"documents": 0, "empty": 0, "bytes": 0, "blocks": 0}
    with (
        open(target / "ids.bin", "wb") as ids,
        ArrayFile(target / "id_ends.npy", np.int64) as ends,
        ArrayFile(target / "blocks.npy", np.int64, (5,)) as blocks,
    ):
        ends.append(np.zeros(1, np.int64))
        for path in stores:
            with DocumentStore.open(path) as store:
                assert store.live is None, f"{path}: deleted documents cannot be linked"
                for piece in store.pieces:
                    piece.check_ids()
                    table = piece.blocks_B.copy()
                    table[:, ROW] += facts["documents"]
                    table[:, PART] += len(names)
                    blocks.append(table)
                    ends.append(piece.id_ends_N1[1:] + ids.tell())
                    ids.write(piece.id_bytes.data)
                    for number, part in enumerate(piece.parts):
                        piece.check_frame(number)
                        names.append(f"{len(names):05d}.arrow")
                        _link(part, target / "parts" / names[-1])
                    for key in facts:
                        facts[key] += piece.facts[key]
    duplicates = write_index(target)
    seal(target, names, facts)
    return {**facts, "duplicates": duplicates.count, "examples": [*map(list, duplicates.examples)]}


def compact(pieces: Sequence[tuple[Piece, Bits | None]], folder: Path) -> None:
    """Writes one store of pieces' live documents.

    A piece of which nothing is deleted is linked, the others are written anew.

    Args:
        pieces: with their live rows, None for all.
        folder: a folder that does not exist yet.

    Raises:
        ArtifactError: one of them is damaged.
    """
    scratch = folder.with_name(f".{folder.name}.part")
    remove(scratch)
    folders: list[Path] = []
    changed = sum(live.count for _, live in pieces if live is not None and live.count < live.size)
    with Progress("copying texts", changed, "document") as progress:
        for number, (piece, live) in enumerate(pieces):
            if live is None or live.count == live.size:
                folders.append(piece.folder)
            elif live.count:
                writer = StoreWriter(scratch / f"{number:05d}")
                for table in DocumentStore(piece.folder, [piece], live).tables():
                    writer.append(table)
                    progress.advance(table.num_rows)
                writer.close(index=False)
                folders.append(writer.folder)
    concatenate(folders, folder)
    remove(scratch)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def needed_texts(
    doc_ids: Iterable[str] | pa.Array, tables: Iterable[pa.Table], folder: Path
) -> Path:
    """Writes a store of the documents with certain ids; returns its folder.

    A complete store stays as it is, one that was interrupted is written anew.

    Args:
        doc_ids: the ids; those that do not occur are ignored.
        tables: tables of the schema DOCUMENTS, read only if there is no complete store.
        folder: the store's.
    """
    if not (folder / "store.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        unique = pc.unique(doc_ids) if isinstance(doc_ids, pa.Array) else dict.fromkeys(doc_ids)
        ids = IdList(unique)
        DocumentStore.create(filter_documents(tables, ids, missing="ignore"), folder)
    return folder


def store_queries(queries: Iterable[Query], folder: PathLike) -> DocumentStore:
    """Writes a store of queries' texts by their ids, and opens it."""
    table = document_table((query.query_id, "", query.text) for query in queries)
    return DocumentStore.create([table], folder)
