"""One peer builds or searches one corpus; run by benchmarks/bow.py in the peers' environment.

    python bow_peers.py ENGINE build CORPUS.jsonl FOLDER
    python bow_peers.py ENGINE search FOLDER QUERIES.tsv K,K,K PASSES

Each prints one JSON line: MB on disk, or mean CPU ms per query by k, the best of the passes.
"""

from __future__ import annotations

import json
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


# --- bm25s

WORDS = {"stopwords": "en", "show_progress": False}


def build_bm25s(corpus: str, folder: Path) -> None:
    import bm25s as engine
    import Stemmer

    texts = [text for _, text in read(corpus)]
    tokens = engine.tokenize(texts, stemmer=Stemmer.Stemmer("english"), **WORDS)
    retriever = engine.BM25(method="lucene", k1=0.9, b=0.4, backend="numba")
    retriever.index(tokens, show_progress=False)
    retriever.save(str(folder))


def open_bm25s(folder: Path) -> Search:
    import bm25s as engine
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    retriever = engine.BM25.load(str(folder), mmap=False)
    retriever.backend = "numba"
    retriever.activate_numba_scorer()

    def search(query: str, k: int) -> Any:
        words = engine.tokenize([query], stemmer=stemmer, **WORDS)
        return retriever.retrieve(words, k=k, show_progress=False, n_threads=1)

    return search


# --- tantivy


def build_tantivy(corpus: str, folder: Path) -> None:
    import tantivy as engine

    folder.mkdir()
    schema = engine.SchemaBuilder()
    schema.add_text_field("contents", tokenizer_name="en_stem", index_option="freq")
    index = engine.Index(schema.build(), path=str(folder))
    writer = index.writer(heap_size=1 << 30, num_threads=1)
    for _, text in read(corpus):
        writer.add_document(engine.Document(contents=text))
    writer.commit()
    writer.wait_merging_threads()


def open_tantivy(folder: Path) -> Search:
    import tantivy as engine

    index = engine.Index.open(str(folder))
    searcher = index.searcher()

    def search(query: str, k: int) -> Any:
        return searcher.search(index.parse_query(query, ["contents"]), limit=k)

    return search


# --- impact-index


def build_impact_index(corpus: str, folder: Path) -> None:
    import impact_index as engine

    raw = folder.with_name(f"{folder.name}-raw")
    shutil.rmtree(raw, ignore_errors=True)
    stops = engine.get_stop_words("english")
    how = {"stemmer": "porter", "language": "english", "stop_words": stops}
    builder = engine.BOWIndexBuilder(str(raw), dtype="int32", **how)
    for number, (_, text) in enumerate(read(corpus)):
        builder.add_text(number, text)
    built = builder.build(False)
    index = built[0] if isinstance(built, tuple) else built
    index.compress(str(folder), in_memory=False)
    shutil.rmtree(raw)


def open_impact_index(folder: Path) -> Search:
    import impact_index as engine

    index = engine.Index.load(str(folder), True)
    analyzer = engine.TextAnalyzer.from_index(str(folder))
    scored = index.with_scoring(engine.BM25Scoring(0.9, 0.4, variant="lucene"))

    def search(query: str, k: int) -> Any:
        return scored.search_maxscore(analyzer.analyze_query(query), k)

    return search


ENGINES = {
    "bm25s": (build_bm25s, open_bm25s),
    "tantivy": (build_tantivy, open_tantivy),
    "impact-index": (build_impact_index, open_impact_index),
}


def main(engine: str, what: str, *rest: str) -> None:
    build, load = ENGINES[engine]
    if what == "build":
        corpus, folder = rest[0], Path(rest[1])
        shutil.rmtree(folder, ignore_errors=True)
        build(corpus, folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(json.dumps({"mb": size / 1e6}))
        return
    search = load(Path(rest[0]))
    lines = Path(rest[1]).read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t", 1)[1] for line in lines]
    means = {}
    for k in map(int, rest[2].split(",")):
        best = float("inf")
        search(texts[0], k)  # some compile at first
        for _ in range(int(rest[3])):
            start = time.process_time()
            for text in texts:
                search(text, k)
            best = min(best, time.process_time() - start)
        means[str(k)] = 1000 * best / len(texts)
    print(json.dumps(means))


if __name__ == "__main__":
    main(*sys.argv[1:])
