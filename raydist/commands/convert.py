"""Converts runs, samples and indexes.

    raydist convert in=run.txt out=run.parquet         # or .jsonl, .csv, .tsv
    raydist convert in=run.txt corpus=C queries=Q out=lists.jsonl
    raydist convert in=run.txt corpus=C queries=Q qrels=R out=train.jsonl to=flagembedding
    raydist convert in=train.jsonl out=tevatron.jsonl to=tevatron
    raydist convert in=lists.jsonl out=run.txt to=trec
    raydist convert in=INDEX out=index.ciff            # also to=bmp; in=index.ciff out=INDEX
    raydist convert in=vectors.jsonl out=INDEX         # {"id", "vector": {term: weight}} per line

It takes the memory of the run, or of one block of samples.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from raydist import log
from raydist.artefact import Artefact, planned
from raydist.config.base import Flags, identity
from raydist.config.convert import ConvertConfig
from raydist.data.spec import RunSource
from raydist.disk import remove
from raydist.errors import ConfigError
from raydist.run_writer import Form, run_form

if TYPE_CHECKING:
    from raydist.data.store.reader import DocumentStore
    from raydist.records import Qrels, Run

Config = ConvertConfig
ARTEFACT = Artefact("bow-index")

_RUNS: tuple[str, ...] = get_args(Form)
_FROM = {
    "run": (*_RUNS, "rerank", "flagembedding", "tevatron"),
    "samples": ("flagembedding", "tevatron", "rerank", *_RUNS),
    "index": ("ciff", "bmp"),
    "ciff": ("index",),
    "vectors": ("index",),
}
_INDEX_FILES = (".ciff", ".ciff.gz", ".bmp")


def run(config: ConvertConfig, flags: Flags) -> None:
    """Converts `in` to `out`."""
    kind = _kind(config)
    form = config.to or _form(kind, config)
    if form not in _FROM[kind]:
        allowed = ", ".join(_FROM[kind])
        raise ConfigError(f"to = {form!r}: in = {config.source!r} holds a {kind}; to: {allowed}")
    _check(kind, form, config)
    plan = f"convert the {kind} {config.source} to {form} and write {config.out}"
    if planned(flags.dry_run, plan):
        return
    if form in ("ciff", "bmp"):
        facts = _export_index(form, config)
    elif form == "index":
        facts = _index_vectors(config) if kind == "vectors" else _import_ciff(config)
    elif form in _RUNS:
        facts = _write_run(kind, config)
    else:
        facts = _write_lines(kind, form, config)
    if facts:
        log.say(f"{config.out}: {facts}")


def _kind(config: ConvertConfig) -> str:
    if re.search(r"\.ciff(\.gz)?$", config.source.lower()):
        return "ciff"
    remote = "://" in config.source and _form_of_index(config)
    if Path(config.source).is_dir() or remote:
        from raydist.manifest import read_manifest
        from raydist.storage import local

        read_manifest(local(config.source), ("bow-index",))
        return "index"
    from raydist.bow.exchange.vectors import are_vectors
    from raydist.data.samples.convert import kind_of

    if are_vectors(config.source):
        return "vectors"

    return kind_of(config.source)


def _form_of_index(config: ConvertConfig) -> bool:
    return config.to in ("ciff", "bmp") or config.out.lower().endswith(_INDEX_FILES)


def _form(kind: str, config: ConvertConfig) -> str:
    """Returns the form that the name of `out` asks for."""
    name = config.out.lower()
    if kind in ("ciff", "vectors"):
        return "index"
    if kind == "index" and _form_of_index(config):
        return "bmp" if name.endswith(".bmp") else "ciff"
    if kind == "run":
        form = run_form(name)
        if form == "jsonl" and config.qrels is not None:
            return "flagembedding"
        return "rerank" if form == "jsonl" and config.queries is not None else form
    raise ConfigError(f"to: required here, one of {', '.join(_FROM[kind])}")


def _check(kind: str, form: str, config: ConvertConfig) -> None:
    if kind in ("run", "samples"):
        suffix = next((each for each in _INDEX_FILES if config.out.lower().endswith(each)), "")
        by_name = run_form(config.out)
        if form in _RUNS and (suffix or by_name != form):
            what = "a TREC run" if form == "trec" else f"a run as {form}"
            end = suffix or Path(config.out).suffix
            ending = "" if form == "trec" else f", but with .{form}"
            raise ConfigError(f"out = {config.out!r}: {what} does not end with {end}{ending}")
        if form not in _RUNS and (suffix or by_name == "parquet"):
            end = suffix or Path(config.out).suffix
            raise ConfigError(
                f"out = {config.out!r}: a file of {form} lines does not end with {end}"
            )
    if kind != "run" or form in _RUNS:
        return
    needed = {"corpus": config.corpus, "queries": config.queries}
    if form != "rerank":
        needed["qrels"] = config.qrels  # type: ignore[assignment]
    absent = [name for name, source in needed.items() if source is None]
    if absent:
        raise ConfigError(
            f"{absent[0]}: required to make {form} of a run ({', '.join(needed)}: texts of the ids"
            + (", and positives)" if form != "rerank" else ")")
        )


def _write_run(kind: str, config: ConvertConfig) -> str:
    from raydist.data.samples.convert import run_of_samples

    if kind == "samples":
        with tempfile.TemporaryDirectory(prefix="raydist-convert-") as scratch:
            documents, queries = _stores(config, Path(scratch))
            run = run_of_samples(config.source, documents=documents, queries=queries)
            run = run.top(config.depth) if config.depth else run
    else:
        run = _read_run(config)
    if config.corpus is not None and run_form(config.out) == "jsonl":
        with tempfile.TemporaryDirectory(prefix="raydist-convert-") as scratch:
            run.write(config.out, _texts_of(run, config, Path(scratch)))
    else:
        run.write(config.out)
    return f"{log.count(len(run), 'row')} of {log.count(len(run.query_ids), 'query')}"


def _read_run(config: ConvertConfig) -> Run:
    from raydist.data.readers import read_run

    run = read_run(RunSource(path=config.source, sort=config.sort))
    return run.top(config.depth) if config.depth else run


def _write_lines(kind: str, form: str, config: ConvertConfig) -> str:
    from raydist.data.samples.convert import convert_samples, write_lines

    with tempfile.TemporaryDirectory(prefix="raydist-convert-") as scratch:
        if kind == "samples":
            documents, queries = _stores(config, Path(scratch))
            records: Iterable[Any] = convert_samples(
                config.source,
                form,  # type: ignore[arg-type]
                documents=documents,
                queries=queries,
            )
        else:
            records = _records_of_run(form, config, Path(scratch))
        count = write_lines(records, config.out)
    return log.count(count, "line")


def _records_of_run(form: str, config: ConvertConfig, scratch: Path) -> Iterable[Any]:
    """Returns a run as lists of candidates or as training samples, with their texts."""
    from raydist.data.readers import read_qrels, read_queries
    from raydist.data.samples.convert import rerank_lines, run_samples

    assert config.queries is not None
    run = _read_run(config)
    queries = {query.query_id: query.text for query in read_queries(config.queries)}
    qrels: Qrels = {}
    if form != "rerank" and config.qrels is not None:
        qrels = read_qrels(config.qrels)
    store = _texts_of(run, config, scratch, qrels)
    if form == "rerank":
        return rerank_lines(run, queries, store, missing=config.missing)
    return run_samples(
        run,
        queries,
        qrels,
        store,
        form=form,  # type: ignore[arg-type]
        positives=config.positives,
        relevance=config.relevance,
        negatives=config.negatives,
    )


def _stores(
    config: ConvertConfig, scratch: Path
) -> tuple[DocumentStore | None, DocumentStore | None]:
    """Returns stores of the texts of the corpus and of the queries, if there are any."""
    from raydist.data.readers import read_documents, read_queries
    from raydist.data.store.build import store_queries
    from raydist.data.store.reader import DocumentStore

    documents = queries = None
    if config.corpus is not None:
        tables = read_documents(config.corpus)
        documents = DocumentStore.create(tables, scratch / "documents")
    if config.queries is not None:
        queries = store_queries(read_queries(config.queries), scratch / "queries")
    return documents, queries


def _texts_of(
    run: Run, config: ConvertConfig, scratch: Path, qrels: Qrels | None = None
) -> DocumentStore:
    """Returns the texts of a run's documents, and of those that are judged."""
    from raydist.data.readers import read_documents
    from raydist.data.store.build import needed_texts
    from raydist.data.store.reader import DocumentStore

    assert config.corpus is not None
    needed = set(run.table["doc_id"].to_pylist())
    needed |= {doc_id for judged in (qrels or {}).values() for doc_id in judged}
    tables = read_documents(config.corpus)
    return DocumentStore.open(needed_texts(sorted(needed), tables, scratch / "documents"))


def _export_index(form: str, config: ConvertConfig) -> str:
    from raydist.bow.index import BowIndex
    from raydist.storage import local

    index = BowIndex.open(local(config.source))
    Path(config.out).parent.mkdir(parents=True, exist_ok=True)
    if form == "ciff":
        from raydist.bow.exchange.ciff import export_ciff

        facts = export_ciff(index, config.out)
    else:
        from raydist.bow.exchange.bmp import export_bmp

        facts = export_bmp(
            index,
            config.out,
            block_size=config.block_size,
            compress_range=config.compress_range,
            k1=config.k1,
            b=config.b,
            too_many=config.too_many,
        )
    return ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in facts.items())


def _import_ciff(config: ConvertConfig) -> str:
    from raydist.bow.exchange.ciff import import_ciff
    from raydist.storage import local

    source = local(config.source)
    facts = _make_index(
        config,
        {"ciff": source},
        {"analyzer": identity(config.analyzer)},
        lambda folder: {
            **import_ciff(source, folder),
            "analyzer": config.analyzer.build().to_dict(),
        },
    )
    return _counts(facts, "document", "term")


def _index_vectors(config: ConvertConfig) -> str:
    """Makes an index of learned sparse vectors."""
    from raydist.bow.exchange.vectors import VectorFiles, index_vectors

    facts = _make_index(
        config,
        {"vectors": config.source},
        {"unit": config.unit, **({"reorder": True} if config.reorder else {})},
        lambda folder: index_vectors(
            VectorFiles([config.source]), folder, unit=config.unit, reordered=config.reorder
        ),
    )
    return _counts(facts, "document", "posting")


def _counts(facts: Mapping[str, Any] | None, *nouns: str) -> str:
    return ", ".join(log.count(facts[log.plural(noun)], noun) for noun in nouns) if facts else ""


def _make_index(
    config: ConvertConfig,
    source: Mapping[str, str | Path],
    meaning: Mapping[str, Any],
    make: Callable[[Path], Mapping[str, Any]],
) -> Mapping[str, Any] | None:
    """Writes an index and its manifest; returns the facts, None if it was complete already."""
    from raydist.data.contents import contents

    with ARTEFACT.open(
        config.out,
        config,
        inputs=lambda: {name: contents(path, config.fingerprint) for name, path in source.items()},
        identity=meaning,
    ) as output:
        if output.done:
            return None
        remove(output.folder / "segments")
        facts = make(output.folder)
        output.finish(**facts)
    return facts
