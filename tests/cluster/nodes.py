"""Runs a real cluster of three raylets on this machine, controlled by standard input.

    python -m tests.cluster.nodes

Prints a line of JSON: the cluster's `address`, its `dashboard`, and its number of `nodes`. Every
line after that is an order and gets a line in reply. `kill NAME` kills, without warning, a raylet
(not the head's) as soon as a process called NAME runs below it. `add` starts a raylet in its place.
`quit`, or the end of the input, ends the cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from typing import Any

import psutil
from ray.cluster_utils import Cluster

STORE = 200 << 20  # bytes of a node's object store
FOLDER = f"/tmp/rdn-{os.getpid()}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def runs(node: Any, name: str) -> bool:
    """Returns whether a process of that name runs below a raylet."""
    for raylet in node.all_processes["raylet"]:
        for child in psutil.Process(raylet.process.pid).children(recursive=True):
            try:
                if child.cmdline() and name in child.cmdline()[0]:
                    return True
            except psutil.Error:
                continue
    return False


def kill(cluster: Cluster, nodes: list[Any], name: str) -> str:
    """Kills a raylet and its processes; gives up after a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for node in nodes:
            if runs(node, name):
                cluster.remove_node(node, allow_graceful=False)
                nodes.remove(node)
                return f"killed a node that ran {name}"
        time.sleep(0.01)
    return f"no node runs {name}"


def add(cluster: Cluster, number: int) -> Any:
    """Starts a raylet with its own folder, as on its own machine."""
    return cluster.add_node(num_cpus=2, object_store_memory=STORE, temp_dir=f"{FOLDER}/{number}")


def main() -> None:
    os.environ.pop("RAY_ADDRESS", None)
    # A job reads its cluster's address from a file in this folder; other clusters have their own.
    os.makedirs(f"{FOLDER}/ray", exist_ok=True)
    os.environ["RAY_TMPDIR"] = FOLDER
    head = {
        "num_cpus": 1,
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": free_port(),
        "dashboard_agent_listen_port": free_port(),
        "temp_dir": f"{FOLDER}/0",
        "object_store_memory": STORE,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [add(cluster, number) for number in (1, 2)]
    started = len(nodes)
    facts = {
        "address": cluster.address,
        "dashboard": f"http://{cluster.webui_url}",
        "nodes": 1 + len(nodes),
    }
    print(json.dumps(facts), flush=True)
    try:
        for line in sys.stdin:
            order, _, name = line.strip().partition(" ")
            if order == "kill":
                print(kill(cluster, nodes, name), flush=True)
            elif order == "add":
                started += 1
                nodes.append(add(cluster, started))
                print("added a node", flush=True)
            else:
                break
    finally:
        cluster.shutdown()
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
