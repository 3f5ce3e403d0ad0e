"""Builds a bag-of-words index of a corpus, adds documents to one, or takes some out.

    raydist index corpus=DIR/corpus.jsonl out=IDX workers=2
    raydist index corpus=more.jsonl out=IDX --append
    raydist index delete=ids.txt out=IDX

Splits of the corpus are read, analysed and inverted by workers, and what they leave is merged by
ranges of terms. The same command continues where an interrupted one stopped; the result is the same
for any number of workers. Added documents become a further segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from raydist import log
from raydist.config.base import Flags
from raydist.config.index import IndexConfig
from raydist.errors import ConfigError
from raydist.manifest import Artefact
from raydist.shard_files import Split

Config = IndexConfig
ARTEFACT = Artefact("bow-index", progress=".work/splits/*.done", scratch=(".work", ".append-*"))


def run(config: IndexConfig, flags: Flags) -> None:
    """Writes the segments, the store and the manifest."""
    from raydist.bow.build.append import append_to_index
    from raydist.bow.build.create import build_index
    from raydist.bow.format.segment import Segment
    from raydist.data.ids import report_absent
    from raydist.data.readers import read_kept
    from raydist.data.rejects import collect_rejects
    from raydist.data.splits import plan_splits, warn_of_idle_workers
    from raydist.fingerprints import file_fingerprint

    if config.delete is not None:
        _delete(config, config.delete, flags)
        return
    corpus = config.corpus
    assert corpus is not None
    if corpus.order == "list":
        raise ConfigError("corpus.order=list: index keeps the order of the source")
    inputs = {name: file_fingerprint(paths) for name, paths in corpus.inputs().items()}
    splits: Sequence[Split] = plan_splits(
        corpus.paths, format=corpus.format, split_bytes=config.indexing.split_bytes
    )
    warn_of_idle_workers(splits, config.indexing.workers)
    read = partial(read_kept, corpus)
    source = f"{log.count(len(splits), 'split')} of {', '.join(corpus.paths)}"
    if flags.append:
        if flags.dry_run:
            log.say(f"would append {source} to {config.out}")
            return
        facts = append_to_index(splits, read, Path(config.out), config.indexing, inputs=inputs)
        if facts is None:
            log.say(f"{config.out}: these documents were already appended")
            return
        _summary(config, facts)
        return
    with ARTEFACT.open(
        config.out,
        config,
        inputs=lambda: inputs,
        plan=f"index {source} into {config.out}",
        dry_run=flags.dry_run,
    ) as output:
        if output.done:
            return
        facts = build_index(splits, read, output.folder, config.indexing)
        if not config.indexing.max_docs:
            ids = (Segment.open(output.folder / name).doc_ids for name in facts["segments"])
            report_absent(corpus.ids, corpus.exclude_ids, ids, corpus.missing)
        skipped = sorted(output.folder.glob(".work/splits/[0-9]*/rejects.jsonl"))
        collect_rejects(skipped, corpus.rejects)
        output.finish(**facts)
    _summary(config, facts)


def _delete(config: IndexConfig, path: str, flags: Flags) -> None:
    from raydist.bow.build.delete import delete_from_index
    from raydist.data.ids import IdList

    if flags.append:
        raise ConfigError("delete: takes documents out, --append adds them; do one after the other")
    ids = IdList.read(path)
    if flags.dry_run:
        log.say(f"would take {log.count(len(ids), 'document')} out of {config.out}")
        return
    facts = delete_from_index(Path(config.out), ids)
    left = log.count(facts["documents"], "document")
    log.say(f"{config.out}: {log.count(len(ids), 'id')} taken out, {left} left")


def _summary(config: IndexConfig, facts: dict[str, Any]) -> None:
    seconds = facts["seconds"]
    total = seconds["splits"] + seconds["merge"]
    parts = [f"{name} {log.duration(seconds[name])}" for name in ("start", "merge")]
    with_terms = facts["documents"] - facts["empty"]
    scope = ", of each segment" if len(facts["segments"]) > 1 else ""
    rows: list[tuple[str, object]] = [
        ("documents", f"{facts['documents']:,}"),
        ("without terms", f"{facts['empty']:,}"),
        ("distinct terms" + scope, f"{facts['terms']:,}"),
        ("postings", f"{facts['postings']:,}"),
        ("average length", f"{facts['tokens'] / max(1, with_terms):.2f}"),
        ("segments", f"{len(facts['segments']):,}"),
        ("index", log.size(facts["bytes"])),
        ("store", log.size(facts["store_bytes"]) if facts["store"] else "none"),
        ("time", f"{log.duration(total)} ({', '.join(parts)})"),
        ("CPU time", log.duration(facts["cpu_seconds"])),
        ("documents/s", f"{facts['documents'] / max(total, 1e-9):,.0f}"),
        ("text/s", f"{log.size(facts['text_bytes'] / max(total, 1e-9))}"),
    ]
    log.table(f"index in {config.out}", ["what", "value"], rows)
