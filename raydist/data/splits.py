"""Cutting a corpus into splits by its bytes alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Required, TypedDict

from raydist.data import docstrings
from raydist.data.files import Paths, compression_of, is_uri, open_input
from raydist.data.formats import irds, parquet, trec
from raydist.data.sources import SUFFIXES, InputFile, detect, expand, join_paths, path_list
from raydist.errors import DataError

_CORPUS_NAMES = ("corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.zst")


class Split(TypedDict, total=False):
    """A part of a corpus: bytes of a file, a row group of it, or rows of an `irds:` data set."""

    path: Required[str]
    format: Required[str]
    start: int
    stop: int | None
    compression: str | None
    group: int


def plan_splits(
    path: Paths, *, format: str | None = None, split_bytes: int = 32 << 20
) -> list[Split]:
    """Returns the splits of a corpus in order, fixed by the data alone.

    A plain text file is cut at the first record end at or after each multiple of `split_bytes`, a
    Parquet file at row groups, a compressed file not at all.

    Args:
        path: a path, glob, directory, URI or `irds:` id, or several of them.
        format: `jsonl`, `tsv`, `parquet` or `trec`; detected from name or content if None.
        split_bytes: size of a split.

    Raises:
        DataError: there is no such input, its format is unknown, or all files are empty.
    """
    splits: list[Split] = []
    for each in path_list(path):
        if irds.is_dataset(each):
            rows = irds.split_rows(each)
            splits.extend(
                {"path": each, "format": "irds", "start": start, "stop": stop}
                for start, stop in rows
            )
            continue
        files = expand(resolve(each, "corpus"), () if format else SUFFIXES, _CORPUS_NAMES)
        # Looking at a file on an object store takes tens of milliseconds.
        with ThreadPoolExecutor(16 if is_uri(each) else 1) as pool:
            for part in pool.map(lambda file: plan_file(file, format, split_bytes), files):
                splits.extend(part)
    if not splits:
        raise DataError(f"{join_paths(path)}: no documents; all files are empty")
    return splits


def plan_file(file: InputFile, format: str | None, split_bytes: int) -> list[Split]:
    """Returns the splits of one file, none if it is empty."""
    if not file.size:
        return []
    compression = compression_of(file.path)
    kind = detect(file.path, format)
    base: Split = {"path": file.path, "format": kind}
    if kind == "parquet":
        rows = parquet.row_groups(file.path)
        return [{**base, "group": group} for group, count in enumerate(rows) if count]
    if compression:
        return [{**base, "start": 0, "stop": None, "compression": compression}]
    end = trec.end_of_record(file.path) if kind == "trec" else b"\n"
    cuts = [0, *_cuts(file, end, split_bytes), file.size]
    return [
        {**base, "start": start, "stop": stop, "compression": None}
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


def resolve(path: str, part: str) -> str:
    """Returns a path itself, or the file of the docstring collection that it stands for.

    `docstrings:numpy+scipy/test` are the queries and judgements of its test split.
    """
    if not path.startswith(docstrings.PREFIX):
        return path
    packages, _, split = path.removeprefix(docstrings.PREFIX).partition("/")
    if split not in ("", "train", "test"):
        raise DataError(f"{path}: expected the split train or test after the slash")
    folder = docstrings.cached([name for name in packages.split("+") if name])
    if part == "corpus":
        return str(folder / "corpus.jsonl")
    return str(folder / split / {"queries": "queries.jsonl", "qrels": "qrels.txt"}[part])
