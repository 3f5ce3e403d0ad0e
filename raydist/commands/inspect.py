"""Shows what a bag-of-words index knows of itself, of a term, or of a document.

    raydist inspect IDX
    raydist inspect IDX term=herons            # df, cf, and the documents that have most of it
    raydist inspect IDX term=heron analyzed=false
    raydist inspect FDX/title                  # the index of a field
    raydist inspect IDX doc=51 k=0             # all terms of a document

A document's terms come from the forward index (`index forward=true`), or else from its stored text.
Deleted documents do not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raydist import log, storage
from raydist.api.display import text_table
from raydist.artefact import planned
from raydist.bow import lookup
from raydist.bow.fields import folders_of, open_fields
from raydist.bow.format.forward import NAMES as FORWARD
from raydist.bow.format.positions import FILES as POSITIONS
from raydist.bow.formulas import lucene_idf
from raydist.bow.index import BowIndex
from raydist.config.base import Flags
from raydist.config.lifecycle import InspectConfig
from raydist.errors import DataError
from raydist.manifest import read_manifest

Config = InspectConfig
Facts = dict[str, Any]
Rows = list[dict[str, Any]]

_WIDE = "large_"  # strings of any size, to Arrow


def run(config: InspectConfig, flags: Flags) -> None:
    """Prints what is asked for."""
    subject = config.term or config.doc or "the index"
    if planned(flags.dry_run, f"look up {subject} in {config.index}"):
        return
    folder = storage.local(config.index)
    fields = folders_of(folder)
    alone = fields == [folder] or config.term is not None or config.doc is not None
    index = BowIndex.open(folder if alone else fields[0])  # says that a term has a field
    if not alone:
        facts, name, rows = _of_fields(open_fields(folder))
    elif config.term is not None:
        term = lookup.term_of(index, config.term, config.analyzed)
        facts, name, rows = _of_term(index, term, config.k)
    elif config.doc is not None:
        facts, name, rows = _of_document(index, config.doc, config.k)
    else:
        facts, name, rows = _of_index(index, config.k)
    if config.format == "json":
        print(json.dumps({**facts, name: rows}, ensure_ascii=False, indent=1))
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key.replace('_', ' '):<{width}}  {_shown(value)}")
    if rows:
        print()
        print(text_table(list(rows[0]), [list(row.values()) for row in rows]))


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _of_fields(indexes: Mapping[str, BowIndex]) -> tuple[Facts, str, Rows]:
    first = next(iter(indexes.values()))
    facts: Facts = {
        "documents": len(first),
        "texts": "stored" if first.store is not None else "none",
        "columns": _columns(first),
    }
    rows = [
        {
            "field": name,
            "with_terms": index.nonempty,
            "tokens": index.tokens,
            "average_length": index.average_length,
            "postings": sum(each.live_postings for each in index.segments),
        }
        for name, index in indexes.items()
    ]
    return facts, "fields", rows


def _columns(index: BowIndex) -> str:
    schema = index.columns.schema if index.columns is not None else ()
    return (
        ", ".join(f"{each.name} ({str(each.type).removeprefix(_WIDE)})" for each in schema)
        or "none"
    )


def _size(index: BowIndex, names: Sequence[str]) -> str:
    files = [segment.files.header["files"] for segment in index.segments]
    total = sum(each[name]["bytes"] for each in files for name in names if name in each)
    return log.size(total) if total else "none"


def _of_index(index: BowIndex, k: int) -> tuple[Facts, str, Rows]:
    facts: Facts = {
        "documents": len(index),
        "without_terms": len(index) - index.nonempty,
        "deleted": index.end - len(index),
        "tokens": index.tokens,
        "average_length": index.average_length,
        "postings": sum(each.live_postings for each in index.segments),
        "segments": len(index.segments),
        "analyzer": str(index.analyzer) if index.analyzer else "none (weighted terms)",
        "texts": "stored" if index.store is not None else "none",
        "columns": _columns(index),
        "positions": _size(index, POSITIONS),
        "forward_index": _size(index, FORWARD),
        "reordered": all(each.order_N is not None for each in index.segments),
    }
    assert index.folder is not None
    if index.unit and "model" in (manifest := read_manifest(index.folder)):
        facts["model"] = manifest["model"]["path"]
    if index.field is not None:
        facts = {"field": index.field, **facts}
    frequent = lookup.most_frequent(index, k or None)
    return facts, "terms", [{"term": term, "df": df} for term, df in frequent]


def _of_term(index: BowIndex, term: str, k: int) -> tuple[Facts, str, Rows]:
    statistics = lookup.statistics_of(index, term)
    blocks = list(lookup.posting_blocks(index, term))
    docs = np.concatenate([np.empty(0, np.int64), *(docs for docs, _ in blocks)])
    tfs = np.concatenate([np.empty(0, np.uint32), *(tfs for _, tfs in blocks)])
    best = np.argsort(-tfs.astype(np.int64), kind="stable")[: k or None]
    facts: Facts = {
        "term": term,
        "document_frequency": statistics.document_frequency,
        "collection_frequency": statistics.collection_frequency,
        "idf": statistics.idf,
    }
    columns = (
        index.pick_ids(docs[best]).to_pylist(),
        tfs[best].tolist(),
        index.lengths(docs[best]).tolist(),
    )
    return facts, "documents", _table(("id", "tf", "length"), columns)


def _of_document(index: BowIndex, doc_id: str, k: int) -> tuple[Facts, str, Rows]:
    position = int(index.find(pa.array([doc_id], pa.large_string()))[0])
    if position < 0:
        raise DataError(f"doc = {doc_id!r}: no document of this id in {index.folder}")
    counts = lookup.document_vector(index, doc_id)
    facts: Facts = {
        "id": doc_id,
        "number": int(index.numbers(np.array([position]))[0]) + 1,
        "length": int(index.lengths(np.array([position]))[0]),
        "distinct_terms": len(counts),
    }
    if index.store is not None and (document := index.store.get([doc_id])[0]) is not None:
        facts["title"] = document.title
    terms = sorted(counts, key=lambda term: -counts[term])[: k or None]
    pairs = [(index.document_frequency(term), counts[term]) for term in terms]
    idfs = [float(lucene_idf(index.nonempty, df)) for df, _ in pairs]
    columns = (terms, [tf for _, tf in pairs], [df for df, _ in pairs], idfs)
    return facts, "terms", _table(("term", "tf", "df", "idf"), columns)


def _table(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> Rows:
    return [dict(zip(names, row)) for row in zip(*columns)]
