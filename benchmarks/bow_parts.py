"""Parts of the bag-of-words benchmark beside its tables: start, verb, sizes, models, order."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bow_fetch import ONE_THREAD, ROOT, corpus, lucene_command, peer_python, run
from benchmarks.report import SHARED, WORK

KS = (10, 100, 1000)
PEERS = Path(__file__).with_name("bow_peers.py")
RAYDIST = (sys.executable, "-m", "raydist")
FIELDS = "corpus.fields={text: contents}"
SMALL_K = 10
VERB_K = 1000


def cold(index: Path, rounds: int) -> dict[str, float]:
    """Measures the verbs' wall seconds on a small corpus, without machine code and with it."""
    source = corpus(1000)
    few = WORK / "few.tsv"
    lines = (source / "queries.tsv").read_text(encoding="utf-8").splitlines(True)
    few.write_text("".join(lines[:100]), encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch, "index")
        verbs = {
            "index": ["index", FIELDS, f"corpus={source / 'corpus.jsonl'}"],
            "search": ["search", f"index={built}", f"queries={few}", "k=100"],
        }
        run(*RAYDIST, *verbs["index"], f"out={built}", cwd=ROOT)
        figures = {}
        for verb, words in verbs.items():
            for start, times in (("cold", 1), ("warm", 2)):
                walls = []
                for number in range(rounds):
                    cache = Path(scratch, f"cache-{verb}-{number}")
                    for _ in range(times):
                        out = Path(scratch, f"out-{verb}-{start}-{number}-{time.monotonic_ns()}")
                        begin = time.perf_counter()
                        environment = {**ONE_THREAD, "NUMBA_CACHE_DIR": str(cache)}
                        run(*RAYDIST, *words, f"out={out}", cwd=ROOT, env=environment)
                        wall = time.perf_counter() - begin
                    walls.append(wall)
                figures[f"{start}_{verb}_s"] = min(walls)
        return figures


def verb(index: Path, rounds: int) -> dict[str, float]:
    """Measures `raydist search` at k = 1000: CPU of a query, the start of the process aside."""
    queries = corpus(int(index.name.rsplit("-", 1)[1])) / "queries.tsv"
    lines = queries.read_text(encoding="utf-8").splitlines(True)
    one = WORK / "one.tsv"
    one.write_text(lines[0], encoding="utf-8")
    seconds = []
    for file in (queries, one):
        words = [f"index={index}", f"queries={file}", f"k={VERB_K}", f"out={WORK / 'verb.run'}"]
        runs = [run(*RAYDIST, "search", *words, cwd=ROOT, env=ONE_THREAD) for _ in range(rounds)]
        seconds.append(min(cpu for _, cpu, _ in runs))
    each = (seconds[0] - seconds[1]) / (len(lines) - 1)
    return {f"search_verb_k{VERB_K}_us_per_query": 1e6 * each}


def small(index: Path, rounds: int) -> dict[str, float]:
    """Measures batches of NFCorpus' queries beside bm25s, which gets them tokenized."""
    from raydist.data.readers import read_queries
    from raydist.records import Query

    source, built, peer = SHARED / "nfcorpus", WORK / "nfcorpus-bow", WORK / "nfcorpus-bm25s"
    queries = list(read_queries(source / "queries.jsonl"))
    topics, texts = WORK / "nfcorpus.tsv", WORK / "nfcorpus.jsonl"
    topics.write_text(
        "".join(f"{each.query_id}\t{' '.join(each.text.split())}\n" for each in queries), "utf-8"
    )
    if not built.exists():
        run(*RAYDIST, "index", f"corpus={source / 'corpus.jsonl'}", f"out={built}", cwd=ROOT)
    python = peer_python("bm25s")
    if not peer.exists():
        with open(source / "corpus.jsonl", encoding="utf-8") as lines, open(texts, "w") as out:
            for record in map(json.loads, lines):
                contents = f"{record.get('title', '')}\n{record['text']}"
                document = {"id": record.get("_id", record.get("id")), "contents": contents}
                out.write(f"{json.dumps(document)}\n")
        run(python, PEERS, "bm25s", "build", texts, peer, env=ONE_THREAD)
    search = retriever(built).search
    ours, theirs, calls = [], [], []
    one = [Query("one", queries[0].text)]
    for _ in range(rounds):
        ours.append(thread_ms(lambda: search(queries, SMALL_K)) / len(queries))
        words = ["bm25s", "batch", peer, topics, SMALL_K, 20]
        text, _, _ = run(python, PEERS, *words, env=ONE_THREAD)
        theirs.append(json.loads(text.strip().splitlines()[-1])[str(SMALL_K)])
        calls.append(thread_ms(lambda: [search(one, SMALL_K) for _ in range(100)]) / 100)
    return {
        "nfcorpus_qps": 1000 / min(ours),
        "nfcorpus_qps_vs_bm25s": min(theirs) / min(ours),
        "nfcorpus_call_us": 1000 * min(calls),
    }


def models(index: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Measures every model's mean CPU ms per query by k."""
    from raydist.bow.spec import Bm25, F2Exp, F2Log, Inl2, Qld, Qljm, QueryLikelihood, Spl

    formulas = [
        *(Bm25(variant=name) for name in ("robertson", "atire", "bm25+", "bm25l")),
        *(Bm25(lengths=name) for name in ("exact", "byte")),
        *(QueryLikelihood(smoothing=name) for name in ("dirichlet", "jelinek-mercer")),
        *(kind() for kind in (Qld, Qljm, Inl2, Spl, F2Exp, F2Log)),
    ]
    queries = corpus(int(index.name.rsplit("-", 1)[1])) / "queries.tsv"
    lines = queries.read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t", 1)[1] for line in lines]
    means = {}
    for formula in formulas:
        rank = retriever(index, scoring=formula).rank
        means[str(formula)] = {
            str(k): thread_ms(partial(rank_all, rank, texts, k), rounds) / len(texts) for k in KS
        }
    return means


def reorder(index: Path, rounds: int) -> dict[str, float]:
    """Measures a reordered index beside the index: building, bytes of postings, searching."""
    source = corpus(int(index.name.rsplit("-", 1)[1]))
    built = index.with_name(index.name.replace("raydist", "reordered"))
    shutil.rmtree(built, ignore_errors=True)
    words = [FIELDS, "store=false", "reorder=true"]
    words += [f"corpus={source / 'corpus.jsonl'}", f"out={built}"]
    _, cpu, peak = run(*RAYDIST, "index", *words, cwd=ROOT, env=ONE_THREAD)
    figures = {"reorder_build_cpu_s": cpu, "reorder_peak_rss_mb": peak}
    lines = (source / "queries.tsv").read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t", 1)[1] for line in lines]
    pair = (index, built)
    sizes = [(each / "segments" / "00000" / "postings").stat().st_size for each in pair]
    figures["reorder_postings_share"] = sizes[1] / sizes[0]
    ranks = [retriever(each).rank for each in pair]
    for k in KS:
        times = [
            [thread_ms(partial(rank_all, rank, texts, k), 4) for rank in ranks]
            for _ in range(rounds)
        ]
        plain, reordered = (min(column) / len(texts) for column in zip(*times))
        figures |= {
            f"reorder_k{k}_us": 1000 * reordered,
            f"reorder_k{k}_vs_plain": reordered / plain,
        }
    return figures


def feedback(index: Path, rounds: int) -> dict[str, float]:
    """Measures RM3 with a forward index beside Anserini's with term vectors, both warm."""
    from raydist.bow.feedback.retriever import FeedbackRetriever
    from raydist.bow.feedback.spec import Rm3
    from raydist.bow.format.forward import forward_bytes

    source = corpus(int(index.name.rsplit("-", 1)[1]))
    built = index.with_name(index.name.replace("raydist", "forward"))
    peer = index.with_name(index.name.replace("raydist", "vectors"))
    command = lucene_command("Rm3", 21)
    if not (built / "manifest.json").exists():
        words = [FIELDS, "store=false", "forward=true", f"corpus={source / 'corpus.jsonl'}"]
        run(*RAYDIST, "index", *words, f"out={built}", cwd=ROOT, env=ONE_THREAD)
    if not peer.exists():
        run(*command, "index", source / "corpus.jsonl", peer)
    lines = (source / "queries.tsv").read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t", 1)[1] for line in lines]
    search = retriever(built)
    rank = FeedbackRetriever(search, Rm3()).rank
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(thread_ms(partial(rank_all, rank, texts, VERB_K), 4) / len(texts))
        text, _, _ = run(*command, "bench", peer, source / "queries.tsv", VERB_K, 4)
        theirs.append(float(text.rsplit("mean ", 1)[1]))
    (segment,) = search.index.segments
    return {
        "forward_share_of_index": forward_bytes(segment) / _bytes(built / "segments"),
        "rm3_k1000_ms": min(ours),
        "rm3_vs_anserini": min(theirs) / min(ours),
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def rank_all(rank: Callable[[str, int], Any], texts: list[str], k: int) -> None:
    for text in texts:
        rank(text, k)


def thread_ms(work: Callable[[], Any], passes: int = 20) -> float:
    """Returns the fewest CPU milliseconds of this thread that some work takes."""
    times = []
    for _ in range(passes):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return 1000 * min(times)


def retriever(index: Path, **search: Any) -> Any:
    from raydist.bow.index import BowIndex
    from raydist.bow.search.retriever import BowRetriever
    from raydist.bow.spec import BowSearchSpec

    return BowRetriever(BowIndex.open(index), BowSearchSpec(**search))
