"""Reorders a run with a reranker: BM25, a cross-encoder, Qwen3 or a bi-encoder.

    raydist rerank run=run.txt corpus=corpus.jsonl queries=queries.jsonl reranker=bm25 out=new.txt

`out=` is the new run (Parquet if it ends with .parquet). Beside it lies `OUT.raydist`: the
manifest, and until the work is done the shards from which an interrupted command goes on.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from raydist import log
from raydist.build import build_reranker, text_store
from raydist.config.base import Flags
from raydist.config.rerank import RerankConfig, Reranking
from raydist.config.reranker import Bm25Reranking, RerankerConfig
from raydist.errors import ConfigError, DataError, RaydistError
from raydist.manifest import Output
from raydist.records import Query, Run

Config = RerankConfig


def run(config: RerankConfig, flags: Flags) -> None:
    """Writes the reranked run and the manifest beside it."""
    found = score_run(config, config.reranker, flags, kind="reranked-run", tag=config.tag)
    if found is None:
        return
    reranked, output, facts = found
    _write(reranked, Path(config.out))
    finish(output, facts, config.out, "reranked")


def score_run(
    config: Reranking, reranker: RerankerConfig, flags: Flags, *, kind: str, tag: str = "raydist"
) -> tuple[Run, Output, dict[str, Any]] | None:
    """Returns the reordered run, its output and what it took; None if there is nothing to do."""
    from raydist.data.readers import read_queries, read_run
    from raydist.fingerprints import file_fingerprint

    out = Path(config.out)
    if out.is_dir():
        raise ConfigError(f"out = {out}: is a folder, expected the file to write")
    if out.exists() and not Path(f"{out}.raydist").exists():
        raise ConfigError(
            f"out = {out}: exists, and no {out.name}.raydist beside it says that this command "
            "wrote it; delete it, or choose another out="
        )
    original = read_run(**config.run.arguments())
    queries = read_queries(**config.queries.arguments())
    _check_queries(original, queries, config)
    if flags.dry_run:
        _check_texts(config)
        log.say(
            f"would score {len(original):,} documents of {len(original.query_ids):,} queries "
            f"with {_name(reranker)} and write {out}"
        )
        return None
    inputs = {
        "run": file_fingerprint(config.run.path),
        "queries": file_fingerprint(config.queries.paths),
        **_texts_fingerprint(config),
        **reranker_fingerprint(reranker),
    }
    output = Output.open(
        f"{out}.raydist",
        kind=kind,
        config=config.identity(),
        inputs=inputs,
        resolved=config.resolved(),
    )
    if output.complete and out.is_file():
        log.say(f"{out}: already written with the same configuration")
        return None
    from raydist.rerank.sharded import rerank_sharded

    kept = original.top(config.depth) if config.depth else original
    try:
        reranked, facts = rerank_sharded(
            kept,
            queries,
            _texts(config, kept, output.folder),
            output.folder,
            partial(build_reranker, reranker),
            missing=config.missing,
            split_pairs=config.split_pairs,
            tag=tag,
            workers=config.workers,
            cpus_per_worker=config.cpus_per_worker,
            gpus_per_worker=config.gpus_per_worker,
        )
    except RaydistError:
        if not any(output.folder.glob("shards/*.done")):  # nothing to go on from
            shutil.rmtree(output.folder, ignore_errors=True)
        raise
    return reranked, output, facts


def finish(output: Output, facts: dict[str, Any], out: str, what: str) -> None:
    """Writes the manifest, removes what only a restart needs, and prints the summary."""
    output.finish(**facts, out=os.path.basename(out))
    for name in ("shards", "texts"):
        shutil.rmtree(output.folder / name, ignore_errors=True)
    for name in ("run.arrow", "queries.arrow"):
        (output.folder / name).unlink(missing_ok=True)
    seconds = facts["seconds"]
    rows: list[tuple[str, object]] = [
        ("queries", facts["queries"]),
        ("pairs scored", facts["pairs"]),
        ("pairs/s and worker", facts["pairs"] / seconds if seconds else 0.0),
    ]
    if facts["without_text"]:
        rows.append(("documents without text", facts["without_text"]))
    log.table(f"{what}: {out}", ["what", "value"], rows)


def _write(run: Run, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".parquet":
        import pyarrow.parquet as pq

        partial_ = out.with_name(f".{out.name}.{os.getpid()}.part")
        pq.write_table(run.table, partial_)
        os.replace(partial_, out)
    else:
        run.write(out)


def _check_queries(run: Run, queries: list[Query], config: Reranking) -> None:
    known = {query.query_id for query in queries}
    absent = [query_id for query_id in run.query_ids if query_id not in known]
    if absent:
        raise DataError(
            f"{config.run.path}: query {absent[0]!r} has no text in "
            f"{', '.join(config.queries.paths)} ({len(absent)} of {len(run.query_ids)} queries)"
        )


def _check_texts(config: Reranking) -> None:
    if config.corpus is not None:
        from raydist.data.splits import plan_splits

        plan_splits(config.corpus.paths, format=config.corpus.format)
    elif config.index is not None:
        text_store(config.index)


def _texts(config: Reranking, run: Run, folder: Path) -> Path:
    from raydist.data.readers import read_documents
    from raydist.data.store.build import needed_texts

    if config.index is not None:
        return text_store(config.index)
    assert config.corpus is not None  # the configuration wants one of the two
    wanted = set(run.table["doc_id"].to_pylist())
    return needed_texts(wanted, read_documents(**config.corpus.arguments()), folder / "texts")


def _texts_fingerprint(config: Reranking) -> dict[str, str]:
    from raydist.fingerprints import file_fingerprint

    if config.corpus is not None:
        return {"corpus": file_fingerprint(config.corpus.paths)}
    assert config.index is not None
    return {"index": file_fingerprint(str(text_store(config.index) / "store.json"))}


def reranker_fingerprint(reranker: RerankerConfig) -> dict[str, str]:
    """Returns the fingerprint of the model, or of the index that BM25 counts in."""
    from raydist.fingerprints import file_fingerprint, model_fingerprint
    from raydist.models.backbone import resolve_folder

    if isinstance(reranker, Bm25Reranking):
        place = reranker.index
        return (
            {} if place is None else {"reranker.index": file_fingerprint(f"{place}/manifest.json")}
        )
    return {"model": model_fingerprint(resolve_folder(reranker.model))}


def _name(reranker: RerankerConfig) -> str:
    return "bm25" if isinstance(reranker, Bm25Reranking) else reranker.model
