"""A test collection by one name: a folder in BEIR's layout, or an `irds:` or `docstrings:` id."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow.fs as pafs

from raydist.data import docstrings
from raydist.data.files import PathLike, filesystem, is_uri, outages, unreachable
from raydist.data.formats import irds
from raydist.data.readers import read_qrels, read_queries
from raydist.data.sources import path_list
from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource
from raydist.errors import ConfigError, DataError
from raydist.records import Qrels, Query

SPLIT = "test"
"""The split of a collection that is measured, unless another is named."""

_PACKED = r"(?:\.(?:gz|zst|bz2|xz))?"
_TEXTS = rf"\.(?:jsonl|ndjson|json|tsv|csv|parquet|arrow|trec){_PACKED}"
_GRADES = rf"\.(?:tsv|txt|qrels?|parquet|jsonl?){_PACKED}"
_SHARD_OF = r"-\d{5}-of-\d{5}"
_SHARD = rf"(?:{_SHARD_OF})?"
_SPLITS = "(?:qrels|data|default)"  # folders with a file of judgements for each split


@dataclass(frozen=True, slots=True)
class Collection:
    """A corpus with queries and judgements: where they are and how to read them.

    Attributes:
        name: what was asked for, with the split.
        corpus: the documents.
        queries: at least those that are judged.
        qrels: the judgements of one split.
    """

    name: str
    corpus: CorpusSource
    queries: QueriesSource
    qrels: QrelsSource

    def judged(self) -> tuple[list[Query], Qrels]:
        """Returns the queries that are judged, in their order, and the judgements.

        Raises:
            DataError: they cannot be read, or no query is judged.
        """
        qrels = read_qrels(self.qrels)
        queries = [query for query in read_queries(self.queries) if query.query_id in qrels]
        if not queries:
            raise DataError(f"{self.name}: no query is judged: the ids of both are others")
        return queries, qrels


def find_collection(place: PathLike, split: str = SPLIT) -> Collection:
    """Returns the collection of a name.

    Args:
        place: a folder or its URI with `corpus.*`, `queries.*` and `qrels/SPLIT.*` or `qrels.*`
            (files in any format that is read, or folders of Parquet files as on the Hugging Face
            hub), `irds:ID`, or `docstrings:PACKAGES`.
        split: whose judgements; a folder of the split's name may have its queries, too. `irds:` ids
            have their own.

    Raises:
        ConfigError: the place is not one path, or the split not a name.
        DataError: a part is missing.
    """
    if not isinstance(place, str | os.PathLike) or not os.fspath(place):
        raise ConfigError(f"place = {place!r}: expected a folder, its URI, irds:ID or docstrings:")
    if not isinstance(split, str) or not split:
        raise ConfigError(f"split = {split!r}: expected a name, such as {SPLIT}")
    (text,) = path_list(place)
    if irds.is_dataset(text):
        return _of(text, [text], [text], [text])
    if text.startswith(docstrings.PREFIX):
        name, _, own = text.partition("/")
        part = f"{name}/{own or split}"
        return _of(part, [name], [part], [part])
    base, mark, options = text.partition("?") if is_uri(text) else (text, "", "")
    names = _names(text, *filesystem(text))

    def files(what: str, *patterns: str) -> list[str]:
        for pattern in patterns:
            if chosen := [name for name in names if re.fullmatch(pattern, name)]:
                shards = "[^/]+" in pattern or re.search(_SHARD_OF, chosen[0])
                taken = chosen if shards else chosen[:1]
                return [posixpath.join(base, name) + mark + options for name in taken]
        raise DataError(f"{text}: no {what}")

    own = re.escape(split)
    whole = (rf"qrels{_GRADES}",) if split == SPLIT else ()
    queries = (rf"{own}/queries{_TEXTS}", rf"queries{_TEXTS}", rf"queries/[^/]+{_TEXTS}")
    qrels = (rf"{_SPLITS}/{own}{_SHARD}{_GRADES}", rf"{own}/qrels{_GRADES}")
    return _of(
        f"{text} ({split})",
        files("corpus.jsonl", rf"corpus{_TEXTS}", rf"corpus/[^/]+{_TEXTS}"),
        files("queries.jsonl", *queries),
        files(_absent(split, names), *qrels, *whole),
    )


def _of(name: str, corpus: list[str], queries: list[str], qrels: list[str]) -> Collection:
    return Collection(
        name,
        CorpusSource(path=tuple(corpus)),
        QueriesSource(path=tuple(queries)),
        QrelsSource(path=tuple(qrels)),
    )


def _names(text: str, where: pafs.FileSystem, folder: str) -> list[str]:
    """Returns the files of a folder and of the folders in it, relative to it, sorted."""
    try:
        root = where.get_file_info(pafs.FileSelector(folder, allow_not_found=False))
        infos = list(root)
        for each in root:
            if each.type == pafs.FileType.Directory and not each.base_name.startswith((".", "_")):
                infos += where.get_file_info(pafs.FileSelector(each.path))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{text}: no such folder; a collection is a folder with corpus.jsonl, queries.jsonl "
            "and qrels/test.tsv, irds:ID, or docstrings:PACKAGE"
        ) from None
    except outages() as error:
        raise unreachable(text, error) from error
    start = folder.rstrip("/") + "/"
    files = (each.path for each in infos if each.type == pafs.FileType.File)
    return sorted(path.removeprefix(start) for path in files)


def _absent(split: str, names: Iterable[str]) -> str:
    """Returns what is missing where a split has no judgements."""
    known = re.compile(rf"{_SPLITS}/([^/]+?){_SHARD}{_GRADES}|([^/]+)/qrels{_GRADES}")
    matches = map(known.fullmatch, names)
    splits = {match[1] or match[2] for match in matches if match is not None}
    others = f"; split = {split!r}: expected one of {', '.join(sorted(splits))}" if splits else ""
    return f"qrels/{split}.tsv{others}"
