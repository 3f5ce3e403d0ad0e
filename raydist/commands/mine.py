r"""Writes training samples with hard negatives, from judgements and a run, or a search for it.

    raydist mine run=run.txt corpus=DIR/corpus.jsonl queries=DIR/queries.jsonl \
        qrels=DIR/qrels.txt out=train.jsonl negatives=15
    raydist mine index=IDX,VEC fusion=rrf queries=DIR/queries.jsonl qrels=DIR/qrels.txt \
        out=train.jsonl negatives=15

Each line has query, pos, neg, pos_scores and neg_scores. Scores are the run's, or a teacher's; a
positive that the run does not have gets the lowest score of its query, or is left out where
`scores=teacher` says that they are a teacher's. Training distils from a teacher's scores alone: a
run's are marked by `score_source`. Beside the file lies `OUT.raydist` with the manifest.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from raydist import log, storage
from raydist.artefact import Artefact
from raydist.build import INDEXES, has_texts, text_store
from raydist.config.base import Flags
from raydist.config.inputs import inputs
from raydist.config.mine import MineConfig
from raydist.config.search import SearchConfig
from raydist.data.spec import RunSource
from raydist.disk import atomic
from raydist.errors import DataError
from raydist.manifest import read_manifest
from raydist.records import Query, Run

if TYPE_CHECKING:
    import numpy as np

    from raydist.data.store.reader import DocumentStore
    from raydist.records import Qrels

Config = MineConfig
ARTEFACT = Artefact("mined-samples", is_file=True, scratch=("texts",))
_DEPTH = 1000
"""Fewest candidates of a query, so that most positives have a score of their own."""


def run(config: MineConfig, flags: Flags) -> None:
    """Writes the samples and the manifest beside them."""
    from raydist.data.readers import read_qrels, read_queries, read_run

    ARTEFACT.check(config.out)
    out, negatives = config.out, log.count(config.mining.negatives, "negative")
    runs = [read_run(RunSource(path=path, sort=config.sort)) for path in config.run]
    qrels = read_qrels(config.qrels)
    queries = read_queries(config.queries)
    _check(config, runs, qrels, {query.query_id for query in queries})
    with ARTEFACT.open(
        config.out,
        config,
        inputs=lambda: inputs(config),
        plan=f"mine {negatives} for up to {log.count(len(qrels), 'query')}: {out}",
        dry_run=flags.dry_run,
    ) as output:
        if output.done:
            return
        started = time.perf_counter()
        judged = [query for query in queries if query.query_id in qrels]
        ranked = _fused(config, runs) if runs else _searched(config, judged)
        with _store(config, ranked, queries, qrels, output.folder) as store:
            counts = _write(config, ranked, queries, qrels, store, output.path)
        seconds = time.perf_counter() - started
        output.finish(out=output.path.name, counts=dict(counts), seconds=seconds)
    rows = [(what, counts[what]) for what in sorted(counts) if counts[what]]
    log.table(f"mined: {config.out}", ["what", "number"], rows)


def _write(
    config: MineConfig,
    ranked: Run,
    queries: Sequence[Query],
    qrels: Qrels,
    store: DocumentStore,
    out: Path,
) -> Counter[str]:
    """Writes the samples; returns how many there are, and what was left out."""
    from raydist.data.samples.mining import mine, record
    from raydist.reranking.load import load_reranker

    teacher = None if config.teacher is None else load_reranker(config.teacher).score
    has_teacher = config.teacher is not None or config.scores == "teacher"
    counts: Counter[str] = Counter()

    def texts(doc_ids: Iterable[str]) -> list[str | None]:
        documents = store.get(list(doc_ids))
        return [document.contents if document is not None else None for document in documents]

    def watched() -> Iterator[tuple[str, list[str], np.ndarray]]:
        for ranking in ranked:
            yield ranking
            progress.advance()

    with (
        atomic(out) as path,
        open(path, "w", encoding="utf-8", newline="\n") as lines,
        log.Progress("mine", len(ranked.query_ids), "query") as progress,
    ):
        samples = mine(
            watched(),
            {query.query_id: query.text for query in queries},
            qrels,
            texts,
            config.mining,
            teacher=teacher,
            by_teacher=config.scores == "teacher" and teacher is None,
            counts=counts,
            batch=config.batch,
        )
        scores = config.scores != "none"
        for sample in samples:
            line = record(sample, scores=scores, teacher=has_teacher, prompt=config.prompt)
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        if not counts["samples"]:
            reasons = ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items()) if n)
            raise DataError(f"{out}: no query has both a positive and a negative ({reasons})")
    return counts


def _fused(config: MineConfig, runs: Sequence[Run]) -> Run:
    from raydist.dense.fusion import fuse

    if len(runs) == 1 and not config.fusion.weights:
        return runs[0]
    depth = config.mining.last or max(map(len, runs))
    return fuse(runs, max(depth, _DEPTH), config.fusion)


def _searched(config: MineConfig, queries: Sequence[Query]) -> Run:
    """Returns what `raydist search` finds; a folder of vectors is searched by its own model."""
    from raydist.commands.answers.fused import FusedSearch

    k = max(config.mining.last, _DEPTH)
    fusion = config.fusion if len(config.index) > 1 else None
    values = {"index": config.index, "k": k, "fusion": fusion, "model": config.model}
    search = FusedSearch(SearchConfig.model_validate(values))
    return Run(pa.concat_tables(search.tables(queries)))


def _check(config: MineConfig, runs: Sequence[Run], qrels: Qrels, queries: Set[str]) -> None:
    """Raises DataError if runs, judgements and queries do not belong together."""
    ranked = dict.fromkeys(query_id for run in runs for query_id in run.query_ids)
    field, names = ("run", config.run) if runs else ("queries", config.queries.paths)
    if not runs:
        for folder in config.index:
            read_manifest(storage.local(folder), INDEXES)
    query_ids = list(ranked or queries)
    judged = [query_id for query_id in query_ids if query_id in qrels]
    if not judged:
        raise DataError(
            f"{field} = {', '.join(names)}: none of its {log.count(len(query_ids), 'query')} is "
            f"judged in {', '.join(config.qrels.paths)}"
        )
    absent = [query_id for query_id in judged if query_id not in queries]
    if absent:
        raise DataError(
            f"queries = {', '.join(config.queries.paths)}: no text of query {absent[0]!r}, which "
            f"is in run and qrels ({log.count(len(absent), 'such query')})"
        )


def _stored(config: MineConfig) -> Path:
    """Returns the texts beside the first index that has any."""
    texts = (each for each in config.index if has_texts(each))
    return text_store(next(texts, config.index[0]))


def _store(
    config: MineConfig, ranked: Run, queries: Sequence[Query], qrels: Qrels, folder: Path
) -> DocumentStore:
    """Opens the index's texts, or a store of those of the corpus that are needed."""
    from raydist.data.readers import read_documents
    from raydist.data.samples.mining import wanted_ids
    from raydist.data.store.build import needed_texts
    from raydist.data.store.reader import DocumentStore

    if config.corpus is None:
        return DocumentStore.open(_stored(config))
    text_of = {query.query_id: query.text for query in queries}
    wanted = wanted_ids(ranked, text_of, qrels, config.mining)
    tables = read_documents(config.corpus)
    return DocumentStore.open(needed_texts(wanted, tables, folder / "texts"))
