"""Converts runs, samples and indexes.

    raydist convert in=run.txt out=run.parquet
    raydist convert in=run.txt corpus=C queries=Q out=lists.jsonl
    raydist convert in=run.txt corpus=C queries=Q qrels=R out=train.jsonl to=flagembedding
    raydist convert in=train.jsonl out=tevatron.jsonl to=tevatron
    raydist convert in=lists.jsonl out=run.txt to=trec
    raydist convert in=INDEX out=index.ciff            # also to=bmp; in=index.ciff out=INDEX
    raydist convert in=vectors.jsonl out=INDEX         # {"id", "vector": {term: weight}} per line

Reading and writing take no more memory than the run or one block of samples.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist import log
from raydist.config.base import Flags, identity
from raydist.config.convert import ConvertConfig
from raydist.disk import remove
from raydist.errors import ConfigError
from raydist.manifest import Artefact

if TYPE_CHECKING:
    from raydist.data.store.reader import DocumentStore

Config = ConvertConfig
ARTEFACT = Artefact("bow-index")

_FROM = {
    "run": ("trec", "parquet", "rerank", "flagembedding", "tevatron"),
    "samples": ("flagembedding", "tevatron", "rerank", "trec", "parquet"),
    "index": ("ciff", "bmp"),
    "ciff": ("index",),
    "vectors": ("index",),
}
_PARQUET = (".parquet", ".pq")
_INDEX_FILES = (".ciff", ".ciff.gz", ".bmp")
_BINARY = (*_PARQUET, *_INDEX_FILES)


def run(config: ConvertConfig, flags: Flags) -> None:
    """Converts `in` to `out`."""
    kind = _kind(config)
    form = config.to or _form(kind, config)
    if form not in _FROM[kind]:
        allowed = ", ".join(_FROM[kind])
        raise ConfigError(f"to = {form!r}: in = {config.source!r} holds a {kind}; to: {allowed}")
    _check(kind, form, config)
    if flags.dry_run:
        log.say(f"would convert the {kind} {config.source} to {form} and write {config.out}")
        return
    if form in ("ciff", "bmp", "index"):
        facts = _from_vectors(config) if kind == "vectors" else _index(form, config)
    elif form in ("trec", "parquet"):
        facts = _run(kind, config)
    else:
        facts = _lines(kind, form, config)
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
    """Returns the form that `out` asks for by its name."""
    name = config.out.lower()
    if kind in ("ciff", "vectors"):
        return "index"
    if kind == "index" and _form_of_index(config):
        return "bmp" if name.endswith(".bmp") else "ciff"
    if kind == "run":
        if name.endswith(_PARQUET):
            return "parquet"
        if name.endswith((".jsonl", ".jsonl.gz")):
            return "rerank" if config.qrels is None else "flagembedding"
        return "trec"
    raise ConfigError(f"to: required here, one of {', '.join(_FROM[kind])}")


def _check(kind: str, form: str, config: ConvertConfig) -> None:
    suffix = next((each for each in _BINARY if config.out.lower().endswith(each)), "")
    if suffix and kind in ("run", "samples") and form != "parquet":
        what = "a TREC run" if form == "trec" else f"a file of {form} lines"
        raise ConfigError(f"out = {config.out!r}: {what} does not end with {suffix}")
    if form == "parquet" and suffix not in _PARQUET:
        raise ConfigError(f"out = {config.out!r}: to=parquet writes a name that ends with .parquet")
    if kind != "run" or form in ("trec", "parquet"):
        return
    needed = {"corpus": config.corpus, "queries": config.queries}
    if form != "rerank":
        needed["qrels"] = config.qrels  # type: ignore[assignment]
    absent = [name for name, given in needed.items() if given is None]
    if absent:
        raise ConfigError(
            f"{absent[0]}: required to make {form} of a run ({', '.join(needed)}: texts of the ids"
            + (", and positives)" if form != "rerank" else ")")
        )


def _run(kind: str, config: ConvertConfig) -> str:
    from raydist.data.readers import read_run
    from raydist.data.samples.convert import run_of_samples, write_run

    if kind == "samples":
        with tempfile.TemporaryDirectory(prefix="raydist-convert-") as scratch:
            documents, queries = _stores(config, Path(scratch))
            found = run_of_samples(config.source, documents=documents, queries=queries)
    else:
        found = read_run(config.source, sort=config.sort)
    if config.depth:
        found = found.top(config.depth)
    write_run(found, config.out)
    return f"{len(found):,} rows of {len(found.query_ids):,} queries"


def _lines(kind: str, form: str, config: ConvertConfig) -> str:
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
            records = _run_records(form, config, Path(scratch))
        count = write_lines(records, config.out)
    return f"{count:,} lines"


def _run_records(form: str, config: ConvertConfig, scratch: Path) -> Iterable[Any]:
    from raydist.data.readers import read_documents, read_qrels, read_queries, read_run
    from raydist.data.samples import convert

    assert config.corpus is not None and config.queries is not None
    found = read_run(config.source, sort=config.sort)
    if config.depth:
        found = found.top(config.depth)
    queries = {q.query_id: q.text for q in read_queries(**config.queries.arguments())}
    wanted = set(found.table["doc_id"].to_pylist())
    if form == "rerank":
        tables = read_documents(**config.corpus.arguments())
        store = convert.store_of(tables, wanted, scratch / "documents")
        return convert.rerank_lines(found, queries, store, missing=config.missing)
    assert config.qrels is not None
    qrels = read_qrels(**config.qrels.arguments())
    wanted |= {doc_id for judged in qrels.values() for doc_id in judged}
    tables = read_documents(**config.corpus.arguments())
    store = convert.store_of(tables, sorted(wanted), scratch / "documents")
    return convert.run_samples(
        found,
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
    """Returns stores of the given corpus and queries."""
    import pyarrow as pa

    from raydist.data.readers import read_documents, read_queries
    from raydist.data.store.reader import DocumentStore
    from raydist.records import DOCUMENTS

    documents = queries = None
    if config.corpus is not None:
        tables = read_documents(**config.corpus.arguments())
        documents = DocumentStore.create(tables, scratch / "documents")
    if config.queries is not None:
        found = read_queries(**config.queries.arguments())
        columns = [[q.query_id for q in found], [""] * len(found), [q.text for q in found]]
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, DOCUMENTS)], DOCUMENTS)
        queries = DocumentStore.create([table], scratch / "queries")
    return documents, queries


def _index(form: str, config: ConvertConfig) -> str:
    """Converts an index to CIFF or BMP, or a CIFF file to an index."""
    from raydist.storage import local

    source = local(config.source)
    if form == "index":
        return _from_ciff(source, config)
    from raydist.bow.index import BowIndex

    index = BowIndex.open(source)
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


def _from_ciff(source: Path, config: ConvertConfig) -> str:
    from raydist.bow.exchange.ciff import import_ciff
    from raydist.fingerprints import file_fingerprint

    with ARTEFACT.open(
        config.out,
        config,
        inputs=lambda: {"ciff": file_fingerprint(source)},
        identity={"analyzer": identity(config.analyzer)},
    ) as output:
        if output.done:
            return ""
        remove(output.folder / "segments")
        facts = import_ciff(source, output.folder)
        output.finish(**facts, analyzer=config.analyzer.build().to_dict())
    return f"{facts['documents']:,} documents, {facts['terms']:,} terms"


def _from_vectors(config: ConvertConfig) -> str:
    """Makes an index of learned sparse vectors."""
    from raydist.bow.exchange.vectors import index_vectors, read_vectors
    from raydist.fingerprints import file_fingerprint

    with ARTEFACT.open(
        config.out,
        config,
        inputs=lambda: {"vectors": file_fingerprint(config.source)},
        identity={"unit": config.unit},
    ) as output:
        if output.done:
            return ""
        remove(output.folder / "segments")
        facts = index_vectors(read_vectors(config.source), output.folder, unit=config.unit)
        output.finish(**facts)
    return f"{facts['documents']:,} documents, {facts['postings']:,} weights"
