"""What tells the contents of inputs apart: short texts that manifests hold.

    full:HEX   names and all bytes of files; on an object store size, tag and version
    fast:HEX   names, sizes and times of change of files; on an object store as above

What counts is what the reader reads: its files and their names, in order, wherever they lie and
however their place is spelled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import xxhash

from raydist import log
from raydist.data.file_hashes import PIECE, file_hashes, joined_hash
from raydist.data.files import Paths, filesystem, is_uri, open_input
from raydist.data.formats import irds
from raydist.data.parts import CORPUS, FILES, QRELS, QUERIES, SAMPLES, sample_files
from raydist.data.sampled import was_fingerprint
from raydist.data.sources import InputFile, path_list
from raydist.data.spec import AnySource, CorpusSource, QrelsSource, QueriesSource
from raydist.data.spool import is_spooled
from raydist.errors import DataError, JobError
from raydist.fingerprints import Contents, Form
from raydist.stores.tags import has_tags, object_tags

_THREADS = 16


def contents(source: AnySource | Paths, form: Form = "full", part: str = "files") -> Contents:
    """Returns what tells the content of an input from others, computed when it is needed.

    Args:
        source: a source, or the paths of one.
        form: of the fingerprint.
        part: what paths are read as: `files` or `samples`.
    """
    spec: AnySource | None = source if isinstance(source, AnySource) else None
    paths = list(spec.paths) if spec else path_list(source)  # type: ignore[arg-type]
    options: dict[str, Any] = spec.options() if spec else {}
    return Contents(
        partial(_fingerprint, spec or paths, part),
        form,
        lambda recorded: was_fingerprint(recorded, paths, options),
    )


def file_fingerprint(source: AnySource | Paths, form: Form = "full") -> str:
    """Returns a text that differs between inputs of different content.

    Raises:
        DataError: there is no such input, or it cannot be read.
    """
    return str(contents(source, form))


def input_files(source: AnySource | Paths, part: str = "files") -> list[InputFile]:
    """Returns the files that the reader of a source reads, in order.

    Raises:
        DataError: there are none.
    """
    return [file for _, files in _files(source, part) for file in files]


def _files(source: AnySource | Paths, part: str) -> Iterator[tuple[str, list[InputFile]]]:
    """Yields each path with its files; a collection of ir_datasets has none."""
    paths = source.paths if isinstance(source, AnySource) else path_list(source)
    for path in paths:
        if path.startswith(irds.PREFIX):
            yield path, []
        elif isinstance(source, CorpusSource):
            yield path, CORPUS.files(path, source.format)
        elif isinstance(source, QueriesSource):
            yield path, QUERIES.files(path, source.format)
        elif isinstance(source, QrelsSource):
            yield path, QRELS.files(path)
        else:
            yield path, sample_files(path) if part == SAMPLES.name else FILES.files(path)


def _fingerprint(source: AnySource | Paths, part: str, form: Form) -> str:
    names: list[str] = []
    files: list[InputFile] = []
    for path, of_path in _files(source, part):
        names += [_name(path, file) for file in of_path] or [path]
        files += of_path or [InputFile("", 0)]
    tokens = iter(_tokens([file.path for file in files if file.path], form))
    digest = xxhash.xxh3_128()
    for name, file in zip(names, files):
        token = next(tokens) if file.path else ""
        for text in (name, token):
            data = text.encode("utf-8", "surrogateescape")
            digest.update(len(data).to_bytes(8, "little") + data)
    return f"{form}:{digest.hexdigest()}"


def _name(path: str, file: InputFile) -> str:
    """Returns a file's name, the true one where a link of the same suffix was asked for."""
    name = PurePosixPath(file.path)
    if not is_uri(file.path) and os.path.abspath(os.path.expanduser(path)) == file.path:
        true = PurePosixPath(os.path.realpath(file.path))
        name = true if true.suffix == name.suffix else name
    return name.name


class _Kinds(NamedTuple):
    """Files by where they lie."""

    local: list[str]
    tagged: list[str]
    other: list[str]

    @classmethod
    def of(cls, paths: Sequence[str]) -> _Kinds:
        kinds = cls([], [], [])
        for path in paths:
            if not is_uri(path):
                kinds.local.append(path)
            elif has_tags(path):
                kinds.tagged.append(path)
            else:
                kinds.other.append(path)
        return kinds


def _tokens(paths: Sequence[str], form: Form) -> list[str]:
    """Returns what stands for each file's content."""
    local, tagged, other = _Kinds.of(paths)
    tokens = {}
    if tagged:
        try:
            tokens = dict(zip(tagged, object_tags(tagged)))
        except (DataError, JobError) as error:  # a store that only pyarrow can read
            log.warn(f"{error}; its files are read to tell their content")
            other += tagged
    if form == "full":
        tokens |= zip(local, file_hashes(local))
        with ThreadPoolExecutor(_THREADS) as pool:
            tokens |= zip(other, pool.map(_hash_stream, other))
    else:  # what came through a pipe is a new file each time
        piped = [path for path in local if is_spooled(path)]
        tokens |= {path: _state(path) for path in (*local, *other)} | dict(
            zip(piped, file_hashes(piped))
        )
    return [tokens[path] for path in paths]


def _hash_stream(path: str) -> str:
    """Returns what `file_hashes` returns of the same bytes."""
    size, pieces = 0, []
    with open_input(path) as source:
        while piece := source.read(PIECE):
            size += len(piece)
            pieces.append(xxhash.xxh3_128_digest(piece))
    return joined_hash(size, pieces or [xxhash.xxh3_128_digest(b"")])


def _state(path: str) -> str:
    """Returns a file's size and the time of its last change."""
    where, name = filesystem(path)
    info = where.get_file_info(name)
    return f"{info.size} {info.mtime_ns}"
