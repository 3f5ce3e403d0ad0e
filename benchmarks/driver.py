"""What the driver alone does for a corpus of N documents: its seconds and its peak of memory.

    python -m benchmarks.driver ids=10000000      # about a minute and 1.5 GB of disk

Planning the splits of many files, joining the workers' stores and finding repeated ids, manifests,
looking ids up, checking a list of ids, and writing a run of N / 10 rows. There are no texts: those
are for workers. What the workers leave for the driver is made first and not counted. Memory is what
the process itself takes (RssAnon); pages of mapped files are the system's, which drops them as it
needs.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.report import arguments, memory_bytes
from raydist.data.ids import IdList, report_absent
from raydist.data.splits import plan_splits
from raydist.data.store.build import concatenate
from raydist.data.store.reader import DocumentStore
from raydist.data.store.writer import StoreWriter
from raydist.fingerprints import value_fingerprint
from raydist.manifest import read_manifest, write_manifest
from raydist.records import DOCUMENTS, RUN
from raydist.run_writer import open_run
from raydist.shard_files import check_same_splits, done_shards, marker, shard_path

DEFAULTS = {"ids": 10_000_000, "folder": ""}
_SHARDS = 256
_LOOKUPS = 1_000_000
_ROWS_PER_QUERY = 1000
_PIECE = 1 << 18


def main() -> None:
    """Prints one line of JSON."""
    settings = arguments(DEFAULTS)
    with tempfile.TemporaryDirectory(dir=settings["folder"] or None) as folder:
        os.environ["RAYDIST_CACHE"] = f"{folder}/cache"
        print(json.dumps(measure(settings["ids"], Path(folder))), flush=True)


def measure(count: int, folder: Path) -> dict[str, float]:
    """Returns the seconds of each step, their sum, and the peak in MB."""
    prepare(count, folder)
    seconds: dict[str, float] = {}
    with Peak() as peak:
        for name, step in (
            ("planning", plan),
            ("joining", join),
            ("manifests", manifests),
            ("lookups", look_up),
            ("lists", check_list),
            ("run", write_run),
        ):
            began = time.perf_counter()
            step(count, folder)
            seconds[name] = time.perf_counter() - began
    return {**seconds, "total": sum(seconds.values()), "peak_mb": peak.bytes / 1e6}


def names(start: int, stop: int) -> pa.Array:
    """Returns ids as long as those of MS MARCO v2's passages (about 26 bytes)."""
    numbers = pa.array(np.arange(start, stop))
    padded = pc.utf8_lpad(numbers.cast(pa.string()), 12, "0")
    return pc.binary_join_element_wise("msmarco_passage", padded, "_")


def pieces(start: int, stop: int) -> Iterator[pa.Array]:
    """Yields ids some at a time."""
    for first in range(start, stop, _PIECE):
        yield names(first, min(stop, first + _PIECE))


def prepare(count: int, folder: Path) -> None:
    """Writes what workers leave: shards of stores without texts, and their done markers."""
    files = folder / "corpus"
    files.mkdir()
    for number in range(count // 10_000):
        (files / f"{number:06d}.jsonl").write_text('{"id": "1", "text": "t"}\n')
    step = -(-count // _SHARDS)
    for number in range(_SHARDS):
        shard = shard_path(folder / "shards", number)
        writer = StoreWriter(shard)
        for ids in pieces(number * step, min(count, (number + 1) * step)):
            texts = pa.repeat(pa.scalar("-", pa.large_string()), len(ids))
            columns = [ids, pa.repeat(pa.scalar(""), len(ids)), texts]
            writer.append(pa.table(columns, schema=DOCUMENTS))
        writer.close(index=False)
        stats = {"documents": step}
        marker(folder / "shards", number).write_text(
            json.dumps({"stats": stats, "check": value_fingerprint(stats)})
        )
    with open(folder / "ids.txt", "w", encoding="utf-8") as out:
        for ids in pieces(0, count // 10):
            out.write("\n".join(ids.to_pylist()) + "\n")


def plan(count: int, folder: Path) -> None:
    """Cuts a corpus of many files, and notes what the splits are."""
    splits = plan_splits(folder / "corpus")
    (folder / "planned").mkdir()
    check_same_splits(folder / "planned", splits)


def join(count: int, folder: Path) -> None:
    """Joins the stores of the shards, indexes their ids and finds those that occur twice."""
    assert len(done_shards(folder / "shards")) == _SHARDS
    stores = [shard_path(folder / "shards", number) for number in range(_SHARDS)]
    facts = concatenate(stores, folder / "store")
    assert facts["documents"] == count and facts["duplicates"] == 0
    shutil.rmtree(folder / "shards")


def manifests(count: int, folder: Path) -> None:
    """Writes and reads a manifest that names every shard."""
    shards = [f"segments/{number:05d}" for number in range(16_384)]
    write_manifest(folder, {"format": 1, "kind": "bow-index", "segments": shards})
    read_manifest(folder)


def look_up(count: int, folder: Path) -> None:
    """Looks up a million ids anywhere in the collection, a thousand at a time."""
    store = DocumentStore.open(folder / "store")
    rng = np.random.default_rng(0)
    for _ in range(_LOOKUPS // 1000):
        rows = rng.integers(0, count, 1000)
        assert (store.positions(store.ids_at(rows)) == rows).all()


def check_list(count: int, folder: Path) -> None:
    """Reads a list of a tenth of the ids, and looks for those that no document has."""
    store = DocumentStore.open(folder / "store")
    ids = IdList.read(folder / "ids.txt")
    assert len(ids) == count // 10
    report_absent(str(folder / "ids.txt"), None, store.doc_ids.chunks, "error")


def write_run(count: int, folder: Path) -> None:
    """Writes a run of a tenth as many rows as ids, a thousand a query."""
    with open_run(folder / "run.txt", RUN, "tag") as write:
        scores = np.linspace(30, 1, _ROWS_PER_QUERY, dtype=np.float32)
        for first in range(0, count // 10, _PIECE):
            ids = names(first, min(count // 10, first + _PIECE))
            rows = np.arange(first, first + len(ids))
            queries = pa.array(rows // _ROWS_PER_QUERY).cast(pa.string())
            columns = [queries, ids, pa.array(scores[rows % _ROWS_PER_QUERY])]
            write(pa.table(columns, schema=RUN))


class Peak:
    """The most memory of this process while the block runs, looked at twenty times a second."""

    bytes = 0

    def __enter__(self) -> Peak:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.bytes = max(self.bytes, memory_bytes("RssAnon"))


if __name__ == "__main__":
    main()
