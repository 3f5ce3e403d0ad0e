"""Hashes of all bytes of local files, kept in the cache for as long as the files do not change.

Files and pieces of files are read in parallel. What was hashed once is recognised by path, size,
inode, and times of change, so that a corpus of a terabyte is not read to learn that it is the same.
A file that changed within the last seconds is not kept: a further change within the same tick of
its clock would not show. The cache has a small file for each folder of inputs, replaced atomically;
where two processes replace one at once, the hashes of one of them are computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from raydist.disk import atomic
from raydist.errors import ConfigError, DataError
from raydist.fingerprints import value_fingerprint
from raydist.log import Progress
from raydist.stores.copies import cache_folder

PIECE = 64 << 20
"""Bytes that are hashed apart, by as many threads as there are; part of the hash's definition."""

_CHUNK = 4 << 20
_KEPT = 1 << 20  # bytes; a smaller file is read as quickly as its hash is looked up
_LONG = 4 << 30  # bytes from which on progress is shown
_SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system ticks every two seconds
_LIMIT = 64 << 20  # bytes of all files of the cache

_State = tuple[int, int, int, int]
"""Size, times of the last change of content and of anything, inode."""


def file_hashes(paths: Sequence[str]) -> list[str]:
    """Returns 32 hex digits for each local file, by all its bytes.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    began = time.time_ns()
    states = {path: _state(path) for path in paths}
    folders = defaultdict(list)
    for path in states:
        folders[os.path.dirname(path)].append(path)
    hashes: dict[str, str] = {}
    for folder, inside in folders.items():
        if any(states[path][0] >= _KEPT for path in inside):
            kept = _read(folder)
            for path in inside:
                state, value = kept.get(os.path.basename(path), (None, ""))
                if state == states[path]:
                    hashes[path] = value
    missing = [path for path in states if path not in hashes]
    hashes |= zip(missing, _hash_all(missing, [states[path][0] for path in missing]))
    for folder, inside in folders.items():
        new = {
            os.path.basename(path): (states[path], hashes[path])
            for path in set(inside).intersection(missing)
            if states[path][0] >= _KEPT
            and states[path][2] < began - _SETTLED_NS
            and _state(path) == states[path]
        }
        if new:
            with contextlib.suppress(OSError, ConfigError):  # nothing but time is lost
                _keep(folder, new)
    return [hashes[path] for path in paths]


def joined_hash(size: int, pieces: Sequence[bytes]) -> str:
    """Returns a file's hash from those of its pieces, the first one of which may be empty."""
    return xxhash.xxh3_128_hexdigest(b"".join([size.to_bytes(8, "little"), *pieces]))


def _state(path: str) -> _State:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _hash_all(paths: Sequence[str], sizes: Sequence[int]) -> Iterator[str]:
    """Yields the hash of each file: that of its size and of its pieces' hashes."""
    total = sum(sizes)
    with contextlib.ExitStack() as stack:
        progress = None
        if total >= _LONG:
            progress = stack.enter_context(Progress("hash", unit="file", share_total=float(total)))
        pool = stack.enter_context(ThreadPoolExecutor(min(16, os.cpu_count() or 1)))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        pieces = [
            [pool.submit(_hash_piece, path, start) for start in range(0, max(size, 1), PIECE)]
            for path, size in zip(paths, sizes)
        ]
        for path, size, futures in zip(paths, sizes, pieces):
            hashes = []
            for future in futures:
                try:
                    hashes.append(future.result())
                except OSError as error:
                    raise DataError(f"{path}: cannot be read: {error.strerror}") from error
                if progress is not None:
                    nbytes = min(PIECE, size - (len(hashes) - 1) * PIECE)
                    progress.advance(len(hashes) == len(futures), nbytes, share=float(nbytes))
            yield joined_hash(size, hashes)


def _hash_piece(path: str, start: int) -> bytes:
    """Returns the hash of a file's bytes from `start` on, of a piece at most."""
    digest = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:
        left = min(PIECE, os.fstat(file.fileno()).st_size - start)
        buffer = memoryview(bytearray(max(0, min(_CHUNK, left))))
        file.seek(start)
        while left > 0 and (count := file.readinto(buffer[:left])):
            digest.update(buffer[:count])
            left -= count
    return digest.digest()


_Kept = Mapping[str, tuple[_State, str]]
"""The state and the hash of files by name."""


def _cache() -> Path:
    return cache_folder() / "hashes"


def _place(folder: str) -> Path:
    return _cache() / f"{hashlib.blake2b(os.fsencode(folder), digest_size=10).hexdigest()}.json"


def _read(folder: str) -> dict[str, tuple[_State, str]]:
    """Returns what is kept of a folder's files; nothing where that is damaged."""
    try:
        data = json.loads(_place(folder).read_bytes())
        if data["folder"] != folder or data["check"] != value_fingerprint(data["files"]):
            return {}
        return {name: (tuple(state), value) for name, (state, value) in data["files"].items()}
    except (OSError, ConfigError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _keep(folder: str, new: _Kept) -> None:
    """Adds hashes to those of a folder; those of files that are gone or changed are dropped."""
    old = {
        name: each
        for name, each in _read(folder).items()
        if name not in new and _is_same(os.path.join(folder, name), each[0])
    }
    files = json.loads(json.dumps({**old, **new}))
    _cache().mkdir(parents=True, exist_ok=True)
    with atomic(_place(folder)) as partial:
        record = {"folder": folder, "files": files, "check": value_fingerprint(files)}
        partial.write_text(json.dumps(record), encoding="utf-8")
    _evict()


def _is_same(path: str, state: _State) -> bool:
    try:
        return _state(path) == state
    except DataError:
        return False


def _evict() -> None:
    """Removes the files of the cache that were written longest ago, down to the limit."""
    files = []
    for path in _cache().glob("*.json"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            files.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= _LIMIT:
            break
        path.unlink(missing_ok=True)
        total -= size
