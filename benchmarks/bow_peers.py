"""One peer builds and searches one corpus; run by benchmarks/bow.py in the peers' environment.

    python bow_peers.py ENGINE CORPUS.jsonl QUERIES.tsv FOLDER K,K,K ROUNDS

Prints one JSON line: CPU seconds of the build, peak MB, MB on disk, mean CPU ms per query by k.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Search = Callable[[str, int], Any]


def read(corpus: str) -> Iterator[tuple[str, str]]:
    with open(corpus, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            yield record["id"], record["contents"]


def bm25s(corpus: str, folder: Path) -> Search:
    import bm25s as engine
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    texts = [text for _, text in read(corpus)]
    tokens = engine.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
    retriever = engine.BM25(method="lucene", k1=0.9, b=0.4, backend="numba")
    retriever.index(tokens, show_progress=False)
    retriever.save(str(folder))
    options = {"stopwords": "en", "stemmer": stemmer, "show_progress": False}

    def search(query: str, k: int) -> Any:
        words = engine.tokenize([query], **options)
        return retriever.retrieve(words, k=k, show_progress=False, n_threads=1)

    return search


def tantivy(corpus: str, folder: Path) -> Search:
    import tantivy as engine

    folder.mkdir()
    builder = engine.SchemaBuilder()
    builder.add_text_field("contents", tokenizer_name="en_stem", index_option="freq")
    index = engine.Index(builder.build(), path=str(folder))
    writer = index.writer(heap_size=1 << 30, num_threads=1)
    for _, text in read(corpus):
        writer.add_document(engine.Document(contents=text))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def search(query: str, k: int) -> Any:
        return searcher.search(index.parse_query(query, ["contents"]), limit=k)

    return search


ENGINES = {"bm25s": bm25s, "tantivy": tantivy}


def main(engine: str, corpus: str, queries: str, where: str, ks: str, rounds: str) -> None:
    folder = Path(where)
    shutil.rmtree(folder, ignore_errors=True)
    began = time.process_time()
    search = ENGINES[engine](corpus, folder)
    build = time.process_time() - began
    lines = Path(queries).read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t", 1)[1] for line in lines]
    means = {}
    for k in map(int, ks.split(",")):
        best = float("inf")
        for _ in range(int(rounds)):
            start = time.process_time()
            for text in texts:
                search(text, k)
            best = min(best, time.process_time() - start)
        means[k] = 1000 * best / len(texts)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"build_cpu": build, "peak_mb": peak, "disk_mb": size / 1e6, "search_ms": means}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
