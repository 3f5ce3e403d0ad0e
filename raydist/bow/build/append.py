"""Adds documents to an index: they become a further segment, and the statistics grow.

With `duplicates=last` they replace the documents that have their ids: the same generation deletes
these. A search over the segments uses the statistics of all of them, so its rankings and scores are
those of an index of all documents built at once. Until the manifest is replaced, it is the old one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raydist.bow.build.create import build_parts
from raydist.bow.build.delete import forward_facts, mark_deleted
from raydist.bow.build.generation import LAYOUT
from raydist.bow.build.splits import Read
from raydist.bow.exchange.vectors import Vector, VectorFiles, index_vectors
from raydist.bow.format.forward import has_forward
from raydist.bow.format.segment import Segment
from raydist.bow.index import BowIndex
from raydist.bow.spec import IndexSpec
from raydist.data.columns import common_schema, named_schema, type_name
from raydist.data.store.reader import DocumentStore
from raydist.data.store.repeats import repeats_of
from raydist.disk import remove
from raydist.errors import ConfigError
from raydist.kernels.bits import Bits
from raydist.sameness import differences
from raydist.shard_files import Split

_SUMS = ("rejected", "terms", "bytes", "text_bytes", "store_bytes")
_OF_MODELS = ("model_tokens",)

_UNTIMED = {"seconds": {"start": 0.0, "splits": 0.0, "merge": 0.0}, "cpu_seconds": 0.0}
_UNTIMED |= {"text_bytes": 0}

Check = Callable[[Path, Mapping[str, Any]], None]
"""Called with the folder and the facts of what was built, before it is published."""


def append_to_index(
    splits: Sequence[Split],
    read: Read,
    folder: Path,
    spec: IndexSpec,
    *,
    inputs: Mapping[str, str],
    reading: Mapping[str, Any] | None = None,
    columns: Sequence[str] = (),
    check: Check = lambda *_: None,
) -> dict[str, Any] | None:
    """Adds the documents of `splits`; returns the facts of the new manifest.

    Returns None if these inputs, read alike, were appended before, and the same again would change
    nothing.

    Args:
        splits: as for `build_index`.
        read: as for `build_index`.
        folder: a complete index; an interrupted append of these inputs is continued.
        spec: what decides the result as for the index; an id that it already has is a duplicate.
        inputs: fingerprints of the inputs by name.
        reading: settings by which `read` makes other documents of the same inputs.
        columns: names of the metadata that `read` gives, those of the index.
        check: may raise, and the index stays as it was.

    Raises:
        ArtifactError: no complete index.
        ConfigError: the index was built with other settings, or of weighted terms.
        DataError: as for `build_index`.
    """

    def build(manifest: Mapping[str, Any], side: Path, name: str) -> dict[str, Any]:
        _check_settings(folder, manifest, spec, columns)
        added = build_parts(splits, read, side, spec, name)
        check(side, added)
        return added

    key = [dict(inputs), spec.max_docs, *([dict(reading)] if reading else [])]
    work = [list(splits), spec.merge]
    return append_built(folder, key, build, inputs=inputs, duplicates=spec.duplicates, work=work)


def append_vectors(
    vectors: Iterable[Vector] | VectorFiles,
    folder: Path,
    *,
    inputs: Mapping[str, str],
    duplicates: str = "error",
) -> dict[str, Any] | None:
    """Adds weighted documents to an index of weighted terms; see `append_to_index`.

    Raises:
        ArtifactError: no complete index.
        ConfigError: the index holds texts.
        DataError: a bad document, or an id twice.
    """

    def build(manifest: Mapping[str, Any], side: Path, name: str) -> dict[str, Any]:
        unit = manifest.get("unit")
        if not unit:
            raise ConfigError(
                f"{folder} is an index of texts, and these are vectors of weighted terms: convert "
                "them to an index of their own (raydist convert in=VECTORS out=INDEX)"
            )
        remove(side / "segments" / name)
        first = Segment.open(folder / manifest["segments"][0])
        reordered = first.order_N is not None
        facts = index_vectors(vectors, side, unit=unit, name=name, reordered=reordered)
        return {**facts, **_UNTIMED}

    return append_built(folder, [dict(inputs)], build, inputs=inputs, duplicates=duplicates)


def append_built(
    folder: Path,
    key: Sequence[Any],
    build: Callable[[Mapping[str, Any], Path, str], dict[str, Any]],
    *,
    inputs: Mapping[str, str],
    duplicates: str,
    work: Sequence[Any] = (),
) -> dict[str, Any] | None:
    """Appends what `build` writes; arguments as of `Layout.append`.

    Returns the facts of the new manifest, None if the same was appended before.
    """

    def join(
        manifest: Mapping[str, Any], side: Path, added: Mapping[str, Any], name: str
    ) -> dict[str, Any]:
        return _added(folder, manifest, side, added, name, duplicates)

    grown = LAYOUT.append(folder, key, build, join, inputs=inputs, duplicates=duplicates, work=work)
    if grown is None:
        return None
    manifest, added = grown
    return {
        **manifest,
        **{name: added[name] for name in _UNTIMED if name in added},
        "new_documents": added["documents"],
    }


def _check_settings(
    folder: Path, manifest: Mapping[str, Any], spec: IndexSpec, columns: Sequence[str]
) -> None:
    if manifest.get("analyzer") is None:
        raise ConfigError(
            f"{folder} is an index of weighted terms, which only vectors can be added to: give "
            'corpus= a file of {"id", "vector"} lines, or build an index of the texts'
            + "; raydist embed --append weighs texts by the index's own model"
            * ("model" in manifest)
        )
    segment = Segment.open(folder / manifest["segments"][0])
    built = {
        "analyzer": _named(manifest["analyzer"]),
        "compress": segment.compress,
        "block_size": segment.block_size,
        "positions": segment.has_positions,
        "store": bool(manifest["store"]),
        "forward": has_forward(segment),
        "reorder": segment.order_N is not None,
        "corpus.columns": list(manifest.get("columns", ())),
    }
    wanted = {
        "analyzer": _named(spec.analyzer.build().to_dict()),
        "compress": spec.compress,
        "block_size": spec.block_size,
        "positions": spec.positions,
        "store": spec.store,
        "forward": spec.forward,
        "reorder": spec.reorder,
        "corpus.columns": list(columns),
    }
    changed = differences(built, wanted)
    if changed:
        lines = "\n  ".join(changed)
        raise ConfigError(
            f"{folder} was built with other settings; append with the same ones (there -> now):\n"
            f"  {lines}"
        )


def _named(analyzer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recorded analyzer without a tokenizer's file, whose hash the fingerprint has."""
    return {name: value for name, value in analyzer.items() if name != "tokenizer"}


def _added(
    folder: Path,
    manifest: Mapping[str, Any],
    side: Path,
    added: Mapping[str, Any],
    name: str,
    duplicates: str,
) -> dict[str, Any]:
    """Puts what was built beside the index into it; returns what changes in the manifest."""
    old = BowIndex.of(folder, manifest)
    types = [each["columns"] for each in (manifest, added) if each.get("columns")]
    schema = common_schema([named_schema(each) for each in types], ["the index", "what is added"])
    superfluous = repeats_of(old, BowIndex.of(side, added)).superfluous(duplicates)
    store = f"store-{name}" if added["store"] else None
    for source, target in ((f"segments/{name}", f"segments/{name}"), ("store", store)):
        if target is not None:
            remove(folder / target)
            os.rename(side / source, folder / target)
    joint = {**manifest, "segments": manifest["segments"] + added["segments"]}
    index = _joined(old, BowIndex.of(folder, {**added, "store": store}))
    sums = {each: manifest.get(each, 0) + added.get(each, 0) for each in _SUMS}
    sums |= {name: manifest.get(name, 0) + added[name] for name in _OF_MODELS if name in added}
    sums |= forward_facts(index.segments)
    blank = manifest.get("blank_id") if added["blank_id"] is None else added["blank_id"]
    return {
        **joint,
        **sums,
        **({"columns": {each.name: type_name(each.type) for each in schema}} if types else {}),
        "blank_id": blank,
        **mark_deleted(folder, joint, index, superfluous, name),
    }


def _joined(old: BowIndex, new: BowIndex) -> BowIndex:
    """Returns both as one index."""
    store = old.store
    if store is not None and new.store is not None:
        live = store.live
        if live is not None:
            live = Bits.of(np.append(live.flags, np.ones(new.store.rows_total, np.bool_)))
        store = DocumentStore(store.folder, [*store.pieces, *new.store.pieces], live)
    segments = [*old.segments, *new.segments]
    return BowIndex(
        segments, old.analyzer, folder=old.folder, store=store, unit=old.unit, field=old.field
    )
