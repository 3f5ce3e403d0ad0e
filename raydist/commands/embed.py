"""Embeds a corpus: fixed splits, one vector shard per split, restartable.

    raydist embed corpus=corpus.jsonl model=PATH_OR_NAME out=VEC
    raydist embed corpus=corpus.jsonl model=PATH_OR_NAME out=VEC workers=2

The folder can be searched with `raydist search index=OUT`, alone or fused with other indexes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from raydist import log
from raydist.artefact import Artefact
from raydist.config.base import Flags
from raydist.config.embed import EmbedConfig
from raydist.config.inputs import inputs
from raydist.errors import ConfigError

Config = EmbedConfig
FLAGS = ("--dry-run", "--resume")
ARTEFACT = Artefact("vectors", progress="shards/*.done")
_SPLIT_BYTES = 256 << 10
"""Size of a split: a crash loses at most a minute of a CPU's work, or of a GPU where the splits of
terabytes are larger."""


def run(config: EmbedConfig, flags: Flags) -> None:
    """Writes the vector shards, the approximate index if there is to be one, and the manifest."""
    from raydist.data.ids import report_absent
    from raydist.data.readers import announce, read_kept
    from raydist.data.rejects import collect_rejects
    from raydist.data.splits import plan_splits, warn_of_idle_workers
    from raydist.dense.embed import describe_model, embed_corpus
    from raydist.dense.vectors import VectorShards

    corpus = config.corpus
    if corpus.order == "list":
        raise ConfigError("corpus.order=list: embed keeps the order of the source")
    spec = config.embedding
    _, dimension = describe_model(config.model.settings(), spec.dimension, spec.precision)
    split_bytes = spec.split_bytes or _SPLIT_BYTES
    splits = plan_splits(corpus.paths, format=corpus.format, split_bytes=split_bytes)
    warn_of_idle_workers(splits, spec.workers)
    announce(splits, corpus)

    with ARTEFACT.open(
        config.out,
        config,
        inputs=lambda: inputs(config),
        plan=f"embed {log.count(len(splits), 'split')} of {', '.join(corpus.paths)} with "
        f"{config.model.path} into {config.out} ({dimension} dimensions)",
        dry_run=flags.dry_run,
    ) as output:
        if output.done:
            return
        facts = embed_corpus(
            splits,
            partial(read_kept, corpus),
            output.folder,
            config.model,
            spec,
        )
        ids = VectorShards.map(output.folder, facts).doc_ids
        report_absent(corpus.ids, corpus.exclude_ids, [ids], corpus.missing)
        skipped = sorted(output.folder.glob("shards/[0-9]*/rejects.jsonl"))
        facts["rejected"] = collect_rejects(skipped, corpus.rejects)
        if spec.ann.kind != "none":
            from raydist.dense.ann import build_ann

            facts["ann"] = build_ann(
                output.folder,
                facts,
                spec.ann,
                workers=spec.workers,
                cpus_per_worker=spec.cpus_per_worker,
            )
        output.finish(**facts)
    _report(config, facts)


def _report(config: EmbedConfig, facts: Mapping[str, Any]) -> None:
    rows: list[tuple[str, object]] = [
        ("documents", facts["documents"]),
        ("dimensions", facts["dimension"]),
        ("documents/s and worker", facts["documents"] / max(facts["seconds"], 1e-9)),
        ("padding", f"{facts['padding_waste']:.1%}"),
    ]
    if "ann" in facts:
        ann = facts["ann"]
        queries = f"{ann['recall_queries']} as queries"
        rows.append((f"recall@10 of {config.embedding.ann.kind}, {queries}", ann["recall@10"]))
    log.table(f"vectors in {config.out}", ["what", "value"], rows)
