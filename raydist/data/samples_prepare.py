"""Checking a data set once, before anything expensive starts, and indexing its lines.

`raydist.data.samples_scan` passes over the lines. Sources that are not lines of samples (runs,
relevance judgements, BEIR folders, ir_datasets) become lines of ids first: see
`raydist.data.samples_sources`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from raydist.data.samples import FACTS, SampleFacts
from raydist.data.samples_scan import scan
from raydist.data.samples_sources import Input, find_source, input_key
from raydist.disk import write_json
from raydist.fingerprints import value_fingerprint


def prepare(
    path: str | os.PathLike[str] | Sequence[str],
    folder: str | os.PathLike[str],
    *,
    name: str = "data",
    format: str | None = None,
    corpus: Input | None = None,
    queries: Input | None = None,
    qrels: Input | None = None,
    run: Input | None = None,
    positives: Literal["judged", "retrieved"] = "judged",
    relevance: int = 1,
    split: str = "train",
    on_bad: Literal["error", "skip"] = "error",
    need_negatives: bool = False,
    need_scores: bool = False,
    max_rows: int = 0,
) -> SampleFacts:
    """Checks and indexes a data set, or returns the facts of an earlier, equal call.

    Args:
        path: samples, a run, relevance judgements, a BEIR folder or `irds:ID`; globs and several
            files of one format are one data set.
        folder: where the index goes; everything in it belongs to this data set.
        name: for messages.
        format: a key of `FORMATS`; found out if None.
        corpus: documents that ids refer to: a path, or `read_documents`' keyword arguments; so
            are the following ones with their readers.
        queries: queries that ids refer to.
        qrels: relevance judgements that make positives.
        run: a run whose other documents become negatives, where `path` is no run itself.
        positives: `judged` takes all judged relevant documents, `retrieved` those that the run has.
        relevance: least grade of a positive.
        split: of a BEIR folder's qrels.
        on_bad: `skip` leaves bad lines out, counts them and writes them to `rejects.jsonl`.
        need_negatives: a sample without a negative is a bad line; samples made of judgements and
            a run are left out and counted.
        need_scores: a sample without teacher scores is a bad line.
        max_rows: use the first rows only; 0 = all.

    Raises:
        DataError: a missing file, a bad line (with file, number and excerpt), or no usable sample.
    """
    target = Path(folder)
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    inputs = {
        what: input_key(where)
        for what, where in (
            ("corpus", corpus),
            ("queries", queries),
            ("qrels", qrels),
            ("run", run),
        )
        if where
    }
    key = value_fingerprint(
        {
            "content": [input_key(each) for each in given],
            "paths": [os.path.abspath(os.fspath(each)) for each in given],
            "inputs": inputs,
            "meaning": [format, positives, relevance, split, max_rows],
            "checks": [on_bad, need_negatives, need_scores],
        }
    )
    if (target / FACTS).exists():
        known = SampleFacts.from_dict(json.loads((target / FACTS).read_text(encoding="utf-8")))
        if known.key == key:
            return known
        (target / FACTS).unlink()
    target.mkdir(parents=True, exist_ok=True)
    source = find_source(
        [os.fspath(each) for each in given],
        target,
        format=format,
        corpus=corpus,
        queries=queries,
        qrels=qrels,
        run=run,
        positives=positives,
        relevance=relevance,
        split=split,
        need_negatives=need_negatives,
    )
    facts = scan(source, target, name, on_bad, need_negatives, need_scores, max_rows)
    facts = replace(facts, key=key)
    write_json(target / FACTS, facts.to_dict())
    return facts
