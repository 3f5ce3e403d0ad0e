"""Stores made of stores and of a corpus, without compressing or keeping more than is needed."""

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
from raydist.data.store.format import PART, ROW, save_array, seal, write_index
from raydist.data.store.reader import DocumentStore


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
    blocks: list[np.ndarray] = []
    ends: list[np.ndarray] = [np.zeros(1, np.int64)]
    names: list[str] = []
    facts = {"documents": 0, "empty": 0, "bytes": 0, "blocks": 0}
    with open(target / "ids.bin", "wb") as ids:
        for path in stores:
            with DocumentStore.open(path) as store:
                table = store.blocks_B.copy()
                table[:, ROW] += facts["documents"]
                table[:, PART] += len(names)
                blocks.append(table)
                ends.append(store.id_ends_N1[1:] + ids.tell())
                ids.write(store.id_bytes.tobytes())
                for part in store.parts:
                    names.append(f"{len(names):05d}.arrow")
                    _link(part, target / "parts" / names[-1])
                for key in facts:
                    facts[key] += store.facts[key]
    save_array(target / "id_ends.npy", np.concatenate(ends))
    save_array(
        target / "blocks.npy", np.concatenate(blocks) if blocks else np.empty((0, 5), np.int64)
    )
    duplicates = write_index(target)
    seal(target, names, facts)
    return {**facts, "duplicates": duplicates.count, "examples": [*map(list, duplicates.examples)]}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def needed_texts(doc_ids: Iterable[str], tables: Iterable[pa.Table], folder: Path) -> Path:
    """Writes a store of those documents of `tables` that are asked for; returns its folder.

    A store that is complete is left as it is; one that was not finished is written anew.

    Args:
        doc_ids: which documents; those that do not occur are no error.
        tables: of the schema DOCUMENTS, read only where there is no complete store.
        folder: the store's.
    """
    if (folder / "store.json").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    wanted = pa.array(doc_ids, pa.string())

    def kept() -> Iterable[pa.Table]:
        for table in tables:
            found = table.filter(pc.is_in(table["doc_id"], value_set=wanted))
            if found.num_rows:
                yield found

    DocumentStore.create(kept(), folder)
    return folder
