"""Embeds a corpus: fixed splits, one vector shard per split, restartable.

The folder can be searched with `raydist search index=OUT`, alone or fused with other indexes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydist import log
from raydist.config.base import Flags
from raydist.config.embed import EmbedConfig
from raydist.errors import ConfigError, DataError
from raydist.manifest import Output
from raydist.shards import Split

__all__ = ["Config", "run"]

Config = EmbedConfig
_SPLIT_BYTES = (256 << 10, 32 << 20)
_SPLITS = 64


def run(config: EmbedConfig, flags: Flags) -> None:
    """Writes the vector shards, the approximate index if asked for, and the manifest."""
    from raydist.data.readers import fingerprint, plan_splits
    from raydist.dense.embed import describe_model, embed_corpus
    from raydist.dense.vectors import KIND

    corpus = config.corpus
    if corpus.order == "list":
        raise ConfigError("corpus.order=list: embed keeps the order of the source")
    options = _model_options(config)
    about = describe_model(config.model.path, options)
    whole = plan_splits(corpus.paths, format=corpus.format, split_bytes=1 << 62)
    split_bytes = config.split_bytes or _split_bytes(whole)
    splits = plan_splits(corpus.paths, format=corpus.format, split_bytes=split_bytes)
    if flags.dry_run:
        log.say(
            f"would embed {len(splits)} splits of {', '.join(corpus.paths)} with "
            f"{config.model.path} into {config.out} ({about['dimension']} dimensions)"
        )
        return
    inputs = {
        "corpus": fingerprint(corpus.paths),
        "model": about["model"]["fingerprint"],
        **{name: fingerprint(path) for name, path in _id_files(config).items()},
    }
    output = Output.open(
        config.out,
        kind=KIND,
        config=config.identity(),
        inputs=inputs,
        resolved=config.resolved(),
    )
    if output.complete:
        log.say(f"{config.out}: already embedded with the same configuration")
        return
    facts = embed_corpus(
        splits,
        partial(_read, corpus.split_arguments(), corpus.ids, corpus.exclude_ids),
        output.folder,
        model=config.model.path,
        model_options=options,
        precision=config.precision,
        max_tokens=config.max_tokens,
        workers=config.workers,
        cpus_per_worker=config.cpus_per_worker,
        gpus_per_worker=config.gpus_per_worker,
    )
    _check_ids(config, output.folder, facts)
    _collect_rejects(config, output.folder, facts)
    if config.ann.kind != "none":
        from raydist.dense.ann import build_ann

        settings: dict[str, Any] = config.ann.model_dump()
        facts["ann"] = build_ann(
            output.folder,
            facts,
            settings.pop("kind"),
            workers=config.workers,
            cpus_per_worker=config.cpus_per_worker,
            **settings,
        )
    output.finish(**facts)
    rate = facts["documents"] / facts["seconds"] if facts["seconds"] else 0.0
    rows: list[tuple[str, object]] = [
        ("documents", facts["documents"]),
        ("dimensions", facts["dimension"]),
        ("documents/s and worker", rate),
        ("padding", f"{facts['padding_waste']:.1%}"),
    ]
    if "ann" in facts:
        rows.append((f"recall@10 of {config.ann.kind}", facts["ann"]["recall@10"]))
    log.table(f"vectors in {config.out}", ["what", "value"], rows)


def _model_options(config: EmbedConfig) -> dict[str, Any]:
    options = config.model.arguments()
    if config.dimension:
        options["truncate"] = config.dimension
    return options


def _split_bytes(whole: Iterable[Split]) -> int:
    """Returns a size that gives some dozens of splits: by the corpus alone, never the workers."""
    total = sum(int(split.get("size", 0)) for split in whole)
    least, most = _SPLIT_BYTES
    return max(least, min(total // _SPLITS, most))


def _id_files(config: EmbedConfig) -> dict[str, str]:
    named = {"corpus.ids": config.corpus.ids, "corpus.exclude_ids": config.corpus.exclude_ids}
    return {name: path for name, path in named.items() if path is not None}


def _read(
    arguments: dict[str, Any], ids: str | None, exclude: str | None, split: Split, rejects: Any
) -> Iterable[pa.Table]:
    """Reads one split in a worker."""
    from raydist.data.ids import IdList, filter_documents
    from raydist.data.readers import read_split

    tables = read_split(split, rejects=rejects, **arguments)
    if ids is None and exclude is None:
        return tables
    keep, drop = (None if path is None else IdList.read(path) for path in (ids, exclude))
    return filter_documents(tables, keep, drop, missing="ignore")


def _check_ids(config: EmbedConfig, folder: Path, facts: dict[str, Any]) -> None:
    """Complains about ids to keep that no split had."""
    if config.corpus.ids is None or config.corpus.missing == "ignore":
        return
    from raydist.data.ids import IdList
    from raydist.dense.embed import opened

    found = set(opened(folder, facts).doc_ids.to_pylist())
    absent = [each for each in IdList.read(config.corpus.ids).ids if each not in found]
    if not absent:
        return
    message = f"{config.corpus.ids}: {len(absent)} ids are not in the corpus, first {absent[0]!r}"
    if config.corpus.missing == "error":
        raise DataError(message)
    log.warn(message)


def _collect_rejects(config: EmbedConfig, folder: Path, facts: dict[str, Any]) -> None:
    """Says how many lines were skipped and puts them into one file, if one is named."""
    files = sorted(folder.glob("shards/[0-9]*/rejects.jsonl"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    facts["rejected"] = len(lines)
    if not lines:
        return
    first = json.loads(lines[0])
    log.warn(
        f"{len(lines)} bad lines skipped, the first: {first['file']}, line {first['line']}: "
        f"{first['reason']}"
    )
    if config.corpus.rejects is not None:
        with open(config.corpus.rejects, "w", encoding="utf-8") as out:
            for file in files:
                with open(file, encoding="utf-8") as source:
                    shutil.copyfileobj(source, out)
