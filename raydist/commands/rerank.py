"""Reorders a run with a reranker: BM25, a cross-encoder, Qwen3 or a bi-encoder.

    raydist rerank run=run.txt corpus=corpus.jsonl queries=queries.jsonl reranker=bm25 out=new.txt

`out=` is the new run (Parquet if it ends with .parquet). Beside it lies `OUT.raydist`: the
manifest, and until the work is done the shards from which an interrupted command continues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raydist import log
from raydist.build import text_store
from raydist.config.base import Flags
from raydist.config.inputs import inputs
from raydist.config.rerank import RerankConfig, RerankingConfig
from raydist.errors import DataError
from raydist.manifest import Artefact
from raydist.records import Query, Run
from raydist.rerank.load import load_reranker
from raydist.rerank.spec import Bm25Spec, RerankerSpec

if TYPE_CHECKING:
    from raydist.rerank.apply import RerankFacts

Config = RerankConfig
FLAGS = ("--dry-run", "--resume")
SCRATCH = ("shards", "texts", "run.arrow", "queries.arrow")
PROGRESS = "shards/*.done"
ARTEFACT = Artefact("reranked-run", is_file=True, progress=PROGRESS, scratch=SCRATCH)


def run(config: RerankConfig, flags: Flags) -> None:
    """Writes the reranked run and the manifest beside it."""
    score_run(config, config.reranker, flags, ARTEFACT, Run.write, tag=config.tag)


def score_run(
    config: RerankingConfig,
    reranker: RerankerSpec,
    flags: Flags,
    artefact: Artefact,
    write: Callable[[Run, Path], None],
    *,
    tag: str = "raydist",
) -> None:
    """Scores the documents of a run and writes them in their new order.

    Args:
        config: the run, and where the texts are.
        reranker: what scores.
        flags: of the command line.
        artefact: what is written.
        write: writes the new run to a path, atomically.
        tag: of the new run.
    """
    from raydist.data.readers import read_queries, read_run
    from raydist.data.store.reader import kept
    from raydist.rerank.apply import rerank_sharded

    artefact.check(config.out)
    original = read_run(config.run)
    queries = read_queries(config.queries)
    _check_queries(original, queries, config)
    if flags.dry_run:
        _check_texts(config)
    with artefact.open(
        config.out,
        config,
        inputs=lambda: inputs(config),
        plan=f"score {len(original):,} documents of {len(original.query_ids):,} queries "
        f"with {_name(reranker)} and write {config.out}",
        dry_run=flags.dry_run,
    ) as output:
        if output.done:
            return
        depth = config.reranking.depth
        candidates = original.top(depth) if depth else original
        texts = _texts(config, candidates, output.folder)
        with kept(texts):  # workers open them whenever they start
            reranked, facts = rerank_sharded(
                candidates,
                queries,
                texts,
                output.folder,
                partial(load_reranker, reranker),
                config.reranking,
                tag=tag,
            )
        write(reranked, output.path)
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
    doc_ids = run.table["doc_id"].combine_chunks()
    return needed_texts(doc_ids, read_documents(config.corpus), folder / "texts")


def _name(reranker: RerankerSpec) -> str:
    return "bm25" if isinstance(reranker, Bm25Spec) else reranker.model
