"""The service beside its peers: `python -m benchmarks.serving [seconds=30 overload_seconds=300]`.

MiniLM with a scoring head behind three servers on this machine, the same requests from the same
closed loop of clients, in alternating rounds: raydist on Ray Serve, plain FastAPI around
sentence-transformers' CrossEncoder, and infinity (0.0.78, which needs older packages: it is
installed into an environment of its own under `benchmarks/.work/infinity`; infinity=false leaves
it out). Then raydist alone: latency at half of its capacity, small requests with and without long
documents beside them (900,000 characters in 5 % of the requests), and ten times its capacity.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.models import minilm_with_head, mixed_documents
from benchmarks.report import WORK, arguments, goal, memory_bytes, print_table, write_results
from raydist.log import say
from raydist.serving.load import LoadResult, rerank_bodies, run_load
from raydist.serving.spec import LoadSpec

GOALS = {
    "pairs_per_s_vs_fastapi_st": goal(">=", 1.5),
    "pairs_per_s_vs_infinity": goal(">=", 1.0),
    "overload_non_200_429_503": goal("==", 0),
    "rss_growth_mb_5min": goal("<=", 50),
    "small_p99_beside_long_vs_alone": goal("<=", 3.0),
}
_BOUNDS = ("transformers<4.49", "torch<2.14", "optimum<1.25", "click<8.2", "typer<0.16")
DEFAULTS = {
    "seconds": 30.0,
    "rounds": 3,
    "clients": 8,
    "documents": 20,
    "calm_seconds": 120.0,
    "long_seconds": 120.0,
    "long_rounds": 3,
    "overload_seconds": 300.0,
    "infinity": True,
}


def main() -> None:
    options = arguments(DEFAULTS)
    cores = len(os.sched_getaffinity(0))
    query, texts = mixed_documents(500)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = minilm_with_head(Path(name) / "model")
        servers = {
            "raydist": stack.enter_context(raydist_server(folder, cores)),
            "fastapi_st": stack.enter_context(_plain(folder)),
        }
        if options["infinity"]:
            servers["infinity"] = stack.enter_context(_infinity(folder, _install_infinity()))
        bodies = rerank_bodies([query, f"{query} and there"], texts, options["documents"])
        _same_scores(servers, next(bodies))
        results = {server: [] for server in servers}
        for number in range(options["rounds"] + 1):
            for server, (url, _) in servers.items():
                seconds = options["seconds"] if number else 5.0  # the first round warms up
                load = run_load(url, bodies, LoadSpec(seconds=seconds, clients=options["clients"]))
                say(f"round {number}: {server}: {_rate(load):.1f} pairs/s")
                if number:
                    results[server].append(load)
        best = {s: max(loads, key=_rate) for s, loads in results.items()}
        rows = [
            [s, _rate(load), load.quantile_ms(0.5), load.quantile_ms(0.99)]
            for s, load in best.items()
        ]
        print_table("closed loop", ["server", "pairs/s", "p50 ms", "p99 ms"], rows)
        figures: dict[str, float] = {}
        for peer in ("fastapi_st", "infinity"):
            if peer in best:
                figures[f"pairs_per_s_vs_{peer}"] = _rate(best["raydist"]) / _rate(best[peer])
        url, process = servers["raydist"]
        capacity = _rate(best["raydist"]) / options["documents"]
        say(f"raydist alone: {capacity / 2:.1f} requests/s, then {10 * capacity:.1f} for minutes")
        used = _ingress_cpu_s(process)
        calm = run_load(url, bodies, LoadSpec(rate=capacity / 2, seconds=options["calm_seconds"]))
        used = _ingress_cpu_s(process) - used
        figures["p99_ms"] = calm.quantile_ms(0.99)
        figures["ingress_cpu_ms_per_request"] = 1e3 * used / sum(calm.statuses.values())
        beside = [
            _beside_long(url, query, texts, options, capacity / 4)
            for _ in range(options["long_rounds"])
        ]
        figures["small_p99_beside_long_vs_alone"] = statistics.median(b / a for a, b in beside)
        over, grown = overload(url, process, bodies, 10 * capacity, options["overload_seconds"])
    allowed = {"200", "429", "503"}
    figures["overload_non_200_429_503"] = sum(n for s, n in over.items() if s not in allowed)
    figures["rss_growth_mb_5min"] = grown
    notes: dict[str, Any] = {
        "pairs_per_s": {s: round(_rate(load), 1) for s, load in best.items()},
        "closed_loop_p99_ms": {s: round(load.quantile_ms(0.99)) for s, load in best.items()},
        "calm": {"requests": sum(calm.statuses.values()), "p50_ms": round(calm.quantile_ms(0.5))},
        "beside_long_p99_ms": [[round(a), round(b)] for a, b in beside],
        "overload_statuses": dict(over),
        "settings": {key: options[key] for key in DEFAULTS},
    }
    write_results("serving", figures, GOALS, notes=notes)


def _beside_long(
    url: str, query: str, texts: Sequence[str], options: dict[str, Any], rate: float
) -> tuple[float, float]:
    """Returns the p99 in ms of small requests alone, and with long documents beside them."""
    p99 = []
    for long in (0.0, 0.05):
        bodies = rerank_bodies([query], texts, options["documents"], long=long)
        load = run_load(url, bodies, LoadSpec(rate=rate, seconds=options["long_seconds"]))
        say(f"long documents in {long:.0%}: {load.figures()}")
        p99.append(load.quantile_ms(0.99, small=True))
    return p99[0], p99[1]


def _ingress_cpu_s(process: int) -> float:
    """Returns the seconds of CPU that the service's ingresses and proxies have used."""
    ticks = 0
    for pid in _descendants(process):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/cmdline").read_text()
            if ":ingress" in name or "ProxyActor" in name:
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                ticks += int(stat[11]) + int(stat[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _rate(load: LoadResult) -> float:
    return load.pairs / load.seconds


def _same_scores(servers: dict[str, tuple[str, int]], body: dict[str, Any]) -> None:
    """Checks that all servers give the same scores, without which the comparison is void."""
    scores_of = {}
    for name, (url, _) in servers.items():
        answer = httpx.post(f"{url}/v1/rerank", json=body, timeout=60).raise_for_status().json()
        scores_of[name] = {r["index"]: r["relevance_score"] for r in answer["results"]}
    first = scores_of["raydist"]
    for name, scores in scores_of.items():
        worst = max(abs(scores[i] - first[i]) for i in first)
        assert worst < 1e-3, (name, worst)


def overload(
    url: str, process: int, bodies: Any, rate: float, seconds: float
) -> tuple[Counter[str], float]:
    """Returns status counts and by how many MB the service's processes grew after a warm-up.

    In its first two minutes a fresh replica allocates some 40 MB of buffers, and keeps them.
    """
    warm = run_load(url, bodies, LoadSpec(rate=rate, seconds=min(120.0, seconds / 2.5)))
    before = _resident_mb(process)
    load = run_load(url, bodies, LoadSpec(rate=rate, seconds=seconds))
    grown = _resident_mb(process) - before
    after = httpx.post(f"{url}/v1/rerank", json=next(bodies), timeout=60)
    assert after.status_code == 200, "the service did not recover"
    return load.statuses + warm.statuses, grown


def _resident_mb(process: int) -> float:
    total = 0
    for pid in _descendants(process):
        with contextlib.suppress(OSError, KeyError):  # it ended
            total += memory_bytes("RssAnon", pid)
    return total / 1e6


def _descendants(process: int) -> Iterator[int]:
    yield process
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in listed.read_text().split():
                yield from _descendants(int(child))


@contextlib.contextmanager
def raydist_server(folder: Path, cores: int) -> Iterator[tuple[str, int]]:
    """Yields the URL and the process of `raydist serve` with a replica per core."""
    port = _free_port()
    words = [f"reranker={folder}", f"port={port}", f"replicas.min={cores}", "replicas.cpus=1"]
    with _server([sys.executable, "-m", "raydist", "serve", *words], port) as process:
        yield f"http://127.0.0.1:{port}", process


@contextlib.contextmanager
def _plain(folder: Path) -> Iterator[tuple[str, int]]:
    port = _free_port()
    command = [sys.executable, "-m", "benchmarks.plain_server", str(folder), str(port)]
    with _server(command, port) as process:
        yield f"http://127.0.0.1:{port}", process


def _install_infinity() -> Path:
    """Returns infinity's program, installed if it is missing."""
    place = WORK / "infinity"
    program = place / "bin" / "infinity_emb"
    if not program.exists():
        say("installing infinity into an environment of its own: some minutes")
        venv.create(place, with_pip=True, clear=True)
        # Its own bounds are open; these are the newest that it works with.
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "infinity-emb[server,torch]==0.0.78", *_BOUNDS], check=True)
    return program


@contextlib.contextmanager
def _infinity(folder: Path, program: Path) -> Iterator[tuple[str, int]]:
    port = _free_port()
    command = [str(program), "v2"]
    command += ["--model-id", str(folder), "--port", str(port), "--url-prefix", "/v1"]
    command += ["--engine", "torch", "--device", "cpu", "--no-bettertransformer"]
    with _server(command, port, ready="/health") as process:
        yield f"http://127.0.0.1:{port}", process


@contextlib.contextmanager
def _server(command: Sequence[str], port: int, ready: str = "/readyz") -> Iterator[int]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    environment.pop("OMP_NUM_THREADS", None)
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            ends = time.monotonic() + 180
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"http://127.0.0.1:{port}{ready}", timeout=30).status_code == 200:
                        break
                if process.poll() is not None or time.monotonic() > ends:
                    log.seek(0)
                    raise SystemExit(f"{command}: did not start\n{log.read().decode()[-3000:]}")
                time.sleep(0.5)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
