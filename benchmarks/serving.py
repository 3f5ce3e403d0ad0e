"""The service beside its peers: `python -m benchmarks.serving [parts=rerank,embed] [seconds=30]`.

rerank    MiniLM with a scoring head behind servers on this machine, the same requests from the same
          closed loop of clients, in alternating rounds: raydist on Ray Serve, plain FastAPI around
          sentence-transformers' CrossEncoder, and infinity with torch and with ONNX.
embed     MiniLM itself: raydist and infinity with torch and with ONNX.
ingress   latency at half of the capacity, and the CPU that the ingress and the proxy use for a
          request beyond what they use when idle; with before=CHECKOUT that of another version, too.
long      small requests with and without long documents beside them (900,000 characters in 5 % of
          the requests).
overload  ten times the capacity for minutes: statuses and memory.

infinity has an environment of its own (`benchmarks/peers`). Figures of parts that are not run are
kept from the last record.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.models import minilm, minilm_with_head, mixed_documents
from benchmarks.peers.environment import CACHE, Unavailable
from benchmarks.peers.models import exported
from benchmarks.report import arguments, goal, load_average, print_table, recorded, write_results
from benchmarks.servers import (
    Server,
    infinity_server,
    ingress_cpu_s,
    plain_server,
    raydist_server,
    resident_mb,
)
from raydist.log import say
from raydist.serving.load import Bodies, LoadResult, rerank_bodies, run_load
from raydist.serving.spec import LoadSpec

GOALS = {
    "pairs_per_s_vs_fastapi_st": goal(">=", 2.5),
    "pairs_per_s_vs_infinity": goal(">=", 2.0),
    "embeddings_per_s_vs_infinity": goal(">=", 1.0),
    "ingress_cpu_vs_before": goal("<=", 0.5),
    "small_p99_beside_long_vs_alone": goal("<=", 3.0),
    "overload_non_200_429_503": goal("==", 0),
    "rss_growth_mb_5min": goal("<=", 50),
}
DEFAULTS = {
    "parts": "rerank,embed,ingress,long,overload",
    "seconds": 30.0,
    "rounds": 3,
    "clients": 8,
    "documents": 20,
    "calm_seconds": 120.0,
    "long_seconds": 120.0,
    "long_rounds": 3,
    "overload_seconds": 300.0,
    "peers": str(CACHE),
    "before": "",
}
_IDLE_SECONDS = 20.0
Measured = tuple[dict[str, float | None], dict[str, Any]]
"""Figures and notes of a part."""


def main() -> None:
    options = arguments(DEFAULTS)
    with tempfile.TemporaryDirectory() as name:
        folder = minilm_with_head(Path(name) / "model")
        for part in options["parts"].split(","):
            before = load_average()
            measured, remarks = PARTS[part](folder, options)
            figures, notes = recorded("serving")
            remarks["load_average"] = [before, load_average()]
            remarks["settings"] = {
                key: options[key] for key in DEFAULTS if key not in ("peers", "before")
            }
            write_results("serving", figures | measured, GOALS, notes=notes | {part: remarks})


def rerank(folder: Path, options: dict[str, Any]) -> Measured:
    """Compares pairs per second of servers of a cross-encoder."""
    query, texts = mixed_documents(500)
    bodies = rerank_bodies([query, f"{query} and there"], texts, options["documents"])
    ways = {
        "raydist": raydist_server(folder, _cores()),
        "fastapi_st": plain_server(folder),
    } | _infinities("rerank", folder, options)
    best, reasons = _closed_loop(ways, bodies, "/v1/rerank", _same_scores, options)
    return {
        "pairs_per_s_vs_fastapi_st": _ratio(best, "fastapi_st"),
        "pairs_per_s_vs_infinity": _ratio(best, "infinity"),
    }, _notes(best, reasons)


def embed(folder: Path, options: dict[str, Any]) -> Measured:
    """Compares embeddings per second of servers of a bi-encoder."""
    _, texts = mixed_documents(500)

    def requests() -> Bodies:
        for body in rerank_bodies([""], texts, options["documents"]):
            yield {"model": "model", "input": body["documents"]}

    model = minilm()
    ways = {"raydist": raydist_server(model, _cores(), kind="embedder")}
    best, reasons = _closed_loop(
        ways | _infinities("embed", model, options),
        requests(),
        "/v1/embeddings",
        _same_vectors,
        options,
    )
    return {"embeddings_per_s_vs_infinity": _ratio(best, "infinity")}, _notes(best, reasons)


def _infinities(
    task: str, model: Path, options: dict[str, Any]
) -> dict[str, AbstractContextManager[Server]]:
    cache = Path(options["peers"])
    cache.mkdir(parents=True, exist_ok=True)
    ways: dict[str, AbstractContextManager[Server]] = {}
    try:
        forms = exported(task, model, _LENGTHS[task], cache)
    except Unavailable as error:
        say(f"infinity with ONNX: left out: {error}")
        return {"infinity_torch": infinity_server(model, "torch", cache)}
    ways["infinity_torch"] = infinity_server(forms / "plain", "torch", cache)
    ways["infinity_onnx"] = infinity_server(forms / "fused", "optimum", cache)
    return ways


_LENGTHS = {"embed": 256, "rerank": 512}


def _closed_loop(
    ways: dict[str, AbstractContextManager[Server]],
    bodies: Bodies,
    route: str,
    check: Callable[[dict[str, str], str, dict[str, Any]], None],
    options: dict[str, Any],
) -> tuple[dict[str, LoadResult], dict[str, str]]:
    """Returns each server's best round, and why servers are left out."""
    reasons: dict[str, str] = {}
    results: dict[str, list[LoadResult]] = {}
    with contextlib.ExitStack() as stack:
        urls = {}
        for name, server in ways.items():
            try:
                urls[name] = stack.enter_context(server)[0]
                results[name] = []
            except Unavailable as error:
                reasons[name] = str(error)
                say(f"{name}: left out: {error}")
        check(urls, route, next(bodies))
        for number, (name, url) in itertools.product(range(options["rounds"] + 1), urls.items()):
            seconds = options["seconds"] if number else 5.0  # the first round warms up
            spec = LoadSpec(seconds=seconds, clients=options["clients"])
            load = run_load(url, bodies, spec, route=route)
            texts = options["documents"] * load.statuses["200"] / load.seconds
            say(f"round {number}: {name}: {texts:.1f} texts/s, load average {load_average()}")
            if number:
                results[name].append(load)
    best = {name: max(loads, key=_per_s) for name, loads in results.items()}
    rows = [
        [name, options["documents"] * _per_s(load), load.quantile_ms(0.5), load.quantile_ms(0.99)]
        for name, load in best.items()
    ]
    print_table("closed loop", ["server", "texts/s", "p50 ms", "p99 ms"], rows)
    return best, reasons


def _per_s(load: LoadResult) -> float:
    return load.statuses["200"] / load.seconds


def _ratio(best: dict[str, LoadResult], peer: str) -> float | None:
    """Returns how many times as fast raydist is as the best server of a peer."""
    rates = [_per_s(load) for name, load in best.items() if name.startswith(peer)]
    return _per_s(best["raydist"]) / max(rates) if rates else None


def _notes(best: dict[str, LoadResult], reasons: dict[str, str]) -> dict[str, Any]:
    return {
        "requests_per_s": {name: round(_per_s(load), 2) for name, load in best.items()},
        "p50_ms": {name: round(load.quantile_ms(0.5)) for name, load in best.items()},
        "p99_ms": {name: round(load.quantile_ms(0.99)) for name, load in best.items()},
        "left_out": reasons,
    }


def _same_scores(urls: dict[str, str], route: str, body: dict[str, Any]) -> None:
    """Checks that all servers give the same scores, without which the comparison is void.

    infinity lets onnxruntime approximate more, on processors that it does so for.
    """
    scores_of = {}
    for name, url in urls.items():
        answer = httpx.post(url + route, json=body, timeout=60).raise_for_status().json()
        scores_of[name] = {r["index"]: r["relevance_score"] for r in answer["results"]}
    first = scores_of["raydist"]
    for name, scores in scores_of.items():
        worst = max(abs(scores[i] - first[i]) for i in first)
        assert worst < (5e-3 if name == "infinity_onnx" else 1e-3), (name, worst)


def _same_vectors(urls: dict[str, str], route: str, body: dict[str, Any]) -> None:
    """Checks that all servers give the same directions."""
    vectors = {}
    for name, url in urls.items():
        answer = httpx.post(url + route, json=body, timeout=60).raise_for_status().json()
        values = np.array([item["embedding"] for item in answer["data"]], np.float32)
        vectors[name] = values / np.linalg.norm(values, axis=1, keepdims=True)
    for name, values in vectors.items():
        least = float((values * vectors["raydist"]).sum(1).min())
        assert least >= 0.9999, (name, least)


def ingress(folder: Path, options: dict[str, Any]) -> Measured:
    """Measures latency at half of the capacity and what the ingress costs, in turns."""
    query, texts = mixed_documents(500)
    bodies = rerank_bodies([query], texts, options["documents"])
    checkouts = {"now": ""} | ({"before": options["before"]} if options["before"] else {})
    calm: list[LoadResult] = []
    marginal: dict[str, list[float]] = {name: [] for name in checkouts}
    whole: dict[str, list[float]] = {name: [] for name in checkouts}
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(raydist_server(folder, _cores(), checkout=checkout))
            for name, checkout in checkouts.items()
        }
        rates = [_capacity(url, bodies, options) for url, _ in servers.values()]
        spec = LoadSpec(rate=min(rates) / 2, seconds=options["calm_seconds"])
        for _, (name, (url, process)) in itertools.product(
            range(options["rounds"]), servers.items()
        ):
            begin = ingress_cpu_s(process)
            time.sleep(_IDLE_SECONDS)
            idle = (ingress_cpu_s(process) - begin) / _IDLE_SECONDS
            begin = ingress_cpu_s(process)
            load = run_load(url, bodies, spec)
            used, requests = ingress_cpu_s(process) - begin, sum(load.statuses.values())
            whole[name].append(1e3 * used / requests)
            marginal[name].append(1e3 * (used - idle * load.seconds) / requests)
            say(f"{name}: {load.figures()}, ingress {marginal[name][-1]:.1f} ms, idle {idle:.3f}")
            if name == "now":
                calm.append(load)
    median = {name: statistics.median(values) for name, values in marginal.items()}
    figures: dict[str, float | None] = {
        "p99_ms": statistics.median(load.quantile_ms(0.99) for load in calm),
        "ingress_cpu_ms_per_request": median["now"],
        "ingress_cpu_vs_before": median["now"] / median["before"] if "before" in median else None,
    }
    return figures, {
        "p50_ms": [round(load.quantile_ms(0.5)) for load in calm],
        "requests": [sum(load.statuses.values()) for load in calm],
        "cpu_ms_per_request": marginal,
        "with_idle_cpu_ms_per_request": whole,
    }


def long(folder: Path, options: dict[str, Any]) -> Measured:
    """Measures the p99 of small requests alone, and with long documents beside them."""
    query, texts = mixed_documents(500)
    p99: list[list[float]] = []
    with raydist_server(folder, _cores()) as (url, _):
        bodies = rerank_bodies([query], texts, options["documents"])
        rate = _capacity(url, bodies, options) / 4
        for _ in range(options["long_rounds"]):
            p99.append([])
            for share in (0.0, 0.05):
                bodies = rerank_bodies([query], texts, options["documents"], long=share)
                load = run_load(url, bodies, LoadSpec(rate=rate, seconds=options["long_seconds"]))
                say(f"long documents in {share:.0%}: {load.figures()}")
                p99[-1].append(load.quantile_ms(0.99, small=True))
    ratio = statistics.median(beside / alone for alone, beside in p99)
    return {"small_p99_beside_long_vs_alone": ratio}, {
        "p99_ms_alone_and_beside": [[round(value) for value in pair] for pair in p99],
        "requests_per_s": round(rate, 2),
    }


def under_overload(folder: Path, options: dict[str, Any]) -> Measured:
    """Puts ten times its capacity on the service."""
    query, texts = mixed_documents(500)
    bodies = rerank_bodies([query], texts, options["documents"])
    with raydist_server(folder, _cores()) as (url, process):
        rate = 10 * _capacity(url, bodies, options)
        statuses, grown = overload(url, process, bodies, rate, options["overload_seconds"])
    other = sum(n for status, n in statuses.items() if status not in {"200", "429", "503"})
    figures: dict[str, float | None] = {
        "overload_non_200_429_503": other,
        "rss_growth_mb_5min": grown,
    }
    return figures, {"statuses": dict(statuses), "requests_per_s": round(rate, 1)}


def overload(
    url: str, process: int, bodies: Any, rate: float, seconds: float
) -> tuple[Counter[str], float]:
    """Returns status counts and by how many MB the service's processes grew after a warm-up.

    In its first two minutes a fresh replica allocates some 40 MB of buffers, and keeps them.
    """
    warm = run_load(url, bodies, LoadSpec(rate=rate, seconds=min(120.0, seconds / 2.5)))
    before = resident_mb(process)
    load = run_load(url, bodies, LoadSpec(rate=rate, seconds=seconds))
    grown = resident_mb(process) - before
    after = httpx.post(f"{url}/v1/rerank", json=next(bodies), timeout=60)
    assert after.status_code == 200, "the service did not recover"
    return load.statuses + warm.statuses, grown


def _capacity(url: str, bodies: Iterator[dict[str, Any]], options: dict[str, Any]) -> float:
    """Returns the requests per second of a closed loop, after a warm-up."""
    clients: int = options["clients"]
    run_load(url, bodies, LoadSpec(seconds=5.0, clients=clients))
    return _per_s(run_load(url, bodies, LoadSpec(seconds=10.0, clients=clients)))


def _cores() -> int:
    return len(os.sched_getaffinity(0))


PARTS: dict[str, Callable[[Path, dict[str, Any]], Measured]] = {
    "rerank": rerank,
    "embed": embed,
    "ingress": ingress,
    "long": long,
    "overload": under_overload,
}

if __name__ == "__main__":
    main()
