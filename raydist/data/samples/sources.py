"""Where samples come from when a file does not hold them: runs, judgements, BEIR, ir_datasets.

Such sources are written once as lines of ids (formats `ids` and `lists` of
`raydist.data.samples.lines`), with the texts in a document store beside them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydist.data import docstrings
from raydist.data.files import head
from raydist.data.formats import irds
from raydist.data.readers import read_documents, read_qrels, read_queries, read_run
from raydist.data.samples.judged import LeftOut, judge_lists, samples_of
from raydist.data.sources import expand
from raydist.data.store.reader import DocumentStore
from raydist.errors import DataError
from raydist.fingerprints import file_fingerprint, value_fingerprint
from raydist.log import Progress
from raydist.records import DOCUMENTS

_SUFFIXES = (".jsonl", ".json", ".tsv", ".txt", ".run", ".trec")


Input = str | os.PathLike[str] | Mapping[str, Any]
"""A path, or the keyword arguments of the reader."""


def arguments(given: Input) -> dict[str, Any]:
    """Returns the keyword arguments of a reader."""
    return dict(given) if isinstance(given, Mapping) else {"path": os.fspath(given)}


def input_key(given: Input) -> str:
    """Returns a fingerprint of an input's content and of how it is read."""
    how = arguments(given)
    paths = how.pop("path")
    several = [paths] if isinstance(paths, str) else list(paths)
    named = (irds.PREFIX, docstrings.PREFIX)  # their content has no files of its own
    content = [path if path.startswith(named) else file_fingerprint(path) for path in several]
    return value_fingerprint([content, how])


@dataclass(frozen=True, slots=True)
class Source:
    """Files of lines, and the stores that their ids refer to.

    Attributes:
        files: the files, in order.
        format: of their lines, None if it is to be found out.
        documents: folder of the document store.
        queries: folder of the query store.
        checked: the ids are known to be in the stores.
        notes: what the user should know.
        made_of: the user's files, where `files` were made of them.
    """

    files: tuple[str, ...]
    format: str | None = None
    documents: Path | None = None
    queries: Path | None = None
    checked: bool = False
    notes: tuple[str, ...] = ()
    made_of: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """What the files are called in messages: a made one with what it was made of."""
        made_of = ", ".join(self.made_of)
        return tuple(f"{made_of} (as {file})" if made_of else file for file in self.files)


def find_source(
    paths: Sequence[str],
    folder: Path,
    *,
    format: str | None,
    corpus: Input | None,
    queries: Input | None,
    qrels: Input | None,
    run: Input | None,
    positives: str,
    relevance: int,
    split: str,
    need_negatives: bool = False,
) -> Source:
    """Returns the lines behind paths, writing them into `folder` where they must be made.

    Args: see `raydist.data.samples.prepare.prepare`.

    Raises:
        DataError: something is missing or contradictory.
    """
    paths = [_docstrings(path) if path.startswith(docstrings.PREFIX) else path for path in paths]
    single = paths[0] if len(paths) == 1 else None
    if single and irds.is_dataset(single):
        return _irds(single, folder, relevance)
    if single and _is_beir(single):
        corpus = corpus or os.path.join(single, "corpus.jsonl")
        queries = queries or os.path.join(single, "queries.jsonl")
        qrels = qrels or _beir_qrels(single, split)
        judged: Input | None = qrels
        files: tuple[str, ...] = ()
        kind: str | None = "qrels"
    else:
        files = tuple(file.path for path in paths for file in expand(path, _SUFFIXES))
        kind = format or _kind(files[0])
        judged = files[0] if kind == "qrels" else qrels
    documents = _store(corpus, folder.parent) if corpus else None
    if kind not in ("run", "qrels"):
        asked = _query_store(queries, folder.parent) if queries else None
        return _relabelled(
            Source(files, format, documents, asked), folder, qrels, relevance, positives
        )
    if not corpus or documents is None:
        raise DataError(f"{paths[0]}: holds ids only; corpus=PATH says where their texts are")
    if not queries:
        raise DataError(f"{paths[0]}: holds ids only; queries=PATH says where the queries are")
    ranked: Input | None = files[0] if kind == "run" else run
    if len(files) > 1:
        raise DataError(f"{', '.join(paths)}: give several runs or judgements as data sets of own")
    left_out = LeftOut()
    lines = samples_of(
        {query.query_id: query.text for query in read_queries(**arguments(queries))},
        qrels=read_qrels(**arguments(judged)) if judged else None,
        run=read_run(**arguments(ranked)) if ranked else None,
        known=DocumentStore.open(documents),
        left_out=left_out,
        positives=positives,
        relevance=relevance,
        need_negatives=need_negatives,
    )
    made = _write(folder, lines, paths, left_out)
    kind = "ids" if judged else "lists"
    return Source(made, kind, documents, None, True, left_out.notes, tuple(paths))


def _relabelled(
    source: Source, folder: Path, qrels: Input | None, relevance: int, positives: str
) -> Source:
    """Turns a teacher's lists into judged samples where judgements are given."""
    if qrels is None:
        return source
    if positives != "retrieved":
        raise DataError(
            f"qrels = {arguments(qrels)['path']}: {source.files[0]} holds samples, which need no "
            "judgements; they go with a run, or with sampler.kind=negatives"
        )
    left_out = LeftOut()
    lines = judge_lists(source.files, read_qrels(**arguments(qrels)), relevance, left_out)
    made = _write(folder, lines, source.files, left_out)
    return Source(
        made, "ids", source.documents, source.queries, False, left_out.notes, source.files
    )


def _write(
    folder: Path, lines: Iterable[Mapping[str, Any]], of: Sequence[str], left_out: LeftOut
) -> tuple[str, ...]:
    """Writes samples as they come; DataError where none comes."""
    path = folder / "samples.jsonl"
    partial = path.with_name(".samples.jsonl.part")
    with (
        open(partial, "w", encoding="utf-8") as out,
        Progress(f"samples of {', '.join(of)}", unit="samples") as progress,
    ):
        for line in lines:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            progress.advance(1)
    if not progress.done:
        partial.unlink()
        reasons = f" ({'; '.join(left_out.notes)})" if left_out.notes else ""
        raise DataError(f"{', '.join(of)}: no usable sample{reasons}")
    os.replace(partial, path)
    return (str(path),)


def _docstrings(path: str) -> str:
    """Returns the training samples of the quickstart's collection."""
    packages = path.removeprefix(docstrings.PREFIX).split("+")
    return str(docstrings.cached([p for p in packages if p]) / "train.jsonl")


def _kind(file: str) -> str | None:
    """Returns `run` or `qrels` where a file's first line looks like one, else None."""
    first = head(file).lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
    if first.lstrip().startswith("{"):
        return None
    cells = first.split()
    if len(cells) == 6 and cells[1].upper() == "Q0" and _is_int(cells[3]):
        return "run"
    if len(cells) == 4 and _is_int(cells[3]) and cells[1] in ("0", "Q0"):
        return "qrels"
    if len(cells) == 3 and [c.lower() for c in cells] == ["query-id", "corpus-id", "score"]:
        return "qrels"
    return None


def _is_int(text: str) -> bool:
    return text.lstrip("-").isdigit()


def _is_beir(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "corpus.jsonl")) and os.path.isfile(
        os.path.join(path, "queries.jsonl")
    )


def _beir_qrels(path: str, split: str) -> str:
    for name in (f"qrels/{split}.tsv", f"{split}/qrels.txt", "qrels.tsv", "qrels.txt"):
        if os.path.isfile(os.path.join(path, name)):
            return os.path.join(path, name)
    raise DataError(f"{path}: no qrels/{split}.tsv; split= names another, qrels= another file")


def _store(corpus: Input, parent: Path) -> Path:
    """Returns the store of a corpus; data sets of a run with the same corpus share it."""
    folder = parent / f"documents-{input_key(corpus)}"
    if not (folder / "store.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        DocumentStore.create(read_documents(**arguments(corpus)), folder).close()
    return folder


def _query_store(queries: Input, parent: Path) -> Path:
    folder = parent / f"queries-{input_key(queries)}"
    if not (folder / "store.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        found = read_queries(**arguments(queries))
        ids, texts = [q.query_id for q in found], [q.text for q in found]
        table = pa.table([ids, [""] * len(ids), texts], schema=DOCUMENTS)
        DocumentStore.create([table], folder).close()
    return folder


def _irds(path: str, folder: Path, relevance: int) -> Source:
    """Samples of an ir_datasets id: its triples if it has them, else its judgements."""
    pairs = irds.pairs(path)
    documents, left_out = _store(path, folder.parent), LeftOut()
    if pairs is not None:  # ids are then checked as those in a file of the user's are
        queries = _query_store(path, folder.parent)
        lines: Iterator[dict[str, Any]] = (
            {"query_id": query, "pos": [better], "neg": [worse]} for query, better, worse in pairs
        )
        made = _write(folder, lines, [path], left_out)
        return Source(made, "ids", documents, queries, made_of=(path,))
    lines = samples_of(
        {query.query_id: query.text for query in read_queries(path)},
        qrels=read_qrels(path),
        run=None,
        known=DocumentStore.open(documents),
        left_out=left_out,
        relevance=relevance,
    )
    made = _write(folder, lines, [path], left_out)
    return Source(made, "ids", documents, None, True, left_out.notes, (path,))
