"""Samples from runs, judgements, BEIR folders and ir_datasets, which hold none themselves.

They are written once as lines of ids (formats `ids` and `lists` of `raydist.data.samples.lines`),
with the texts in a document store beside them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raydist.data.contents import contents
from raydist.data.files import Paths, first_line
from raydist.data.formats import irds
from raydist.data.parts import SAMPLES, is_beir, resolve
from raydist.data.readers import read_documents, read_qrels, read_queries, read_run
from raydist.data.samples.fields import Record
from raydist.data.samples.judged import LeftOut, judge_lists, samples_of
from raydist.data.samples.tables import as_lines, column_names, is_table
from raydist.data.spec import (
    AnySource,
    CorpusSource,
    QrelsSource,
    QueriesSource,
    RunSource,
    SampleSource,
)
from raydist.data.store.build import store_queries
from raydist.data.store.reader import DocumentStore
from raydist.disk import atomic
from raydist.errors import DataError
from raydist.fingerprints import value_fingerprint
from raydist.log import Progress


def input_key(source: AnySource | Paths) -> str:
    """Returns a fingerprint of an input's content and of how it is read."""
    options = source.options() if isinstance(source, AnySource) else {}
    return value_fingerprint([str(contents(source, part=SAMPLES.name)), options])


@dataclass(frozen=True, slots=True)
class SampleLines:
    """Files of lines, and the stores that their ids refer to.

    Attributes:
        files: the files, in order.
        format: format of their lines, None to detect it.
        documents: folder of the document store.
        queries: folder of the query store.
        checked: whether the ids are known to be in the stores.
        notes: sentences for the user.
        origins: the user's files, if `files` were written from them.
    """

    files: tuple[str, ...]
    format: str | None = None
    documents: Path | None = None
    queries: Path | None = None
    checked: bool = False
    notes: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files in messages: the user's own come first."""
        origins = ", ".join(self.origins)
        return tuple(f"{origins} (as {file})" if origins else file for file in self.files)


def find_lines(source: SampleSource, folder: Path) -> SampleLines:
    """Returns the lines of a data set, written into `folder` if no file has them.

    Raises:
        DataError: something is missing or contradictory.
    """
    paths = [resolve(path, SAMPLES.name) for path in source.path]
    single = paths[0] if len(paths) == 1 else None
    if single and irds.is_dataset(single):
        return _irds(single, folder, source.relevance)
    if single and is_beir(single):
        source = _beir(single, source)
        judged = source.qrels
        files: tuple[str, ...] = ()
        kind: str | None = "qrels"
    else:
        files = tuple(file.path for path in paths for file in SAMPLES.files(path))
        kind = source.format or _kind(files[0])
        judged = QrelsSource(path=files[:1]) if kind == "qrels" else source.qrels
    origins: tuple[str, ...] = ()
    if kind not in ("run", "qrels") and any(map(is_table, files)):
        origins, files = files, as_lines(files, folder, source.max_rows)
    documents = _store(source.corpus, folder.parent) if source.corpus else None
    if kind not in ("run", "qrels"):
        texts = _query_store(source.queries, folder.parent) if source.queries else None
        lines_of = SampleLines(files, source.format, documents, texts, origins=origins)
        return _relabelled(lines_of, folder, source)
    if documents is None:
        raise DataError(f"{paths[0]}: holds document ids only; give their texts as corpus=PATH")
    if source.queries is None:
        raise DataError(f"{paths[0]}: holds query ids only; give their texts as queries=PATH")
    if len(files) > 1:
        raise DataError(
            f"{', '.join(paths)}: a data set has one run or one file of judgements; give each as a "
            "data set of its own"
        )
    ranked = RunSource(path=files[0]) if kind == "run" else source.run
    left_out = LeftOut()
    lines = samples_of(
        {query.query_id: query.text for query in read_queries(source.queries)},
        qrels=read_qrels(judged) if judged else None,
        run=read_run(ranked) if ranked else None,
        known=DocumentStore.open(documents),
        left_out=left_out,
        positives=source.positives,
        relevance=source.relevance,
        need_negatives=source.need_negatives,
    )
    written = _write(folder, lines, paths, left_out)
    kind = "ids" if judged else "lists"
    return SampleLines(written, kind, documents, None, True, left_out.notes, tuple(paths))


def _relabelled(lines: SampleLines, folder: Path, source: SampleSource) -> SampleLines:
    """Returns a teacher's lists as judged samples if there are judgements."""
    if source.qrels is None:
        return lines
    if source.positives != "retrieved":
        raise DataError(
            f"qrels = {', '.join(source.qrels.paths)}: {lines.files[0]} holds samples, which need "
            "no judgements; leave qrels out, or give a run, or set sampler.kind=negatives"
        )
    left_out = LeftOut()
    judged = judge_lists(lines.files, read_qrels(source.qrels), source.relevance, left_out)
    written = _write(folder, judged, lines.files, left_out)
    stores = lines.documents, lines.queries
    return SampleLines(written, "ids", *stores, False, left_out.notes, lines.files)


def _write(
    folder: Path, lines: Iterable[Mapping[str, Any]], of: Sequence[str], left_out: LeftOut
) -> tuple[str, ...]:
    """Writes samples as they come; DataError if there is none."""
    path = folder / "samples.jsonl"
    with atomic(path) as partial:
        with (
            open(partial, "w", encoding="utf-8") as out,
            Progress(f"samples of {', '.join(of)}", unit="sample") as progress,
        ):
            for line in lines:
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
                progress.advance(1)
        if not progress.done:
            reasons = f" ({'; '.join(left_out.notes)})" if left_out.notes else ""
            raise DataError(f"{', '.join(of)}: no usable sample{reasons}")
    return (str(path),)


def _kind(file: str) -> str | None:
    """Returns `run` or `qrels` where a file's first line or columns look like one, else None."""
    if is_table(file):
        names = set(column_names(file))
        if {"query_id", "doc_id", "relevance"} <= names:
            return "qrels"
        return "run" if {"query_id", "doc_id", "score"} <= names else None
    first = first_line(file).decode("utf-8", "replace")
    if first.startswith("{"):
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


def _beir(folder: str, source: SampleSource) -> SampleSource:
    """Returns a source with the parts of a BEIR folder that it does not name itself."""
    corpus, queries = (os.path.join(folder, name) for name in ("corpus.jsonl", "queries.jsonl"))
    return replace(
        source,
        corpus=source.corpus or CorpusSource(path=(corpus,)),
        queries=source.queries or QueriesSource(path=(queries,)),
        qrels=source.qrels or QrelsSource(path=(_beir_qrels(folder, source.split),)),
    )


def _beir_qrels(path: str, split: str) -> str:
    for name in (f"qrels/{split}.tsv", f"{split}/qrels.txt", "qrels.tsv", "qrels.txt"):
        if os.path.isfile(os.path.join(path, name)):
            return os.path.join(path, name)
    raise DataError(
        f"{path}: no qrels/{split}.tsv; split= names another split, qrels= another file"
    )


def _store(corpus: CorpusSource | str, parent: Path) -> Path:
    """Returns the store of a corpus; data sets of a run with the same corpus share it."""
    folder = parent / f"documents-{input_key(corpus)}"
    if not (folder / "store.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        DocumentStore.create(read_documents(corpus), folder).close()
    return folder


def _query_store(queries: QueriesSource | str, parent: Path) -> Path:
    folder = parent / f"queries-{input_key(queries)}"
    if not (folder / "store.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        store_queries(read_queries(queries), folder).close()
    return folder


def _irds(path: str, folder: Path, relevance: int) -> SampleLines:
    """Samples of an ir_datasets id: its triples if it has them, else its judgements."""
    pairs = irds.pairs(path)
    documents, left_out = _store(path, folder.parent), LeftOut()
    if pairs is not None:  # ids are then checked as those in a file of the user's are
        queries = _query_store(path, folder.parent)
        lines: Iterator[Record] = (
            {"query_id": query, "pos": [better], "neg": [worse]} for query, better, worse in pairs
        )
        written = _write(folder, lines, [path], left_out)
        return SampleLines(written, "ids", documents, queries, origins=(path,))
    lines = samples_of(
        {query.query_id: query.text for query in read_queries(path)},
        qrels=read_qrels(path),
        run=None,
        known=DocumentStore.open(documents),
        left_out=left_out,
        relevance=relevance,
    )
    written = _write(folder, lines, [path], left_out)
    return SampleLines(written, "ids", documents, None, True, left_out.notes, (path,))
