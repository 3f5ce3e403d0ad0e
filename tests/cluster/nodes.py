"""Holds a real cluster of three raylets on this machine, told on standard input what to do.

    python -m tests.cluster.nodes

Prints a line of JSON: the cluster's `address`, its `dashboard`, and how many `nodes` it has. Then
every line is an order that is answered by another line: `kill NAME` ends, without a word to anyone,
the raylet (not the head's) under which a process runs that is called NAME, as soon as there is
one; `add` starts a raylet in its place; `quit` ends it all, as the end of the input does.
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
PLACE = f"/tmp/rdn-{os.getpid()}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def runs(node: Any, name: str) -> bool:
    """Whether a raylet has a child that is called so."""
    for raylet in node.all_processes["raylet"]:
        for child in psutil.Process(raylet.process.pid).children(recursive=True):
            try:
                if child.cmdline() and name in child.cmdline()[0]:
                    return True
            except psutil.Error:
                continue
    return False


def kill(cluster: Cluster, nodes: list[Any], name: str) -> str:
    """Kills a raylet and all that it runs; gives up after a minute."""
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
    """Starts a raylet with a folder of its own, as on a machine of its own."""
    return cluster.add_node(num_cpus=2, object_store_memory=STORE, temp_dir=f"{PLACE}/{number}")


def main() -> None:
    os.environ.pop("RAY_ADDRESS", None)
    # A job looks for its cluster in a file of this folder; other clusters here have theirs.
    os.makedirs(f"{PLACE}/ray", exist_ok=True)
    os.environ["RAY_TMPDIR"] = PLACE
    head = {
        "num_cpus": 1,
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": free_port(),
        "dashboard_agent_listen_port": free_port(),
        "temp_dir": f"{PLACE}/0",
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
        shutil.rmtree(PLACE, ignore_errors=True)


if __name__ == "__main__":
    main()
