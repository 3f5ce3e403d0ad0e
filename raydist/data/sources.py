"""Which files an input stands for, and which format a file has."""

from __future__ import annotations

import glob
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow.fs as pafs

from raydist.data.encodings import START_BYTES, unread
from raydist.data.files import Paths, filesystem, head, outages, unreachable
from raydist.data.folders import files_below, inputs_below
from raydist.data.formats import arrow, csv, json
from raydist.data.spec import Format
from raydist.data.spool import is_stream, spooled
from raydist.errors import DataError

_HUB_SPLITS = {"train", "test", "validation", "valid", "val", "dev"}
_PACKED = re.compile(r"\.(gz|zst|bz2|xz)$")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of an input: an absolute path or a URI, and its size in bytes on disk."""

    path: str
    size: int


def path_list(paths: Paths) -> list[str]:
    """Returns one path or several as a list of strings."""
    return [os.fspath(p) for p in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def join_paths(paths: Paths) -> str:
    """Returns paths as text for messages."""
    return ", ".join(path_list(paths))


def expand(
    paths: Paths, accept: Iterable[str] = (), well_known: Sequence[str] = ()
) -> list[InputFile]:
    """Returns the files behind paths, globs, directories and URIs, in a fixed order.

    A directory stands for its well-known file if it has one (`corpus.jsonl`), else for all files
    below it with an accepted suffix, sorted by path; names that begin with `.` or `_` are left out.

    Args:
        paths: one path, or several in order.
        accept: suffixes (`.jsonl`) to take from a directory, compressed or not; empty takes all.
        well_known: names, best first, the first of which represents a directory that has it.

    Raises:
        DataError: there is no such file, or a directory has none with an accepted suffix.
    """
    return [
        file
        for path in path_list(paths)
        for file in _expand(os.fspath(path), tuple(accept), tuple(well_known))
    ]


def _expand(path: str, accept: tuple[str, ...], well_known: tuple[str, ...]) -> list[InputFile]:
    if is_stream(path):
        path = spooled(path)
    where, name = filesystem(path)
    if isinstance(where, pafs.LocalFileSystem):
        before, after = "", ""
    else:
        # Scheme and options (after a question mark) around the file system's name for the path.
        query = re.search(r"\?[^/?]+=[^/]*$", path)
        after = query.group() if query else ""
        bare = path.removesuffix(after).rstrip("/")
        before = bare.removesuffix(name) if bare.endswith(name) else path.split("//")[0] + "//"
    info = _info(path, where, name)
    if info.type == pafs.FileType.File:
        infos = [info]
    elif info.type == pafs.FileType.Directory:
        if (data_set := arrow.dataset_files(path, where, name)) is not None:
            infos = where.get_file_info(data_set)
            return [InputFile(before + each.path + after, each.size) for each in infos]
        known = where.get_file_info([posixpath.join(name, each) for each in well_known])
        infos = [each for each in known if each.type == pafs.FileType.File][:1]
        infos = infos or [
            each for each in inputs_below(where, name) if _accepted(each.path, accept)
        ]
        _refuse_mixed_splits(path, name, infos)
        if not infos:
            wanted = f" that ends in {', '.join(accept)}" if accept else ""
            raise DataError(f"{path}: this directory holds no file{wanted}")
    elif re.search(r"[*?\[]", name):
        infos = _matching(where, name)
        if not infos:
            raise DataError(f"{path}: no file matches this pattern")
    else:
        raise DataError(f"{path}: {_why_absent(where, name)}")
    return [InputFile(before + each.path + after, each.size) for each in infos]


def _info(path: str, where: pafs.FileSystem, name: str) -> Any:
    try:
        return where.get_file_info(name)
    except outages() as error:
        raise unreachable(path, error) from error


def _why_absent(where: pafs.FileSystem, name: str) -> str:
    """Returns why there is no such file: fsspec says so of a host that does not answer, too."""
    if isinstance(where, pafs.PyFileSystem):
        try:
            where.handler.fs.info(name)
        except OSError as error:
            cause = error.__cause__
            if cause is not None and not isinstance(cause, FileNotFoundError):
                return f"cannot be reached: {cause}"
    return "no such file or directory"


def _refuse_mixed_splits(path: str, folder: str, infos: Sequence[Any]) -> None:
    """Raises DataError for a folder of several splits' files, those of the Hub or BEIR's qrels."""
    shards: dict[str, str] = {}
    for info in infos:
        inside = info.path[len(folder.rstrip("/")) + 1 :]
        match = re.match(r"(.*?([a-z]+))(-\d{5}-of-\d{5})?\.", inside)
        if match is None or not (match.group(3) or match.group(2) in _HUB_SPLITS):
            return
        shards.setdefault(match.group(1), match.group(2))
    if len(shards) > 1 and not _HUB_SPLITS.isdisjoint(shards.values()):
        patterns = ", ".join(f"{path.rstrip('/')}/{shard}*" for shard in sorted(shards))
        raise DataError(f"{path}: this data set has several splits; choose one of {patterns}")


def _accepted(path: str, accept: tuple[str, ...]) -> bool:
    return not accept or re.sub(_PACKED, "", path.lower()).endswith(accept)


def _matching(where: pafs.FileSystem, pattern: str) -> list[Any]:
    if isinstance(where, pafs.LocalFileSystem):
        infos = where.get_file_info(sorted(glob.glob(pattern, recursive=True)))
        return [each for each in infos if each.type == pafs.FileType.File]
    base = posixpath.dirname(re.split(r"[*?\[]", pattern, maxsplit=1)[0]) or "/"
    matcher = re.compile(_glob_to_regex(pattern))
    return [each for each in files_below(where, base) if matcher.fullmatch(each.path)]


def _glob_to_regex(pattern: str) -> str:
    """Returns a glob as a regex: `**/` is any folders, `*` and `?` stay in a name, `[ab]`."""
    tokens = re.findall(r"\*\*/|\*|\?|\[[^\]/]+\]|.", pattern, re.DOTALL)
    meaning = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        meaning.get(t) or (t.replace("[!", "[^") if len(t) > 1 else re.escape(t)) for t in tokens
    )


FORMATS: tuple[str, ...] = get_args(Format)

WHOLE = ("csv", "json", "arrow")
"""Formats whose files cannot be cut: where a record begins is known only after reading the file."""

_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".tsv": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".trec": "trec",
    ".trectext": "trec",
    ".trecweb": "trec",
    ".sgml": "trec",
    ".sgm": "trec",
}

SUFFIXES = tuple(_BY_SUFFIX)
"""Suffixes of the files that a directory stands for; `.gz`, `.zst`, `.bz2` or `.xz` may follow."""


def detect(path: str, format: str | None = None) -> str:
    """Returns one of `FORMATS`.

    Args:
        path: a file.
        format: the user's choice, which wins.

    Raises:
        DataError: the choice is unknown, or neither name nor content show the format.
    """
    if format is not None:
        if format not in FORMATS:
            raise DataError(f"format {format!r}: expected one of {', '.join(FORMATS)}")
        return format
    name = re.sub(_PACKED, "", path.lower())
    suffix = next((suffix for suffix in _BY_SUFFIX if name.endswith(suffix)), None)
    kind = _by_content(path) if suffix is None else _BY_SUFFIX[suffix]
    if kind == "json" and json.is_lines(path):
        return "jsonl"
    if kind == "tsv" and csv.is_quoted(path):
        return "csv"
    return kind


def _by_content(path: str) -> str:
    start = head(path, 4096).lstrip()
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    if start[:1] in (b"{", b"["):
        return "json"
    if re.search(rb"(?i)<(\w+:)?(doc|top|topics?|queries)[>\s]", start):
        return "trec"
    if (what := unread(head(path, START_BYTES))) is not None:
        raise DataError(f"{path}: this is {what} inside; unpack it")
    if b"\0" in start:
        raise DataError(
            f"{path}: this is neither text (UTF-16 needs a byte order mark) nor Parquet nor Arrow"
        )
    if b"\t" in start.split(b"\n", 1)[0] or not start:
        return "tsv"
    raise DataError(
        f"{path}: neither the name nor the first line shows the format; set format= to one of "
        f"{', '.join(FORMATS)}, or write it as jsonl: an object with id and text on each line"
    )
