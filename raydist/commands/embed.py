"""Embeds a corpus: fixed splits, one vector shard per split; adds documents, or takes some out.

    raydist embed corpus=corpus.jsonl model=PATH_OR_NAME out=VEC
    raydist embed corpus=corpus.jsonl model=PATH_OR_NAME out=VEC workers=2
    raydist embed corpus=corpus.jsonl model=PATH_OR_NAME out=VEC chunk.tokens=128 chunk.overlap=32
    raydist embed corpus=corpus.jsonl model=MULTIVECTOR out=LIDX bits=4
    raydist embed corpus=more.jsonl out=VEC --append
    raydist embed delete=ids.txt out=VEC
    raydist embed corpus=more.jsonl out=LIDX --append
    raydist embed corpus=more.jsonl out=SIDX --append

What is written follows from the model: vectors of a bi-encoder, the index of a multi-vector model,
or an index of the terms that a sparse model (SPLADE) weighs, whose queries are texts, too.
The folder can be searched with `raydist search index=OUT`, alone or fused with other indexes. The
same command continues where an interrupted one stopped. Added documents are embedded by the model
and the settings of the folder, and become a further segment; with `duplicates=last` they replace
those of the same ids. Where there are more than ten segments, the last ones are merged
(`auto_merge=false` does not). Deleted documents are only marked, at once; `raydist merge out=VEC`
removes their bytes, and so does `purge=true` beside `delete=`. Exact searches afterwards are those
of documents that were embedded at once, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist import log
from raydist.artefact import Artefact, planned
from raydist.bow.spec import MergeSpec
from raydist.commands.growth.changes import appended, delete_listed, segmented
from raydist.config.base import Flags
from raydist.config.embed import EmbedConfig
from raydist.config.inputs import inputs
from raydist.data.spec import CorpusSource
from raydist.dense.spec import EmbeddingSpec
from raydist.errors import ConfigError
from raydist.late.spec import LateSpec

if TYPE_CHECKING:
    from raydist.dense.changes import Segmented
    from raydist.dense.embed import EmbeddingModel, Read
    from raydist.shard_files import Split

Config = EmbedConfig
FLAGS = ("--dry-run", "--append", "--resume")
ARTEFACT = Artefact("vectors", progress="shards/*.done", scratch=(".append-*",))
TERMS = Artefact("bow-index", progress=".work/splits/*.done", scratch=(".work", ".append-*"))
LATE = Artefact("multivector-index", progress=".work/*/*.done", scratch=(".work", ".append-*"))
_SPLIT_BYTES = 256 << 10
"""Size of a split: a crash loses at most a minute of a CPU's work, or of a GPU where the splits of
terabytes are larger."""


def run(config: EmbedConfig, flags: Flags) -> None:
    """Writes the vector shards, the approximate index if there is to be one, and the manifest."""
    from raydist.data.readers import announce, read_kept
    from raydist.data.splits import plan_splits, warn_of_idle_workers
    from raydist.dense.chunks import check_chunks
    from raydist.dense.embed import check_forms, describe_model, embed_corpus
    from raydist.models.folders.kinds import is_multivector

    if config.delete is not None:
        _delete(config, config.delete, flags)
        return
    corpus = config.corpus
    assert corpus is not None
    if corpus.order == "list":
        raise ConfigError("corpus.order=list: embed keeps the order of the source")
    source = ", ".join(corpus.paths)
    if flags.append:
        if not planned(flags.dry_run, f"append {source} to {config.out}"):
            _append(config, corpus)
        return
    spec, model = config.embedding, config.model
    if model is None:
        raise ConfigError("model: required: the bi-encoder (only --append takes the folder's own)")
    check_forms(spec)
    described, dimension = describe_model(model.settings(), spec.dimension, spec.precision)
    if spec.chunk.tokens:
        check_chunks(spec.chunk, Path(described.folder), model.settings())
    tokens = is_multivector(Path(described.folder))
    terms = described.kind == "sparse"
    _check(config, tokens, terms, dimension)
    splits = plan_splits(
        corpus.paths, format=corpus.format, split_bytes=spec.split_bytes or _SPLIT_BYTES
    )
    warn_of_idle_workers(splits, spec.workers)
    announce(splits, corpus)

    artefact = LATE if tokens else TERMS if terms else ARTEFACT
    with artefact.open(
        config.out,
        config,
        inputs=lambda: inputs(config),
        plan=f"embed {log.count(len(splits), 'split')} of {source} with "
        f"{model.path} into {config.out} ({dimension} {'terms' if terms else 'dimensions'})",
        dry_run=flags.dry_run,
    ) as output:
        if output.done:
            return
        read = partial(read_kept, corpus)
        if tokens:
            facts = _index_tokens(config, corpus, splits, read, output.folder)
        elif terms:
            facts = _index_terms(config, corpus, splits, read, described, output.folder)
        else:
            facts = embed_corpus(splits, read, output.folder, model, spec)
            facts |= _finished(output.folder, facts, corpus, spec)
        output.finish(**facts)
    _report(config.out, facts, facts["documents"], facts["seconds"])


def _check(config: EmbedConfig, tokens: bool, terms: bool, dimension: int) -> None:
    """Raises ConfigError for options that the model's index does not have."""
    corpus, chunk = config.corpus, config.embedding.chunk
    if (terms or tokens) and (chunk.tokens or (corpus is not None and corpus.columns)):
        key = "chunk" if chunk.tokens else "corpus.columns"
        raise ConfigError(f"{key}: only a bi-encoder's vectors have it; leave it out")
    if chunk.tokens and corpus is not None:
        from raydist.dense.chunks import check_columns

        check_columns(corpus.columns)
    if terms:
        from raydist.sparse.embed import check_spec

        check_spec(config.embedding)
    else:
        for name in ("unit", "reorder"):
            if getattr(config.embedding, name) != getattr(EmbeddingSpec(), name):
                raise ConfigError(f"{name}: is for models that weigh terms; leave it out")
    if tokens:
        from raydist.late.embed import check

        check(config.embedding, config.late, dimension)
    elif config.late != LateSpec():
        assert config.model is not None
        raise ConfigError(
            f"bits, centroids: {config.model.path} is no multi-vector model; vectors have precision"
        )


def _index_tokens(
    config: EmbedConfig, corpus: CorpusSource, splits: Sequence[Split], read: Read, folder: Path
) -> dict[str, Any]:
    """Builds the index of a multi-vector model; returns its facts."""
    from raydist.late.embed import embed_tokens
    from raydist.late.format import FIRST

    assert config.model is not None
    facts = embed_tokens(splits, read, folder, config.model, config.embedding, config.late)
    return {**facts, **_checked(corpus, folder / FIRST, folder)}


def _checked(corpus: CorpusSource, segment: Path, folder: Path) -> dict[str, Any]:
    """Reports ids that are missing from the corpus, and bad lines; returns their number."""
    from raydist.data.ids import report_absent
    from raydist.data.rejects import collect_rejects
    from raydist.late.token_shards import read_documents

    ids = read_documents(segment)["doc_id"]
    report_absent(corpus.ids, corpus.exclude_ids, [ids], corpus.missing)
    skipped = sorted(folder.glob(".work/tokens/[0-9]*/rejects.jsonl"))
    return {"rejected": collect_rejects(skipped, corpus.rejects)}


def _index_terms(
    config: EmbedConfig,
    corpus: CorpusSource,
    splits: Sequence[Split],
    read: Read,
    described: EmbeddingModel,
    folder: Path,
) -> dict[str, Any]:
    """Builds the index of a sparse model; returns its facts."""
    from raydist.bow.ahead import MERGE, prepare
    from raydist.sparse.embed import embed_terms

    assert config.model is not None
    prepare(MERGE)
    facts = embed_terms(splits, read, folder, config.model, described, config.embedding)
    _check_terms(corpus, folder, facts)
    return facts


def _check_terms(corpus: CorpusSource, folder: Path, facts: Mapping[str, Any]) -> None:
    """Reports ids that are missing from the corpus, and bad lines."""
    import pyarrow as pa

    from raydist.bow.index import BowIndex
    from raydist.data.ids import report_absent
    from raydist.data.rejects import collect_rejects
    from raydist.sparse.embed import SHARDS

    ids = pa.chunked_array([BowIndex.of(folder, facts).doc_ids])
    report_absent(corpus.ids, corpus.exclude_ids, [ids], corpus.missing)
    collect_rejects(sorted((folder / SHARDS).glob("[0-9]*/rejects.jsonl")), corpus.rejects)


def _finished(
    folder: Path, facts: Mapping[str, Any], corpus: CorpusSource, spec: EmbeddingSpec
) -> dict[str, Any]:
    """Checks what was embedded into a folder, and builds its approximate index; returns facts."""
    from raydist.data.ids import report_absent
    from raydist.data.rejects import collect_rejects
    from raydist.dense.passages import documents_of
    from raydist.dense.segments import FIRST, segment_facts, segments_of
    from raydist.dense.vectors import VectorShards

    ids = documents_of(VectorShards.map(folder, facts)).id_parts()
    report_absent(corpus.ids, corpus.exclude_ids, ids, corpus.missing)
    skipped = sorted(folder.glob("shards/[0-9]*/rejects.jsonl"))
    rejected = {"rejected": collect_rejects(skipped, corpus.rejects), **_recalls(folder, facts)}
    if spec.ann.kind == "none":
        return rejected
    from raydist.dense.ann import build_ann

    own = segments_of(facts)[FIRST]
    own["ann"] = build_ann(
        folder, own, spec.ann, workers=spec.workers, cpus_per_worker=spec.cpus_per_worker
    )
    named = segment_facts({FIRST: own}) if "segments" in facts else {}
    return {**rejected, **named, "ann": own["ann"]}


def _recalls(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recall of the stored form where there is a finer one, before and after it."""
    from raydist.dense.recall import recall, sample
    from raydist.dense.stored import rescored_search
    from raydist.dense.vectors import VectorShards

    shards = VectorShards.map(folder, facts)
    if shards.fine is None:
        return {}
    rows_Q = sample(len(shards))
    queries_QD = shards.finest.take(rows_Q)
    recalls = {}
    for depth in (1, 4):
        search = partial(rescored_search, shards, depth=depth)
        recalls[f"recall@10_depth_{depth}"] = recall(
            search, shards.finest, queries_QD, own_Q=rows_Q
        )
    return {**recalls, "recall_queries": f"{len(rows_Q)} documents"}


def _append(config: EmbedConfig, corpus: CorpusSource) -> None:
    from raydist.data.readers import announce, read_kept, settings_of
    from raydist.data.splits import plan_splits, warn_of_idle_workers
    from raydist.dense.changes import merge_tail
    from raydist.dense.chunks import check_appended
    from raydist.dense.embed import embed_parts

    folder = Path(config.out)
    manifest, vectors = _grown(folder)
    config = _as_built(config, manifest)
    check_appended(corpus.columns, manifest)
    spec, model = config.embedding, config.model
    assert model is not None
    splits = plan_splits(
        corpus.paths, format=corpus.format, split_bytes=spec.split_bytes or _SPLIT_BYTES
    )
    warn_of_idle_workers(splits, spec.workers)
    announce(splits, corpus)
    read = partial(read_kept, corpus)

    if vectors is None:
        _append_terms(config, corpus, splits, read)
        return

    def build(side: Path) -> dict[str, Any]:
        if manifest["kind"] == ARTEFACT.kind:
            facts = embed_parts(splits, read, side, model, spec)
            return {**facts, **_finished(side, facts, corpus, spec)}
        from raydist.late.embed import embed_addition

        facts = embed_addition(splits, read, folder, side, model, spec)
        return {**facts, **_checked(corpus, side, side)}

    own = _corpus_inputs(config)
    facts = vectors.append(
        build,
        folder,
        key=[own, settings_of(corpus)],
        inputs=own,
        duplicates=spec.duplicates,
        work=list(splits),
    )
    merge = partial(
        vectors.merge, plan=merge_tail, workers=spec.workers, cpus_per_worker=spec.cpus_per_worker
    )
    appended(folder, facts, merge if spec.auto_merge else None, partial(_report_append, folder))


def _append_terms(
    config: EmbedConfig, corpus: CorpusSource, splits: Sequence[Split], read: Read
) -> None:
    """Adds documents to the index of a sparse model."""
    from raydist.bow.build.segments import merge_tail
    from raydist.data.readers import settings_of
    from raydist.dense.embed import describe_model
    from raydist.sparse.embed import append_terms

    folder, spec, model = Path(config.out), config.embedding, config.model
    assert model is not None
    facts = append_terms(
        splits,
        read,
        folder,
        model,
        describe_model(model.settings())[0],
        spec,
        inputs=_corpus_inputs(config),
        reading=settings_of(corpus),
        check=partial(_check_terms, corpus),
    )
    merge = partial(merge_tail, spec=_merging(spec)) if spec.auto_merge else None
    appended(folder, facts, merge, partial(_report_append, folder))


def _grown(folder: Path) -> tuple[Mapping[str, Any], Segmented | None]:
    """Returns the manifest of a folder, and how it changes, None for an index of terms.

    Raises ConfigError for an index of words, or of weights from elsewhere.
    """
    from raydist.manifest import read_manifest

    manifest = read_manifest(folder, [ARTEFACT.kind, LATE.kind, TERMS.kind])
    if "model" not in manifest:
        raise ConfigError(f"{folder}: no model has embedded it; raydist index changes it")
    return manifest, segmented(manifest["kind"])


def _report_append(folder: Path, facts: Mapping[str, Any]) -> None:
    _report(folder, facts, facts["new_documents"], facts["new_seconds"])


def _merging(spec: EmbeddingSpec) -> MergeSpec:
    return MergeSpec(workers=spec.workers, cpus_per_worker=spec.cpus_per_worker)


def _corpus_inputs(config: EmbedConfig) -> dict[str, str]:
    return {name: str(each) for name, each in inputs(config).items() if name.startswith("corpus")}


def _as_built(config: EmbedConfig, manifest: Mapping[str, Any]) -> EmbedConfig:
    """Returns the configuration with the settings and the model of the folder.

    Raises:
        ConfigError: some are given, and are others.
    """
    from raydist.config.load import load
    from raydist.dense.embed import describe_model
    from raydist.sameness import differences

    given = {n: value for n, value in config.resolved().items() if n in config.model_fields_set}
    free = ("corpus", "delete", "model", "duplicates", "split_bytes")
    built = {name: each for name, each in manifest["config"].items() if name not in free}
    identity = config.identity()  # which leaves out some defaults that are given all the same
    decide = (name for name in given if name not in free and (name in identity or name in built))
    asked = {name: identity.get(name, given[name]) for name in decide}
    model = given.pop("model", None) or {
        **manifest["config"]["model"],
        "path": manifest["model"]["path"],
    }
    config = load(EmbedConfig, [{**built, **given, "model": model}])
    assert config.model is not None
    spec = config.embedding
    described, _ = describe_model(config.model.settings(), spec.dimension, spec.precision)
    now = {"fingerprint": described.fingerprint, **described.asked}
    was = {"fingerprint": manifest["model"]["fingerprint"], **manifest["model"]["asked"]}
    there = {name: built.get(name) for name in asked}
    changed = differences({**there, "model": was}, {**asked, "model": now})
    if changed:
        lines = "\n  ".join(changed)
        raise ConfigError(
            f"{config.out} was embedded with other settings; append with the same ones "
            f"(there -> now):\n  {lines}"
        )
    return config


def _delete(config: EmbedConfig, path: str, flags: Flags) -> None:
    from raydist.bow.build import segments
    from raydist.bow.build.delete import delete_from_index
    from raydist.generations import purge_runs

    _, vectors = _grown(Path(config.out))
    spec = config.embedding
    delete: Callable[[Path, Any], Mapping[str, Any] | None] = delete_from_index
    purge: Callable[[Path], object] = partial(segments.purge, spec=_merging(spec))
    if vectors is not None:
        delete = vectors.delete
        purge = partial(
            vectors.merge,
            plan=purge_runs,
            workers=spec.workers,
            cpus_per_worker=spec.cpus_per_worker,
        )
    delete_listed(config.out, path, flags, delete, purge if config.purge else None)


def _report(out: str | Path, facts: Mapping[str, Any], new: int, seconds: float) -> None:
    rows: list[tuple[str, object]] = [
        ("passages" if "chunk" in facts else "documents", facts["documents"]),
        ("terms per document", facts["postings"] / max(facts["documents"], 1))
        if "postings" in facts
        else ("dimensions", facts["dimension"]),
        ("documents/s and worker", new / max(seconds, 1e-9)),
        ("padding", f"{facts['padding_waste']:.1%}"),
    ]
    if "centroids" in facts:
        rows += [("vectors", facts["vectors"]), ("centroids", facts["centroids"])]
    if "segments" in facts:
        rows.append(("segments", len(facts["segments"])))
    if "recall@10_depth_4" in facts:
        what = f"recall@10, rescore_depth=4, {facts['recall_queries']} as queries"
        rows.append((what, facts["recall@10_depth_4"]))
    if "ann" in facts:
        ann = facts["ann"]
        queries = f"{ann['recall_queries']} as queries"
        rows.append((f"recall@10 of {ann['kind']}, {queries}", ann["recall@10"]))
    what = "index" if "postings" in facts else "vectors"
    log.table(f"{what} in {out}", ["what", "value"], rows)
