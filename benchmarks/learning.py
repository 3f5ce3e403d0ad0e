"""What learned sparse and multi-vector retrieval gain: `python -m benchmarks.learning`.

start    MiniLM as its package has it, where head and projection of the two kinds are new, on the
         test queries of NFCorpus beside BM25 and dense vectors: nDCG@10 with bootstrap
         intervals, CPU milliseconds of a query, one thread, with its encoding, and MB on the disk
         that a search reads, models and texts not counted. The dev queries stand in the notes.
trained  The same of models trained by `jobs/nfcorpus/sparse.yaml` and `multivector.yaml`, and of
         fusions by ranks.
effort   The trained sparse index at growing `effort`: recall of the exact top 10 and top 100, and
         milliseconds of a search without encoding.

Models and indexes are made in `benchmarks/.work` where they are missing. No setting was chosen by
the test queries.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.models import bfloat16_is_fast, minilm, raydist
from benchmarks.report import SHARED, WORK, arguments, recorded, write_results
from benchmarks.retrieval import built, one_by_one, size

Measured = tuple[dict[str, float], dict[str, Any]]
JOBS = Path(__file__).resolve().parents[1] / "jobs" / "nfcorpus"
SOURCE = SHARED / "nfcorpus"
KINDS = ("sparse", "multivector")
EFFORTS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FUSED = ("bm25+dense", "bm25+sparse", "bm25+multivector", "dense+sparse", "dense+multivector")
FUSED += ("bm25+dense+sparse", "bm25+dense+multivector", "bm25+dense+sparse+multivector")


def main() -> None:
    options = arguments({"parts": "start,trained,effort", "rounds": 2, "k": 100})
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(1)
    WORK.mkdir(exist_ok=True)
    for part in options["parts"].split(","):
        figures, notes = recorded("learning")
        more, remarks = PARTS[part](options)
        write_results("learning", figures | more, {}, notes=notes | {part: remarks})


def start(options: dict[str, Any]) -> Measured:
    """Measures BM25, dense vectors and the untrained models on NFCorpus."""
    return measured(["bm25", "dense", *(f"{kind}_start" for kind in KINDS)], [], options)


def after(options: dict[str, Any]) -> Measured:
    """Measures the trained models on NFCorpus, and all fusions."""
    tests = [(kind, other) for kind in KINDS for other in (f"{kind}_start", "bm25")]
    tests += [(name, "bm25+dense") for name in FUSED[1:]]
    figures, notes = measured([*KINDS, *FUSED], tests, options)
    return figures, notes | {"training": {kind: training_of(trained(kind)) for kind in KINDS}}


def measured(
    names: Sequence[str], tests: Sequence[tuple[str, str]], options: dict[str, Any]
) -> Measured:
    """Measures ways of search, and tests differences of two."""
    from raydist.evaluation.significance import compare, interval

    figures: dict[str, float] = {}
    values, queries = {}, read("queries.jsonl")
    for name in names:
        folders = [folder_of(part) for part in name.split("+")]
        values[name] = values_of(folders, ".", options["k"])
        within = interval(values[name])
        figures[key(name, "ndcg10")] = float(values[name].mean())
        figures[key(name, "ndcg10", "_low")] = within.low
        figures[key(name, "ndcg10", "_high")] = within.high
        search = searched(folders)
        search.run(queries[:1], options["k"])
        seconds = [one_by_one(search, queries, options["k"]) for _ in range(options["rounds"])]
        figures[key(name, "ms")] = 1000 * min(seconds) / len(queries)
        figures[key(name, "mb")] = sum(map(read_bytes, folders)) / 1e6
        print(name, *(round(figures[key(name, f)], 4) for f in ("ndcg10", "ms", "mb")), flush=True)
    for name in {each for pair in tests for each in pair} - set(values):
        values[name] = values_of([folder_of(name)], ".", options["k"])
    results = {pair: compare(values[pair[0]], values[pair[1]]) for pair in tests}
    notes: dict[str, Any] = {"k": options["k"], "queries": len(queries), "interval": within.method}
    notes["dev_ndcg10"] = {
        name: round(float(values_of([folder_of(name)], "dev", options["k"]).mean()), 4)
        for name in names
        if "+" not in name
    }
    if results:
        notes["paired_t"] = {
            f"{own} - {other}": {"difference": round(test.difference, 4), "p": round(test.p, 4)}
            for (own, other), test in results.items()
        }
    return figures, notes


def folder_of(name: str) -> Path:
    """Returns the index of a way of search."""
    if name in ("bm25", "dense"):
        return built("nfcorpus", "index" if name == "bm25" else "vectors")
    kind, _, state = name.partition("_")
    return embedded(kind, started(kind) if state else trained(kind))


def effort(options: dict[str, Any]) -> Measured:
    """Measures what the trained sparse index loses and saves by `effort`."""
    from raydist.bow.spec import BowSearchSpec
    from raydist.build import open_retriever
    from raydist.manifest import read_manifest
    from raydist.sparse.queries import QueryTerms

    folder = embedded("sparse", trained("sparse"))
    queries = read("queries.jsonl")
    weigh = QueryTerms.open(folder, read_manifest(folder)["model"])
    terms = weigh([query.text for query in queries])
    rows = [(query.query_id, each) for query, each in zip(queries, terms)]
    figures: dict[str, float] = {}
    for k in (10, 100):
        exact: dict[str, set[str]] = {}
        for value in reversed(EFFORTS):
            retriever: Any = open_retriever(folder, BowSearchSpec(effort=value))
            run = retriever.search_terms(rows, k)
            found = {query_id: set(docs) for query_id, docs, _ in run}
            exact = exact or found
            shares = [len(found[each] & best) / len(best) for each, best in exact.items() if best]
            figures[f"recall{k}_effort_{value:g}"] = sum(shares) / len(shares)
            times = []
            for _ in range(5):
                began = time.process_time()
                retriever.search_terms(rows, k)
                times.append(time.process_time() - began)
            figures[f"ms_k{k}_effort_{value:g}"] = 1000 * min(times) / len(rows)
    per_query = sum(map(len, terms)) / len(terms)
    return figures, {"queries": len(rows), "terms_of_a_query": round(per_query, 1)}


def key(name: str, figure: str, end: str = "") -> str:
    """Returns the name of a figure: `sparse_ndcg10_nfcorpus_trained`, `bm25_ms_nfcorpus`."""
    kind, _, state = name.partition("_")
    state = state or ("trained" if kind in KINDS else "")
    return "_".join(filter(None, (kind, figure, "nfcorpus", state))) + end


def read(queries: str) -> list[Any]:
    """Returns the queries of a file of the collection."""
    from raydist.data.readers import read_queries

    return list(read_queries(SOURCE / queries))


def searched(folders: Sequence[Path]) -> Any:
    """Returns the search of a folder, or of several by reciprocal rank fusion."""
    from raydist.api.folder_search import search_of
    from raydist.api.stages import fuse

    ways = [search_of(str(folder), folder.name, False) for folder in folders]
    return ways[0] if len(ways) == 1 else fuse(*ways)


def values_of(folders: Sequence[Path], part: str, k: int) -> Any:
    """Returns nDCG@10 of each query of a part of the collection."""
    from raydist.data.readers import read_qrels
    from raydist.evaluation.measures import evaluate

    qrels = read_qrels(SOURCE / part / "qrels.txt")
    queries = [each for each in read(f"{part}/queries.jsonl") if each.query_id in qrels]
    return evaluate(searched(folders).run(queries, k), qrels, ["nDCG@10"]).of("nDCG@10")


def read_bytes(folder: Path) -> int:
    """Returns the bytes below a folder, texts and models not counted."""
    return size(folder) - size(folder / "store")


def recipe(kind: str) -> dict[str, Any]:
    """Returns the configuration of a kind's recipe."""
    import yaml

    return dict(yaml.safe_load((JOBS / f"{kind}.yaml").read_text(encoding="utf-8")))


def started(kind: str) -> Path:
    """Returns MiniLM as a model of a kind, before training, as the recipe starts it."""
    from raydist.models.biencoder import BiEncoder

    folder = WORK / f"nfcorpus-{kind}-start"
    if not (folder / "raydist.json").is_file():
        settings = {**recipe(kind)["model"], "path": str(minilm()), "autocast": None}
        path = settings.pop("path")
        BiEncoder.load(path, fresh_head=kind == "sparse", device="cpu", **settings).save(folder)
    return folder


def trained(kind: str) -> Path:
    """Returns the model of a kind's recipe."""
    folder = WORK / f"nfcorpus-{kind}"
    if not (folder / "manifest.json").is_file():
        raydist("train", JOBS / f"{kind}.yaml", f"data={mined()}", f"out={folder}", "tracking=none")
    return folder


def mined() -> Path:
    """Returns the samples of the recipes, made by the command in their headers."""
    out = WORK / "nfcorpus-mined.jsonl"
    if not out.is_file():
        command = next(
            line for line in (JOBS / "sparse.yaml").read_text().splitlines() if " mine " in line
        )
        words = dict(word.split("=", 1) for word in command.split()[3:])
        index, vectors = built("nfcorpus", "index"), built("nfcorpus", "vectors")
        train = SOURCE / "train"
        words |= {"index": f"{index},{vectors}", "out": str(out)}
        words |= {"queries": f"{train}/queries.jsonl", "qrels": f"{train}/qrels.txt"}
        raydist("mine", *(f"{name}={value}" for name, value in words.items()))
    return out


def embedded(kind: str, model: Path) -> Path:
    """Returns the index of the collection by a model."""
    folder = model.with_name(f"{model.name}-index")
    if not (folder / "manifest.json").is_file():
        words = [f"corpus={SOURCE / 'corpus.jsonl'}", f"model.path={model}", f"out={folder}"]
        words += ["model.dtype=bfloat16"] if bfloat16_is_fast() else []
        raydist("embed", *words)
    return folder


def training_of(folder: Path) -> dict[str, Any]:
    """Returns the last logged line of a training run."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return dict(next(line for line in map(json.loads, reversed(lines)) if "loss" in line))


PARTS: dict[str, Callable[[dict[str, Any]], Measured]] = {
    "start": start,
    "trained": after,
    "effort": effort,
}

if __name__ == "__main__":
    main()
