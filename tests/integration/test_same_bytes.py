"""What the verbs write stays the same, byte for byte, unless a change means to change it.

Only outputs that depend neither on the processor nor on the time are compared; `pytest
--update-golden` records new ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raydist.cli import main
from tests.bow import generated
from tests.outputs import results

DOCUMENTS, QUERIES = 1200, 40
TEXTS = ["corpus=corpus.jsonl", "queries=queries.tsv"]
MEASURES = "measures=nDCG@10,AP,RR@10,R@100"

COMMANDS: dict[str, list[str]] = {
    "index": ["index", TEXTS[0], "out=index", "split_bytes=50kB"],
    "segments": ["index", TEXTS[0], "out=segments", "merge=false", "split_bytes=100kB"],
    "plain": ["index", TEXTS[0], "out=plain", "compress=false", "analyzer.stemmer=none"],
    "first": ["index", TEXTS[0], "out=changed", "max_docs=500"],
    "append": ["index", "corpus=rest.jsonl", "out=changed", "--append"],
    "delete": ["index", "delete=gone.txt", "out=changed"],
    "bm25": ["search", "index=index", TEXTS[1], "k=50", "out=bm25.txt"],
    "changed": ["search", "index=changed", TEXTS[1], "k=50", "out=changed.txt"],
    "ql": ["search", "index=index", TEXTS[1], "k=50", "scoring.kind=ql", "out=ql.txt"],
    "bm25+": ["search", "index=index", TEXTS[1], "k=50", "scoring.variant=bm25+", "out=plus.txt"],
    "fused": [
        *("search", "index=index,plain", "fusion=rrf", TEXTS[1], "k=50", "ties=external"),
        "out=fused.txt",
    ],
    "terms": ["analyze", "input=queries.tsv", "index=plain"],
    "mine": ["mine", "run=bm25.txt", *TEXTS, "qrels=qrels.txt", "negatives=5", "out=mined.jsonl"],
    "lists": ["convert", "in=bm25.txt", *TEXTS, "depth=10", "out=lists.jsonl"],
    "trec": ["convert", "in=lists.jsonl", "out=lists.txt", "to=trec"],
    "samples": [
        *("convert", "in=bm25.txt", *TEXTS, "qrels=qrels.txt", "negatives=5", "out=samples.jsonl"),
        "to=flagembedding",
    ],
    "tevatron": ["convert", "in=mined.jsonl", "out=tevatron.jsonl", "to=tevatron"],
    "ciff": ["convert", "in=index", "out=index.ciff"],
    "bmp": ["convert", "in=index", "out=index.bmp"],
    "from ciff": ["convert", "in=index.ciff", "out=from-ciff"],
    "vectors": ["convert", "in=vectors.jsonl", "out=sparse"],
    "rerank": ["rerank", "run=bm25.txt", *TEXTS, "depth=20", "reranker=bm25", "out=reranked.txt"],
    "score": ["score", "run=bm25.txt", *TEXTS, "depth=20", "teacher=bm25", "out=scored.jsonl"],
    "evaluate": [
        *("evaluate", "run=bm25.txt,ql.txt,reranked.txt", "qrels=qrels.txt", "baseline=bm25.txt"),
        *(MEASURES, "resamples=200", "format=json", "tracking=none"),
    ],
}


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    corpus, _ = generated.write(tmp_path, DOCUMENTS, QUERIES)
    lines = corpus.read_text().splitlines(keepends=True)
    Path("rest.jsonl").write_text("".join(lines[500:]))
    Path("gone.txt").write_text("".join(f"d{i}\n" for i in range(0, DOCUMENTS, 7)))
    judged = [(q, (q * 37 + j * 11) % DOCUMENTS, 1 + j % 2) for q in range(QUERIES) for j in (0, 1)]
    Path("qrels.txt").write_text("".join(f"{q} 0 d{d} {grade}\n" for q, d, grade in judged))
    rows = [json.loads(line) for line in lines[:300]]
    with open("vectors.jsonl", "w") as out:
        for row in rows:
            weights = {w: 1 + zlib.crc32(w.encode()) % 9 / 4 for w in row["contents"].split()}
            out.write(json.dumps({"id": row["id"], "vector": weights}) + "\n")
    return tmp_path


def rounded(value: Any) -> Any:
    """Rounds floats: how a mean is summed depends on the processor."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def test_every_output_has_the_recorded_bytes(
    inputs: Path, golden: Callable[[str, str], None]
) -> None:
    inputs_before = results(inputs)
    lines = []
    for name, words in COMMANDS.items():
        printed = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        with contextlib.redirect_stdout(printed):
            assert main(words) == 0, words
        text = printed.buffer.getvalue()  # type: ignore[attr-defined]
        if name == "evaluate":
            text = json.dumps(rounded(json.loads(text))).encode()
        if text:
            lines.append(f"{hashlib.sha256(text).hexdigest()[:16]}  {name}, printed\n")
    for name, content in results(inputs).items():
        if name not in inputs_before:
            lines.append(f"{hashlib.sha256(content).hexdigest()[:16]}  {name}\n")
    golden("same-bytes.txt", "".join(lines))
