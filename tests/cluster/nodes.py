"""Runs one verb on a real cluster of three raylets and kills one of them in mid-work.

    python -m tests.cluster.nodes FOLDER MARKERS VERB ARGUMENT...

MARKERS is how many done markers (or checkpoints) below FOLDER are waited for before a raylet that
is not the head is killed; 0 kills none. Exits with the verb's exit code.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from raydist.cli import main


def marks(folder: Path) -> int:
    return sum(1 for pattern in ("*.done", "state.json") for _ in folder.rglob(pattern))


def kill_later(cluster: Cluster, node: object, folder: Path, wanted: int, log: list[str]) -> None:
    while marks(folder) < wanted:
        time.sleep(0.02)
    cluster.remove_node(node, allow_graceful=False)
    log.append(f"killed a node after {marks(folder)} markers")


def run(folder: Path, wanted: int, words: list[str]) -> int:
    os.environ.pop("RAY_ADDRESS", None)
    place = f"/tmp/rdn-{os.getpid()}"
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "include_dashboard": False,
            "temp_dir": place,
            "object_store_memory": 200 << 20,
        },
    )
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=200 << 20) for _ in range(2)]
    log: list[str] = []
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        if wanted:
            threading.Thread(
                target=kill_later, args=(cluster, nodes[0], folder, wanted, log), daemon=True
            ).start()
        code = main(words)
        print("\n".join(log) or "no node was killed")
        return code
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
