"""One split of a corpus on its way into an index: read, analysed, inverted, written.

Nothing here knows of other splits, so it runs in any process and any order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from raydist.bow.build.invert import Inverter
from raydist.bow.build.runs import write_run
from raydist.bow.format.writing import SegmentWriter
from raydist.data.rejects import Rejects
from raydist.data.store.writer import StoreWriter
from raydist.shard_files import Split, Stats
from raydist.text.analyzer import Analyzer

Read = Callable[[Split, Rejects], Iterable[pa.Table]]
"""Reads a split as tables of the DOCUMENTS schema, noting skipped lines; must be picklable."""

_BASE_MEMORY = 64 << 20  # tables being read, batches, files being written
LEAST_MEMORY = 128 << 20
"""The least `memory_per_worker`."""


@dataclass(frozen=True, slots=True)
class Options:
    """What decides the result, and how much memory a worker may take.

    Attributes:
        analyzer: how text becomes terms.
        compress: bit-packed postings; False writes raw arrays.
        block_size: postings per block.
        merge: one segment; False leaves one per split (and per filling of the memory).
        store: keep the documents' texts.
        batch_size: documents analysed at once.
        memory: bytes that a worker may use for a split or a range of terms.
    """

    analyzer: Analyzer = field(default_factory=Analyzer)
    compress: bool = True
    block_size: int = 128
    merge: bool = True
    store: bool = True
    batch_size: int = 10_000
    memory: int = 1 << 30


def limit_documents(splits: Sequence[Split], read: Read, max_docs: int) -> tuple[list[Split], Read]:
    """Returns the splits and the reading of the first `max_docs` documents.

    It reads up to there once, since nobody else knows how many documents a split has.
    """
    kept: list[Split] = []
    left = max_docs
    for split in splits:
        if not left:
            break
        rows = 0
        for table in read(split, Rejects()):
            rows += table.num_rows
            if rows >= left:
                break
        take = min(rows, left)
        left -= take
        if take:
            kept.append({**split, "max_rows": take})
    return kept, partial(_first_rows, read)


def _first_rows(read: Read, split: Split, rejects: Rejects) -> Iterable[pa.Table]:
    left = int(split["max_rows"])
    for table in read(split, rejects):
        yield table.slice(0, left)
        left -= table.num_rows
        if left <= 0:
            return


class SplitWorker:
    """Turns one split after another into runs, or into segments if they are not merged."""

    def __init__(self, read: Read, options: Options) -> None:
        self._read = read
        self._options = options
        # Machine code is loaded here, so that a split's time is that of its work.
        inverter = Inverter(options.analyzer)
        inverter.add(pa.array(["-"]), pa.array(["-"]))
        inverter.postings()

    def __call__(self, split: Split, target: Path) -> Stats:
        """Writes a split's runs or segments, its store and its rejects below `target`."""
        began, cpu = time.time(), time.process_time()
        target.mkdir(parents=True)
        options = self._options
        rejects = Rejects(target / "rejects.jsonl")
        texts = StoreWriter(target / "store") if options.store else None
        stats: Stats = {"documents": 0, "bytes": 0, "empty": 0, "first_empty": None, "parts": []}
        inverter = Inverter(options.analyzer)
        for table in self._read(split, rejects):
            for start in range(0, table.num_rows, options.batch_size):
                batch = table.slice(start, options.batch_size)
                inverter.add(batch["doc_id"], _contents(batch))
                if inverter.nbytes > options.memory - _BASE_MEMORY:
                    self._write(inverter, target, stats)
                    inverter = Inverter(options.analyzer)
            stats["bytes"] += table["text"].nbytes
            if texts is not None:
                texts.append(table)
        if inverter.documents:
            self._write(inverter, target, stats)
        if texts is not None:
            texts.close(index=False)
        stats["rejected"] = rejects.count
        stats |= {"began": began, "cpu_seconds": time.process_time() - cpu}
        return stats

    def _write(self, inverter: Inverter, target: Path, stats: Stats) -> None:
        postings = inverter.postings()
        part = f"{len(stats['parts']):05d}"
        if self._options.merge:
            about = write_run(target / part, postings)
        else:
            writer = SegmentWriter(
                target / part,
                lengths_N=postings.lengths_N,
                doc_ids=postings.doc_ids,
                compress=self._options.compress,
                block_size=self._options.block_size,
            )
            writer.append(postings.terms, postings.indptr_T1, postings.docs_P, postings.tfs_P)
            about = writer.close()
        stats["parts"].append(part)
        stats["documents"] += about["documents"]
        empty = (postings.lengths_N == 0).nonzero()[0]
        stats["empty"] += len(empty)
        if len(empty) and stats["first_empty"] is None:
            stats["first_empty"] = postings.doc_ids[int(empty[0])].as_py()


def _contents(table: pa.Table) -> pa.ChunkedArray:
    """Returns what is indexed: title and text; a line end parts words, and an empty one is none."""
    titles, texts = table["title"], table["text"]
    if not pc.max(pc.binary_length(titles)).as_py():
        return texts
    return pc.binary_join_element_wise(
        titles.cast(pa.large_string()), texts, pa.scalar("\n", pa.large_string())
    )
