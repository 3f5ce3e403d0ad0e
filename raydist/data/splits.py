"""Cutting a corpus into splits by its bytes alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Required, TypedDict

from raydist import log
from raydist.data.files import Paths, compression_of, is_uri, open_input
from raydist.data.formats import irds, parquet, trec
from raydist.data.parts import CORPUS
from raydist.data.sources import WHOLE, InputFile, detect, join_paths, path_list
from raydist.errors import DataError

MOST = 16_384
"""Most splits of a corpus, whatever its size: each is a shard on the disk that is opened and mapped
again."""

_LONG = 64 << 20  # compressed bytes that a worker reads for about a minute


class Split(TypedDict, total=False):
    """A part of a corpus: bytes of a file, a row group of it, or rows of an `irds:` data set.

    `size` is its bytes (rows of a data set). Several small parts of a corpus of very many files are
    one split, with these as its `parts`.
    """

    path: Required[str]
    format: Required[str]
    size: Required[int]
    parts: list[Split]
    start: int
    stop: int | None
    compression: str | None
    group: int


def plan_splits(
    path: Paths, *, format: str | None = None, split_bytes: int = 32 << 20
) -> list[Split]:
    """Returns the splits of a corpus in order, fixed by the data alone.

    A plain text file is cut at the first record end at or after each multiple of `split_bytes`, a
    Parquet file at row groups, a compressed file, CSV, JSON and Arrow not at all.

    Args:
        path: a path, glob, directory, URI or `irds:` id, or several of them.
        format: one of `sources.FORMATS`; detected from name or content if None.
        split_bytes: size of a split, more where there would be more than `MOST` of them.

    Raises:
        DataError: there is no such input, its format is unknown, or all files are empty.
    """
    inputs: list[tuple[str, list[InputFile]]] = []
    for each in path_list(path):
        files = [] if irds.is_dataset(each) else CORPUS.files(each, format)
        inputs.append((each, files))
    total = sum(file.size for _, files in inputs for file in files)
    size = max(split_bytes, -(-total // MOST))
    splits: list[Split] = []
    for each, files in inputs:
        if irds.is_dataset(each):
            splits += map(partial(_rows, each), irds.split_rows(each))
            continue
        # Looking at a file on an object store takes tens of milliseconds.
        with ThreadPoolExecutor(16 if is_uri(each) else 1) as pool:
            for part in pool.map(lambda file: plan_file(file, format, size), files):
                splits += part
    if not splits:
        raise DataError(f"{join_paths(path)}: no documents; all files are empty")
    return _bundled(splits)


def _rows(path: str, rows: tuple[int, int | None]) -> Split:
    start, stop = rows
    size = 1 if stop is None else stop - start
    return {"path": path, "format": "irds", "start": start, "stop": stop, "size": size}


def _bundled(splits: list[Split]) -> list[Split]:
    """Makes one split of several small ones in a row where there are too many."""
    if len(splits) <= MOST:
        return splits
    ends = list(itertools.accumulate(split["size"] + 1 for split in splits))
    share = -(-ends[-1] // MOST)
    bundles = itertools.groupby(zip(ends, splits), key=lambda pair: (pair[0] - 1) // share)
    return [_joined([split for _, split in pairs]) for _, pairs in bundles]


def _joined(parts: list[Split]) -> Split:
    if len(parts) == 1:
        return parts[0]
    size = sum(part["size"] for part in parts)
    return {"path": parts[0]["path"], "format": parts[0]["format"], "size": size, "parts": parts}


def warn_of_idle_workers(splits: Sequence[Mapping[str, Any]], workers: int) -> None:
    """Says so where a long file that cannot be cut leaves workers without anything to read."""
    whole = [s for s in splits if s.get("compression") or s["format"] in WHOLE]
    longest = max(whole, key=lambda split: split["size"], default=None)
    if len(splits) >= workers or longest is None or longest["size"] < _LONG:
        return
    path, kind, packed = longest["path"], longest["format"], longest.get("compression")
    better = "as jsonl" if kind in WHOLE else "decompressed"
    log.warn(
        f"{path}: {log.size(longest['size'])} of {packed or kind} data cannot be cut, so one "
        f"worker reads all of it and {workers - len(splits)} of {workers} have nothing to do; give "
        f"the corpus as several files, or {better}"
    )


def plan_file(file: InputFile, format: str | None, split_bytes: int) -> list[Split]:
    """Returns the splits of one file, none if it is empty."""
    if not file.size:
        return []
    compression = compression_of(file.path)
    kind = detect(file.path, format)
    base: Split = {"path": file.path, "format": kind, "size": file.size}
    if kind == "parquet":
        rows = parquet.row_groups(file.path)
        share = file.size / max(1, sum(rows))
        return [
            {**base, "group": group, "size": int(share * count)}
            for group, count in enumerate(rows)
            if count
        ]
    if compression or kind in WHOLE:
        return [{**base, "start": 0, "stop": None, "compression": compression}]
    end = trec.end_of_record(file.path) if kind == "trec" else b"\n"
    cuts = [0, *_cuts(file, end, split_bytes), file.size]
    return [
        {**base, "start": start, "stop": stop, "compression": None, "size": stop - start}
        for start, stop in itertools.pairwise(cuts)
        if stop > start
    ]


def _cuts(file: InputFile, end: bytes, split_bytes: int) -> Iterator[int]:
    """Yields, for each multiple of the split size, the first record end at or after it."""
    window = 64 << 10
    last = 0
    with open_input(file.path) as source:
        for target in range(split_bytes, file.size, split_bytes):
            if target <= last:
                continue
            at, data = max(0, target - len(end)), b""
            source.seek(at)
            while (cut := data.find(end)) < 0 and (more := source.read(window)):
                keep = data[len(data) - len(end) + 1 :] if len(data) >= len(end) else data
                at += len(data) - len(keep)
                data = keep + more
            if cut < 0:
                return
            last = at + cut + len(end)
            yield last
