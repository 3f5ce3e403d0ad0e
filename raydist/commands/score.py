"""Scores a run's documents with a teacher, as training data for `raydist distill`.

    raydist score run=run.txt corpus=corpus.jsonl queries=queries.jsonl teacher=PATH out=new.jsonl

One line per query: `{query_id, query, candidates: [{id, score}, ...]}`, best first. Beside the
file lies `OUT.raydist`: the manifest, and until the work is done the shards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import pyarrow as pa

from raydist.artefact import Artefact
from raydist.commands.rerank import PROGRESS, SCRATCH, score_run
from raydist.config.base import Flags
from raydist.config.rerank import ScoreConfig
from raydist.disk import atomic
from raydist.records import Run

Config = ScoreConfig
FLAGS = ("--dry-run", "--resume")
ARTEFACT = Artefact("teacher-scores", is_file=True, progress=PROGRESS, scratch=SCRATCH)


def run(config: ScoreConfig, flags: Flags) -> None:
    """Writes the teacher's lists and the manifest beside them."""
    score_run(config, config.teacher, flags, ARTEFACT, partial(_write, config), raw=config.raw)


def _write(config: ScoreConfig, tables: Iterator[pa.Table], out: Path, _: Path) -> None:
    from raydist.data.readers import read_queries

    texts = {q.query_id: q.text for q in read_queries(config.queries)}
    with atomic(out) as path, open(path, "w", encoding="utf-8", newline="\n") as lines:
        for query_id, doc_ids, scores in chain.from_iterable(map(Run.of_checked, tables)):
            record = {
                "query_id": query_id,
                "query": texts[query_id],
                "candidates": [
                    {"id": doc_id, "score": float(str(score))}
                    for doc_id, score in zip(doc_ids, scores)
                ],
            }
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
