"""Reorders a run with a reranker: BM25, a cross-encoder, Qwen3 or a bi-encoder.

    raydist rerank run=run.txt corpus=corpus.jsonl queries=queries.jsonl reranker=bm25 out=new.txt

`out=` is the new run: `.parquet`, `.csv`, `.tsv`, `.jsonl` (with the texts), else TREC lines.
Beside it lies `OUT.raydist`: the manifest, and until the work is done the shards from which an
interrupted command continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raydist import log, storage
from raydist.artefact import Artefact
from raydist.build import text_store
from raydist.config.base import Flags
from raydist.config.inputs import inputs
from raydist.config.rerank import RerankConfig, RerankingConfig
from raydist.data.store.reader import DocumentStore, kept
from raydist.errors import DataError, JobError
from raydist.manifest import read_manifest
from raydist.records import RUN, Query, Run
from raydist.reranking.load import load_reranker
from raydist.reranking.spec import Bm25Spec, RerankerSpec
from raydist.run_writer import open_run, refuse_blanks, run_form
from raydist.strings import codes

if TYPE_CHECKING:
    from raydist.reranking.apply import RerankFacts

Config = RerankConfig
FLAGS = ("--dry-run", "--resume")
SCRATCH = ("shards", "texts", "run.arrow", "queries.arrow")
PROGRESS = "shards/*.done"
ARTEFACT = Artefact("reranked-run", is_file=True, progress=PROGRESS, scratch=SCRATCH)


def run(config: RerankConfig, flags: Flags) -> None:
    """Writes the reranked run and the manifest beside it."""
    lines = run_form(config.out) == "trec"
    score_run(config, config.reranker, flags, ARTEFACT, partial(_write, config.tag), lines=lines)


def _write(tag: str, tables: Iterator[pa.Table], out: Path, texts: Path) -> None:
    with DocumentStore.open(texts) as store, open_run(out, RUN, tag, store) as write:
        for table in tables:
            write(table)


def score_run(
    config: RerankingConfig,
    reranker: RerankerSpec,
    flags: Flags,
    artefact: Artefact,
    write: Callable[[Iterator[pa.Table], Path, Path], None],
    *,
    lines: bool = False,
    raw: bool = False,
) -> None:
    """Scores the documents of a run and writes them in their new order.

    Args:
        config: the run, and where the texts are.
        reranker: what scores.
        flags: of the command line.
        artefact: what is written.
        write: writes the rows of the new run to a path, atomically; it is told where the texts are.
        lines: whether it writes TREC lines, which cannot carry all ids.
        raw: scores are logits where they would be probabilities.
    """
    from raydist.data.readers import read_queries, read_run
    from raydist.reranking.apply import rerank_sharded

    artefact.check(config.out)
    original = read_run(config.run)
    if lines:
        refuse_blanks(original.table)
    queries = read_queries(config.queries)
    _check_queries(original, queries, config)
    if flags.dry_run:
        _check_texts(config)
    with artefact.open(
        config.out,
        config,
        inputs=lambda: inputs(config),
        plan=f"score {log.count(len(original), 'document')} of "
        f"{log.count(len(original.query_ids), 'query')} with {_name(reranker)} and write "
        f"{config.out}",
        dry_run=flags.dry_run,
    ) as output:
        if output.done:
            return
        depth = config.reranking.depth
        candidates = original.top(depth) if depth else original
        texts = _texts(config, candidates, output.folder)
        with kept(texts):  # workers open them whenever they start
            rows, facts = rerank_sharded(
                candidates,
                queries,
                _opening(config, texts),
                output.folder,
                partial(load_reranker, reranker, raw=raw),
                config.reranking,
            )
            write(rows, output.path, texts)
        output.finish(**asdict(facts))
    _report(config, facts, artefact.kind)


def _report(config: RerankingConfig, facts: RerankFacts, what: str) -> None:
    rows: list[tuple[str, object]] = [
        ("queries", facts.queries),
        ("pairs scored", facts.pairs),
        ("pairs/s and worker", facts.pairs / max(facts.seconds, 1e-9)),
    ]
    if facts.without_text:
        rows.append(("documents without text", facts.without_text))
    log.table(f"{what.replace('-', ' ')}: {config.out}", ["what", "value"], rows)


def _check_queries(run: Run, queries: list[Query], config: RerankingConfig) -> None:
    known = {query.query_id for query in queries}
    absent = [query_id for query_id in run.query_ids if query_id not in known]
    if absent:
        raise DataError(
            f"{config.run.path}: query {absent[0]!r} has no text in "
            f"{', '.join(config.queries.paths)} ({len(absent)} of {len(run.query_ids)} queries)"
        )


def _check_texts(config: RerankingConfig) -> None:
    if config.corpus is not None:
        from raydist.data.splits import plan_splits

        plan_splits(config.corpus.paths, format=config.corpus.format)
    elif config.index is not None:
        text_store(config.index)


def _texts(config: RerankingConfig, run: Run, folder: Path) -> Path:
    from raydist.data.readers import read_documents
    from raydist.data.store.build import needed_texts

    if config.index is not None:
        return text_store(config.index)
    assert config.corpus is not None  # the configuration wants one of the two
    doc_ids = codes(run.table["doc_id"])[1]
    return needed_texts(doc_ids, read_documents(config.corpus), folder / "texts")


def _opening(config: RerankingConfig, texts: Path) -> Callable[[], DocumentStore]:
    """Returns what opens the texts in a worker, on a machine that may not see this one's disk."""
    if config.index is None or not storage.is_remote(config.index) or not config.reranking.workers:
        return partial(DocumentStore.open, texts)
    return partial(_open_remote, config.index, read_manifest(texts.parent))


def _open_remote(index: str, manifest: Mapping[str, Any]) -> DocumentStore:
    """Opens the texts of this machine's copy of a remote index."""
    texts = text_store(index)
    if read_manifest(texts.parent) != manifest:
        raise JobError(f"{index}: was changed while its texts were read; run the command again")
    return DocumentStore.open(texts)


def _name(reranker: RerankerSpec) -> str:
    return "bm25" if isinstance(reranker, Bm25Spec) else reranker.model
