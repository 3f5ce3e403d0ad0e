r"""Writes training samples with hard negatives, from a run and judgements.

    raydist mine run=run.txt corpus=DIR/corpus.jsonl queries=DIR/queries.jsonl \
        qrels=DIR/qrels.txt out=train.jsonl negatives=15

Each line has query, pos, neg, pos_scores and neg_scores. Scores are the run's, or a teacher's; a
positive that the run does not have gets the lowest score that the run has for the query. Training
distils from a teacher's scores alone: a run's are marked by `score_source`. Beside the file lies
`OUT.raydist` with the manifest.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from raydist import log
from raydist.build import text_store
from raydist.config.base import Flags
from raydist.config.mine import MineConfig
from raydist.errors import ConfigError, DataError
from raydist.manifest import Output, disk_errors

if TYPE_CHECKING:
    from raydist.data.mining import Rules
    from raydist.data.store import DocumentStore
    from raydist.records import Qrels, Run

__all__ = ["Config", "run"]

Config = MineConfig


def run(config: MineConfig, flags: Flags) -> None:
    """Writes the samples and the manifest beside them."""
    from raydist.data.mining import Rules, mine, record
    from raydist.data.readers import fingerprint, read_qrels, read_queries

    out = Path(config.out)
    if out.is_dir():
        raise ConfigError(f"out = {out}: is a folder, expected the file to write")
    ranked = _run(config)
    qrels = read_qrels(**config.qrels.arguments())
    queries = {q.query_id: q.text for q in read_queries(**config.queries.arguments())}
    _check(config, ranked, qrels, queries)
    rules = Rules(**{name: getattr(config, name) for name in Rules.__dataclass_fields__})
    if flags.dry_run:
        log.say(f"would mine {config.negatives} negatives for up to {len(qrels):,} queries: {out}")
        return
    inputs = {name: fingerprint(path) for name, path in _paths(config).items()}
    output = Output.open(
        f"{out}.raydist",
        kind="mined-samples",
        config=config.identity(),
        inputs=inputs,
        resolved=config.resolved(),
    )
    if output.complete and out.is_file():
        log.say(f"{out}: already written with the same configuration")
        return
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    teacher = None
    taught = config.teacher is not None or config.scores == "teacher"
    if config.teacher is not None:
        from raydist.build import build_reranker

        teacher = build_reranker(config.teacher).score
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    with (
        disk_errors(out),
        _store(config, ranked, qrels, rules, output.folder) as store,
        open(partial, "w", encoding="utf-8", newline="\n") as lines,
        log.Progress("mine", len(ranked.query_ids), "queries") as progress,
    ):

        def texts(doc_ids: Iterable[str]) -> list[str | None]:
            found = store.get(list(doc_ids))
            return [document.contents if document is not None else None for document in found]

        samples = mine(
            ranked, queries, qrels, texts, rules, teacher=teacher, counts=counts, batch=config.batch
        )
        for mined in samples:
            line = record(
                mined, scores=config.scores != "none", teacher=taught, prompt=config.prompt
            )
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            progress.advance()
    if not counts["samples"]:
        partial.unlink()
        reasons = ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items()) if n)
        raise DataError(f"{out}: no query has both a positive and a negative ({reasons})")
    os.replace(partial, out)
    shutil.rmtree(output.folder / "texts", ignore_errors=True)
    output.finish(out=out.name, counts=dict(counts), seconds=time.perf_counter() - started)
    rows = [(what, counts[what]) for what in sorted(counts) if counts[what]]
    log.table(f"mined: {out}", ["what", "number"], rows)


def _run(config: MineConfig) -> Run:
    from raydist.data.readers import read_run
    from raydist.dense.fusion import fuse

    runs = [read_run(path, sort=config.sort) for path in config.run]
    if len(runs) == 1 and config.weights is None:
        return runs[0]
    depth = config.last or max(map(len, runs))
    return fuse(runs, config.fusion, weights=config.weights, k=max(depth, 1000))


def _check(config: MineConfig, ranked: Run, qrels: Qrels, queries: dict[str, str]) -> None:
    judged = [query_id for query_id in ranked.query_ids if query_id in qrels]
    if not judged:
        raise DataError(
            f"run = {', '.join(config.run)}: none of its {len(ranked.query_ids):,} queries is "
            f"judged in {', '.join(config.qrels.paths)}"
        )
    absent = [query_id for query_id in judged if query_id not in queries]
    if absent:
        raise DataError(
            f"queries = {', '.join(config.queries.paths)}: no text of query {absent[0]!r}, which "
            f"run and qrels have ({len(absent):,} such queries)"
        )


def _paths(config: MineConfig) -> dict[str, tuple[str, ...] | str]:
    paths: dict[str, tuple[str, ...] | str] = {"run": config.run}
    paths |= {"queries": config.queries.paths, "qrels": config.qrels.paths}
    if config.corpus is not None:
        return paths | {"corpus": config.corpus.paths}
    assert config.index is not None  # the configuration wants one of the two
    return paths | {"index": str(text_store(config.index) / "store.json")}


def _store(
    config: MineConfig, ranked: Run, qrels: Qrels, rules: Rules, folder: Path
) -> DocumentStore:
    """Opens the index's texts, or puts those that are needed from the corpus into a store."""
    from raydist.data.mining import wanted_ids
    from raydist.data.readers import read_documents
    from raydist.data.store import DocumentStore, needed_texts

    if config.index is not None:
        return DocumentStore.open(text_store(config.index))
    assert config.corpus is not None
    wanted, tables = wanted_ids(ranked, qrels, rules), read_documents(**config.corpus.arguments())
    return DocumentStore.open(needed_texts(wanted, tables, folder / "texts"))
