"""The core alone, in an environment without torch, Ray and MLflow: `python tests/core.py`.

A script, not a test of pytest's: CI runs it with a Python that has the core's packages and no more.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BEYOND = (
    *("torch", "ray", "deepspeed", "mlflow", "transformers", "faiss", "fastapi", "matplotlib"),
    "mcp",
)
SIX_LINES = """
import raydist as rd
corpus = {"1": "A heron waits for fish.", "2": "Canal boats carry coal."}
index = rd.index(corpus, "first")
hits = index.search("herons", k=1)
print(hits)
print(hits[0].text)
"""
SIX_LINES_S = 40.0  # with nothing compiled before; the goal is 25 on two idle cores
COMMANDS = """
index corpus=corpus.jsonl out=idx
search index=idx queries=queries.tsv k=10 out=run.txt
evaluate run=run.txt qrels=qrels.txt measures=RR
convert in=idx out=idx.ciff
convert in=idx.ciff out=again
index delete=ids.txt out=idx
merge idx
verify idx
status idx
ls
diff idx again
analyze text=herons
mine run=run.txt corpus=corpus.jsonl queries=queries.tsv qrels=qrels.txt out=samples.jsonl
rerank run=run.txt queries=queries.tsv corpus=corpus.jsonl reranker=bm25 out=reranked.txt
doctor
quickstart packages=
"""
MISSING = {
    "train data=samples.jsonl model=m out=o": "raydist[train]",
    "embed corpus=corpus.jsonl model=m out=o": "raydist[train]",
    "index corpus=corpus.jsonl out=o workers=2": "raydist[ray]",
    "search index=again queries=queries.tsv shards=1": "raydist[ray]",
    "submit index corpus=corpus.jsonl out=o": "raydist[ray]",
    "serve index=again": "raydist[serve]",
    "mcp index=again": "raydist[mcp]",
    "evaluate run=run.txt qrels=qrels.txt out=report": "raydist[track]",
    "evaluate run=run.txt qrels=qrels.txt tracking=sqlite": "raydist[track]",
    "quickstart full=true": "raydist[train]",
}


def run(words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raydist", *words.split()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def main() -> None:
    installed = [name for name in BEYOND if importlib.util.find_spec(name)]
    assert not installed, f"this Python has more than the core: {installed}"
    os.environ["RAYDIST_CACHE"] = str(Path("cache").absolute())  # a new one: nothing is compiled
    os.environ.pop("NUMBA_CACHE_DIR", None)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SIX_LINES], capture_output=True, text=True, timeout=300
    )
    seconds = time.monotonic() - began
    assert done.returncode == 0 and "A *heron* waits for fish." in done.stdout, done.stderr
    print(f"six lines to a table of hits: {seconds:.1f} s")
    assert seconds <= SIX_LINES_S, f"six lines took {seconds:.1f} s"
    rows = [{"id": "a", "text": "a heron eats fish"}, {"id": "b", "text": "a boat on a canal"}]
    rows += [{"id": "c", "text": "the boat of a heron"}]
    Path("corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("queries.tsv").write_text("q1\theron\nq2\tboat\n")
    Path("qrels.txt").write_text("q1 0 a 1\nq2 0 b 1\n")
    Path("ids.txt").write_text("b\n")
    for words in COMMANDS.strip().splitlines():
        done = run(words)
        assert done.returncode == 0, f"raydist {words}\n{done.stdout}\n{done.stderr}"
    for words, extra in MISSING.items():
        done = run(words)
        lines = done.stderr.splitlines()
        assert done.returncode == 2 and len(lines) == 1, f"raydist {words}\n{done.stderr}"
        assert lines[0].endswith(f"pip install '{extra}'"), lines[0]
    from raydist.bow.index import BowIndex
    from raydist.bow.search.retriever import BowRetriever
    from raydist.records import Query

    ranking = BowRetriever(BowIndex.open("again")).search([Query("1", "heron")], k=10)
    assert [set(docs) for _, docs, _ in ranking] == [{"a", "c"}]
    print("the core works alone")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main()
