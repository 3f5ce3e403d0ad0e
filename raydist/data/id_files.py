"""Long lists of ids as files of the cache that all processes of a machine map, built once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock

from raydist.data.store.format import ArrayFile, id_array, write_index
from raydist.data.store.idhash import Duplicates, HashIndex
from raydist.disk import atomic, disk_errors, remove
from raydist.kernels.arrays import string_buffers
from raydist.stores.copies import cache_folder

_UNUSED = 7 * 86400.0  # seconds after which a file that nobody used is removed


def mapped(
    key: str,
    chunks: Callable[[], Iterable[pa.Array]],
    check: Callable[[Duplicates], None],
) -> tuple[pa.Array, HashIndex]:
    """Returns ids, large_string, and their index, mapped from the cache.

    Args:
        key: what identifies the list, its content included.
        chunks: gives the ids, once on each machine.
        check: may refuse ids that occur twice.
    """
    parent = cache_folder() / "ids"
    folder = parent / hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    with disk_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _clean(parent)
                with atomic(folder) as partial:
                    check(_write(chunks(), partial))
            os.utime(folder)
            return _open(folder)


def _write(chunks: Iterable[pa.Array], folder: Path) -> Duplicates:
    folder.mkdir()
    with open(folder / "ids.bin", "wb") as ids, ArrayFile(folder / "id_ends.npy", np.int64) as ends:
        ends.append(np.zeros(1, np.int64))
        for chunk in chunks:
            offsets, data = string_buffers(chunk)
            ends.append(offsets[1:] - offsets[0] + ids.tell())
            ids.write(data[offsets[0] : offsets[-1]].data)
    return write_index(folder)


def _open(folder: Path) -> tuple[pa.Array, HashIndex]:
    names = ("id_ends.npy", "hashes.npy", "order.npy", "fences.npy")
    ends, hashes, order, fences = (np.load(folder / name, mmap_mode="r") for name in names)
    with pa.memory_map(str(folder / "ids.bin")) as file:
        ids = id_array(np.frombuffer(file.read_buffer(), np.uint8), ends)
    index = HashIndex(hashes, order, lambda rows: ids.take(pa.array(rows)), fences=fences)
    return ids, index


def _clean(parent: Path) -> None:
    for path in parent.iterdir():
        if path.is_dir() and time.time() - path.stat().st_mtime > _UNUSED:
            remove(path)  # whoever has mapped it keeps it
