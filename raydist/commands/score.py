"""Scores a run's documents with a teacher, as training data for `raydist distill`.

    raydist score run=run.txt corpus=corpus.jsonl queries=queries.jsonl teacher=PATH out=new.jsonl

One line per query: `{query_id, query, candidates: [{id, score}, ...]}`, best first. Beside the
file lies `OUT.raydist`: the manifest, and until the work is done the shards.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from raydist.commands.rerank import finish, score_run
from raydist.config.base import Flags
from raydist.config.score import ScoreConfig
from raydist.records import Run

Config = ScoreConfig


def run(config: ScoreConfig, flags: Flags) -> None:
    """Writes the teacher's lists and the manifest beside them."""
    from raydist.data.readers import read_queries

    found = score_run(config, config.teacher, flags, kind="teacher-scores")
    if found is None:
        return
    scored, output, facts = found
    texts = {q.query_id: q.text for q in read_queries(**config.queries.arguments())}
    _write(scored, texts, Path(config.out))
    finish(output, facts, config.out, "scored")


def _write(run: Run, texts: dict[str, str], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    with open(partial, "w", encoding="utf-8", newline="\n") as lines:
        for query_id, doc_ids, scores in run:
            record = {
                "query_id": query_id,
                "query": texts[query_id],
                "candidates": [
                    {"id": doc_id, "score": float(str(score))}
                    for doc_id, score in zip(doc_ids, scores)
                ],
            }
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
    os.replace(partial, out)
