"""Builds a bag-of-words index of a corpus, adds documents to one, or takes some out.

    raydist index corpus=DIR/corpus.jsonl out=IDX workers=2
    raydist index corpus=more.jsonl out=IDX --append
    raydist index delete=ids.txt out=IDX
    raydist index corpus=DIR/corpus.jsonl out=FDX fields=title,text

Splits of the corpus are read, analysed and inverted by workers, and what they leave is merged by
ranges of terms. The same command continues where an interrupted one stopped; the result is the same
for any number of workers. Added documents become a further segment; where there are more than ten,
the last ones are merged (`auto_merge=false` does not). Deleted documents are only marked, at once;
`raydist merge out=IDX` removes their bytes, and so does `purge=true` beside `delete=`.
With `fields=` each field has postings and statistics of its own (`raydist search fields.title=2`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from raydist import log
from raydist.artefact import Artefact, Output, planned
from raydist.bow.spec import MergeSpec
from raydist.commands.growth.changes import appended, delete_listed
from raydist.config.base import Flags
from raydist.config.index import IndexConfig
from raydist.config.inputs import inputs
from raydist.data.spec import CorpusSource
from raydist.errors import ConfigError
from raydist.storage import is_remote

Config = IndexConfig
FLAGS = ("--dry-run", "--append", "--resume")
ON_DEMAND = ("segments/*", "store*")
ARTEFACT = Artefact("bow-index", progress=".work/splits/*.done", scratch=(".work", ".append-*"))
FIELDS = Artefact(
    "bow-fields", progress="*/.work/splits/*.done", evidence="*/manifest.json", scratch=("*/.work",)
)


def run(config: IndexConfig, flags: Flags, *, search_next: bool = False) -> None:
    """Writes the segments, the store and the manifest.

    Args:
        config: what to write.
        flags: of the command line.
        search_next: whether this process will search the index.
    """
    from raydist.bow.build.append import append_to_index
    from raydist.bow.build.create import build_index
    from raydist.bow.fields import changing, check_fields, facts_of, folders_of, specs_of
    from raydist.data.columns import Column
    from raydist.data.readers import announce, read_kept, settings_of
    from raydist.data.splits import plan_splits, warn_of_idle_workers

    if (flags.append or config.delete is not None) and not is_remote(config.out):
        folders_of(Path(config.out))
    if config.delete is not None:
        _delete(config, config.delete, flags)
        return
    corpus = config.corpus
    assert corpus is not None
    if corpus.order == "list":
        raise ConfigError("corpus.order=list: index keeps the order of the source")
    if flags.append and _append_vectors(config, corpus, flags):
        return
    splits = plan_splits(
        corpus.paths, format=corpus.format, split_bytes=config.indexing.split_bytes
    )
    warn_of_idle_workers(splits, config.indexing.workers)
    announce(splits, corpus)
    read = partial(read_kept, corpus)
    check = partial(_check_input, corpus, config.indexing.max_docs)
    source = f"{log.count(len(splits), 'split')} of {', '.join(corpus.paths)}"
    if flags.append:
        if planned(flags.dry_run, f"append {source} to {config.out}"):
            return
        check_fields(Path(config.out), config.indexing.fields)
        _compile(config, search_next)
        with changing(Path(config.out)):
            for folder, spec in specs_of(Path(config.out), config.indexing):
                facts = append_to_index(
                    splits,
                    read,
                    folder,
                    spec,
                    inputs=_fingerprints(config),
                    reading=settings_of(corpus),
                    columns=[Column.of(each).name for each in corpus.columns],
                    check=check,
                )
                _report_append(config, folder, facts)
        return
    fields = config.indexing.fields
    with (FIELDS if fields else ARTEFACT).open(
        config.out,
        config,
        inputs=lambda: inputs(config),
        plan=f"index {source} into {config.out}",
        dry_run=flags.dry_run,
    ) as output:
        if output.done:
            return
        _compile(config, search_next)
        for folder, spec in specs_of(output.folder, config.indexing):
            part = _part(output, folder) if fields else output
            if not part.done:
                facts = build_index(splits, read, folder, spec)
                check(folder, facts)
                part.finish(**facts)
                _summary(folder, facts)
        if fields:
            output.finish(**facts_of(output.folder, fields))


def _compile(config: IndexConfig, search_next: bool) -> None:
    """Begins to compile what a build in this process needs, and a search behind it."""
    from raydist.bow.ahead import INDEX, SEARCH, prepare

    if not config.indexing.workers:
        prepare(SEARCH | INDEX if search_next else INDEX, 2 if search_next else 1)


def _part(output: Output, folder: Path) -> Output:
    """Returns the output of one field, complete where an interrupted build has finished it."""
    config = {**output.job["config"], "field": folder.name}
    opened = Output.open(folder, kind="bow-index", config=config, inputs=output.job["inputs"])
    return replace(opened, scratch=ARTEFACT.scratch)


def _fingerprints(config: IndexConfig) -> dict[str, str]:
    return {name: str(each) for name, each in inputs(config).items()}


def _append_vectors(config: IndexConfig, corpus: CorpusSource, flags: Flags) -> bool:
    """Appends vectors to an index of weighted terms; returns whether the corpus holds any."""
    from raydist.bow.build.append import append_vectors
    from raydist.bow.exchange.vectors import VectorFiles, are_vectors

    if not all(are_vectors(path) for path in corpus.paths):
        return False
    if planned(flags.dry_run, f"append the vectors of {', '.join(corpus.paths)} to {config.out}"):
        return True
    vectors = VectorFiles(corpus.paths)
    facts = append_vectors(
        vectors,
        Path(config.out),
        inputs=_fingerprints(config),
        duplicates=config.indexing.duplicates,
    )
    _report_append(config, Path(config.out), facts)
    return True


def _report_append(config: IndexConfig, folder: Path, facts: dict[str, Any] | None) -> None:
    from raydist.bow.build.segments import merge_tail

    merge = partial(merge_tail, spec=_merging(config)) if config.indexing.auto_merge else None
    appended(folder, facts, merge, partial(_summary, folder))


def _merging(config: IndexConfig) -> MergeSpec:
    indexing = config.indexing
    return MergeSpec(
        memory_per_worker=indexing.memory_per_worker,
        workers=indexing.workers,
        cpus_per_worker=indexing.cpus_per_worker,
    )


def _check_input(
    corpus: CorpusSource, max_docs: int, folder: Path, facts: Mapping[str, Any]
) -> None:
    """Reports ids that are missing from the corpus, and bad lines."""
    from raydist.bow.format.segment import Segment
    from raydist.data.ids import report_absent
    from raydist.data.rejects import collect_rejects

    if not max_docs:
        ids = (Segment.open(folder / name).doc_ids for name in facts["segments"])
        report_absent(corpus.ids, corpus.exclude_ids, ids, corpus.missing)
    skipped = sorted(folder.glob(".work/splits/[0-9]*/rejects.jsonl"))
    collect_rejects(skipped, corpus.rejects)


def _delete(config: IndexConfig, path: str, flags: Flags) -> None:
    from raydist.bow.build.delete import delete_from_index
    from raydist.bow.build.segments import purge
    from raydist.bow.fields import changing

    purging = partial(purge, spec=_merging(config)) if config.purge else None
    delete_listed(config.out, path, flags, delete_from_index, purging, changing)


def _summary(folder: Path, facts: Mapping[str, Any]) -> None:
    seconds = facts["seconds"]
    total = seconds["splits"] + seconds["merge"]
    parts = [f"{name} {log.duration(seconds[name])}" for name in ("start", "merge")]
    with_terms = facts["documents"] - facts["empty"]
    new = facts.get("new_documents", facts["documents"])
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
        *(
            [("forward index", log.size(forward))]
            if (forward := facts.get("forward_bytes"))
            else []
        ),
        ("time", f"{log.duration(total)} ({', '.join(parts)})"),
        ("CPU time", log.duration(facts["cpu_seconds"])),
        ("documents/s", f"{new / max(total, 1e-9):,.0f}"),
        ("text/s", f"{log.size(facts['text_bytes'] / max(total, 1e-9))}"),
    ]
    if columns := facts.get("columns"):
        rows.insert(6, ("columns", ", ".join(f"{name} ({kind})" for name, kind in columns.items())))
    log.table(f"index in {folder}", ["what", "value"], rows)
