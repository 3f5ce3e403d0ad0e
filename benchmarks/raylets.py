"""Weak scaling by counted work: so many raylets on this machine, each with the same work.

    python -m benchmarks.raylets nodes=4      # one line of JSON; as root, for the network's bytes

Each raylet stands for a node of one CPU and has a folder and a worker of its own. Wall time on a
few cores would say nothing, so work is counted: CPU seconds of the nodes' workers, bytes that go
over the network, and what the driver alone takes: its CPU seconds, its peak of memory, its bytes.
The network is a name space of its own whose only interface is counted: it has whatever these
processes send, Ray's own messages included, and nothing else. The driver's bytes are those of its
sockets. Shards go to a folder that all nodes see, so they are none of these bytes.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.report import arguments, memory_bytes

DEFAULTS = {
    "nodes": 2,
    "documents": 2000,  # of each node
    "embedded": 200,
    "queries": 100,
    "k": 100,
}
VERBS = ("index", "embed", "search")
COUNTS = (2, 4, 8)
PARTS = {
    "node_cpu_s": "CPU s of a node",
    "network_mb_per_node": "network of a node, MB",
    "driver_cpu_s": "CPU s of the driver",
    "driver_peak_mb": "memory of the driver, MB",
    "driver_network_mb": "network of the driver, MB",
}
"""What is counted for each verb, and what tables call it."""
_WORDS = 60  # of a document
_VOCABULARY = 20_000
_STORE = 100 << 20  # bytes of a node's object store
_PROGRAM = """
import sys
import raydist.bow.build.merge as merge
from raydist.cli import main

merge._WORTH_SHARING = 0  # as postings of a collection that is worth many nodes
sys.exit(main(sys.argv[1:]))
"""
"""Builds small indexes as large ones are built: workers merge, too."""

Figures = dict[str, float]


def main() -> None:
    settings = arguments(DEFAULTS)
    print(json.dumps(measure(**settings)), flush=True)


def own_network() -> bool:
    """Gives this process and its children a network of their own; returns whether that worked."""
    new_network = 0x40000000  # CLONE_NEWNET
    if ctypes.CDLL(None, use_errno=True).unshare(new_network):
        return False
    set_flags, up = 0x8914, 0x1  # SIOCSIFFLAGS, IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", up))
    return True


def network_bytes() -> int:
    """Returns what was sent through the loopback interface."""
    line = next(x for x in Path("/proc/net/dev").read_text().splitlines() if "lo:" in x)
    return int(line.split(":")[1].split()[0])


def measure(nodes: int, documents: int, embedded: int, queries: int, k: int) -> dict[str, Any]:
    """Returns the figures of each verb on a cluster of that many nodes.

    Args:
        nodes: raylets beside the head.
        documents: that each indexes.
        embedded: that each embeds.
        queries: that all of them are asked.
        k: documents of each query.
    """
    counted = own_network()
    folder = Path(tempfile.mkdtemp(prefix="rdw-", dir="/tmp"))
    os.environ.pop("RAY_ADDRESS", None)
    os.environ |= {
        "RAY_TMPDIR": str(folder),
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # nodes are 127.0.0.1
        "RAY_raylet_start_wait_time_s": "120",  # on a busy machine
        "OMP_NUM_THREADS": "1",
    }
    from ray.cluster_utils import Cluster

    (folder / "ray").mkdir()  # where Ray notes the address
    cluster = Cluster()
    try:
        for number in range(nodes + 1):
            (folder / str(number)).mkdir()
            cluster.add_node(
                num_cpus=1 if number else 0,
                temp_dir=str(folder / str(number)),
                object_store_memory=_STORE,
                include_dashboard=False,
            )
        watch = Watch(cluster.address, nodes, counted)
        write_corpus(folder / "corpus.jsonl", nodes * documents)
        write_corpus(folder / "embedded.jsonl", nodes * embedded)
        write_queries(folder / "queries.tsv", queries)
        model = tiny_model(folder / "model")
        share = (folder / "corpus.jsonl").stat().st_size // nodes
        index, run, alone = folder / "index", folder / "run.txt", folder / "alone.txt"
        verbs = {
            "index": [f"corpus={folder}/corpus.jsonl", f"split_bytes={share // 2}", f"out={index}"],
            "embed": [f"corpus={folder}/embedded.jsonl", f"model={model}", "split_bytes=64kB"],
            "search": [f"index={index}", f"queries={folder}/queries.tsv", f"k={k}"],
        }
        verbs["embed"].append(f"out={folder}/vectors")
        places = {"index": f"workers={nodes}", "embed": f"workers={nodes}"}
        places["search"] = f"shards={nodes}"
        figures = {}
        for name, words in verbs.items():
            if name == "search":
                watch.run("merge", f"out={index}", f"segments={nodes}", local=True)
                watch.run(name, *words, f"out={alone}", local=True)
                words = [*words, f"out={run}"]
            figures[name] = watch.run(name, *words, places[name])
        assert alone.read_bytes() == run.read_bytes(), "a run by shards is another one"
        return {"nodes": nodes, **figures}
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


class Watch:
    """Runs commands on a cluster and counts what they take."""

    def __init__(self, address: str, nodes: int, counted: bool) -> None:
        self._address, self._nodes, self._counted = address, nodes, counted

    def run(self, *words: str, local: bool = False) -> Figures:
        """Runs a command to its end; `local` does it without the cluster."""
        environment = {**os.environ, "RAY_ADDRESS": self._address}
        if local:
            del environment["RAY_ADDRESS"]
        before, sent = workers(), network_bytes()
        driver = Driver([sys.executable, "-c", _PROGRAM, *words], environment, self._counted)
        if driver.code:
            raise SystemExit(f"{words[0]} failed: {driver.log[-3000:]}")
        spent = sum(used - before.get(pid, 0.0) for pid, used in driver.workers.items())
        figures = {
            "node_cpu_s": spent / self._nodes,
            "driver_cpu_s": driver.seconds,
            "driver_peak_mb": driver.peak / 1e6,
        }
        if self._counted:
            figures |= {
                "network_mb_per_node": (network_bytes() - sent) / self._nodes / 1e6,
                "driver_network_mb": driver.network / 1e6,
            }
        return figures


def workers() -> dict[int, float]:
    """Returns the CPU seconds of Ray's workers below this process, by their ids."""
    seconds = {}
    for process in psutil.Process().children(recursive=True):
        try:
            words = process.cmdline()
            if words and ("ray::" in words[0] or "default_worker.py" in " ".join(words[:3])):
                seconds[process.pid] = sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return seconds


class Driver:
    """A command that has ended.

    Attributes:
        code: its exit code.
        log: what it printed.
        seconds: of the processor, user and system.
        peak: bytes of its own memory (RssAnon) at most, looked at fifty times a second.
        workers: CPU seconds of Ray's workers by their ids, looked at three times a second.
        network: bytes that its sockets sent and received.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], counted: bool) -> None:
        self.peak = 0
        self.workers: dict[int, float] = {}
        self._sockets: dict[str, int] = {}
        with tempfile.TemporaryFile("w+") as log:
            child = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            ended = threading.Event()
            looks = [self._look, self._count, *([self._listen] if counted else [])]
            watchers = [threading.Thread(target=each, args=(child.pid, ended)) for each in looks]
            for each in watchers:
                each.start()
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            ended.set()
            for each in watchers:
                each.join()
            log.seek(0)
            self.log = log.read()
        self.code, self.seconds = child.returncode, used.ru_utime + used.ru_stime
        self.network = sum(self._sockets.values())

    def _look(self, pid: int, ended: threading.Event) -> None:
        while not ended.wait(0.02):
            try:
                self.peak = max(self.peak, memory_bytes("RssAnon", pid))
            except (OSError, KeyError):
                return

    def _count(self, pid: int, ended: threading.Event) -> None:
        while not ended.wait(0.3):
            self.workers |= workers()

    def _listen(self, pid: int, ended: threading.Event) -> None:
        """Adds up TCP's own counters; what a socket does in its last fifth of a second is lost."""
        while not ended.wait(0.2):
            done = subprocess.run(["ss", "-tinpHO"], capture_output=True, text=True)
            for line in done.stdout.splitlines():
                if f"pid={pid}," in line:
                    ends = " ".join(line.split()[3:5])
                    counts = re.findall(r"bytes_(?:sent|received):(\d+)", line)
                    self._sockets[ends] = sum(map(int, counts))


def write_corpus(path: Path, documents: int) -> None:
    """Writes documents of sixty words, whose frequencies fall as in natural text."""
    draw = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as out:
        for number in range(documents):
            words = " ".join(f"w{each}" for each in _some(draw, _WORDS))
            out.write(json.dumps({"id": f"d{number:09d}", "text": words}) + "\n")


def write_queries(path: Path, queries: int) -> None:
    """Writes queries of four words."""
    draw = np.random.default_rng(1)
    lines = (" ".join(f"w{each}" for each in _some(draw, 4)) for _ in range(queries))
    path.write_text("".join(f"q{n}\t{line}\n" for n, line in enumerate(lines)))


def _some(draw: np.random.Generator, count: int) -> Any:
    return np.minimum(draw.zipf(1.3, count), _VOCABULARY)


def tiny_model(folder: Path) -> Path:
    """Writes a random encoder of one layer of 32 dimensions."""
    from raydist.models.scratch import create

    texts = [f"w{a} w{b}" for a in range(20) for b in range(20)]
    return create(texts, folder, layers=1, hidden=32, heads=2, vocab=300, max_length=64)


if __name__ == "__main__":
    main()
