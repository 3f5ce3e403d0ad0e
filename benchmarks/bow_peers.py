"""One peer builds or searches one corpus; run by benchmarks/bow.py in the peers' environment.

    python bow_peers.py ENGINE build CORPUS.jsonl FOLDER
    python bow_peers.py ENGINE search FOLDER QUERIES.tsv K,K,K PASSES
    python bow_peers.py ENGINE batch FOLDER QUERIES.tsv K,K,K PASSES

Each prints one JSON line: MB on disk, or mean CPU ms per query by k, the best of the passes. A
batch is one call for all queries, tokenized before; of several ways to search, the best counts.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Search = Callable[[str, int], Any]
Batch = Callable[[int], Any]


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


def batches_of_bm25s(folder: Path, texts: Sequence[str]) -> list[Batch]:
    import bm25s as engine
    import Stemmer

    retriever = engine.BM25.load(str(folder), mmap=False)
    retriever.backend = "numba"
    retriever.activate_numba_scorer()
    words = engine.tokenize(texts, stemmer=Stemmer.Stemmer("english"), **WORDS)
    return [lambda k: retriever.retrieve(words, k=k, show_progress=False, n_threads=1)]


# --- PISA

ALGORITHMS = ("maxscore", "block_max_maxscore", "wand", "block_max_wand")
PLAIN = {"stemmer": "none", "stops": "none", "threads": 1}


def terms_of(texts: Iterator[str] | Sequence[str]) -> Iterator[Counter[str]]:
    """Yields the terms of texts by bm25s's rules: it stands in for PISA's analysis."""
    import Stemmer
    from bm25s.stopwords import STOPWORDS_EN

    stem = Stemmer.Stemmer("english").stemWord
    for text in texts:
        words = re.findall(r"\b\w\w+\b", text.lower())
        yield Counter(stem(word) for word in words if word not in STOPWORDS_EN)


def build_pisa(corpus: str, folder: Path) -> None:
    from pyterrier_pisa import PisaIndex

    ids, texts = itertools.tee(read(corpus))
    terms = terms_of(text for _, text in texts)
    rows = ({"docno": key, "toks": dict(found)} for (key, _), found in zip(ids, terms))
    PisaIndex(str(folder), text_field="toks", **PLAIN).toks_indexer(scale=1.0).index(rows)


def batches_of_pisa(folder: Path, texts: Sequence[str]) -> list[Batch]:
    import numpy as np
    from pyterrier_pisa import PisaIndex, _pisathon

    index = PisaIndex(str(folder), text_field="toks", **PLAIN)
    queries = [
        (number, {term: float(count) for term, count in terms.items()})
        for number, terms in enumerate(terms_of(texts))
    ]

    def batch(quantised: bool, algorithm: str) -> Batch:
        context = index.bm25(precompute_impact=quantised)._ctxt

        def search(k: int) -> int:
            rows = len(queries) * k
            kinds = {"qidxs": np.int32, "docnos": object, "ranks": np.int32, "scores": np.float32}
            out = {f"result_{name}": np.empty(rows, kind) for name, kind in kinds.items()}
            how = {"k": k, "threads": 1, "query_weighted": 0, "pretokenised": True}
            return _pisathon.retrieve(context, algorithm, queries, **how, **out)

        return search

    return [batch(*pair) for pair in itertools.product((False, True), ALGORITHMS)]


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


BUILDS = {
    "bm25s": build_bm25s,
    "pisa": build_pisa,
    "tantivy": build_tantivy,
    "impact-index": build_impact_index,
}
OPENS = {"bm25s": open_bm25s, "tantivy": open_tantivy, "impact-index": open_impact_index}
BATCHES = {"bm25s": batches_of_bm25s, "pisa": batches_of_pisa}


def main(engine: str, what: str, *rest: str) -> None:
    if what == "build":
        corpus, folder = rest[0], Path(rest[1])
        shutil.rmtree(folder, ignore_errors=True)
        BUILDS[engine](corpus, folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(json.dumps({"mb": size / 1e6}))
        return
    folder, passes = Path(rest[0]), int(rest[3])
    lines = Path(rest[1]).read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t", 1)[1] for line in lines]
    if what == "batch":
        batches = BATCHES[engine](folder, texts)
    else:
        batches = [one_by_one(OPENS[engine](folder), texts)]
    means = {}
    for k in map(int, rest[2].split(",")):
        best = min(seconds(batch, k) for batch in batches for _ in range(passes + 1))
        means[str(k)] = 1000 * best / len(texts)
    print(json.dumps(means))


def one_by_one(search: Search, texts: Sequence[str]) -> Batch:
    return lambda k: [search(text, k) for text in texts]


def seconds(batch: Batch, k: int) -> float:
    start = time.process_time()
    batch(k)
    return time.process_time() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
