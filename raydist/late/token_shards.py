"""Token vectors on the disk while an index is built: what documents become before they are coded.

A shard has `vectors` (float16), and `documents.arrow` with the id and the number of vectors of each
document.

Shapes: n documents, t vectors of them together, D dimensions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

VECTORS, DOCUMENTS = "vectors", "documents.arrow"
DOCUMENT = pa.schema([("doc_id", pa.string()), ("vectors", pa.int32())])
_MOST = float(np.finfo(np.float16).max)


class TokenWriter:
    """Writes one shard, batch by batch; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.documents = self.vectors = 0
        self._vectors = pa.OSFile(str(folder / VECTORS), "wb")
        self._file = pa.OSFile(str(folder / DOCUMENTS), "wb")
        self._writer = pa.ipc.new_file(self._file, DOCUMENT)

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, *raised: object) -> None:
        self._writer.close()
        self._file.close()
        self._vectors.close()

    def append(self, doc_ids: pa.Array, lengths_n: np.ndarray, vectors_tD: np.ndarray) -> None:
        """Adds documents with their vectors, one document's after another's."""
        assert float(np.abs(vectors_tD).max(initial=0)) <= _MOST
        self._vectors.write(np.ascontiguousarray(vectors_tD, np.float16).data)
        columns = [doc_ids.cast(pa.string()), pa.array(lengths_n, pa.int32())]
        self._writer.write_batch(pa.record_batch(columns, schema=DOCUMENT))
        self.documents += len(doc_ids)
        self.vectors += len(vectors_tD)


def map_vectors(shard: Path, dimension: int) -> np.ndarray:
    """Maps a shard's vectors, float16 [t, D]."""
    path = shard / VECTORS
    if not path.stat().st_size:
        return np.zeros((0, dimension), np.float16)
    return np.memmap(path, np.float16, "r").reshape(-1, dimension)


def read_documents(shard: Path) -> pa.Table:
    """Returns the ids and numbers of vectors of a shard's documents."""
    with pa.memory_map(str(shard / DOCUMENTS)) as source:
        return pa.ipc.open_file(source).read_all()
