"""Runs a real cluster of three raylets on this machine, controlled by standard input.

    python -m tests.cluster.nodes [hidden=FOLDER] [memory=GIB]

Nodes do not see `hidden`, if it is given: each has an empty folder in its place, with a cache of
its own. `memory` is what the machine seems to have, most of it free. Prints a line of JSON: the
cluster's `address`, its `dashboard`, and its number of `nodes`. Every line after
that is an order and gets a line in reply:

    kill NAME     kills, without warning, a raylet (not the head's) that runs a process of that name
    add           starts a raylet in its place
    wait NAME     waits until the newest node runs a process of that name
    exhaust NAME  leaves no memory until Ray's memory monitor has killed a process of that name
    quit          ends the cluster, as the end of the input does
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import sys
import time
from typing import Any

import psutil
from ray._private.utils import write_ray_address
from ray.cluster_utils import Cluster

FOLDER = f"/tmp/rdn-{os.getpid()}"
WORDS = dict(word.split("=", 1) for word in sys.argv[1:])
HIDDEN = WORDS.get("hidden")
MEMORY = int(WORDS.get("memory", 0)) << 30
STORE = 200 << 20  # bytes of a node's object store
CGROUP = "/sys/fs/cgroup"
PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def running(nodes: list[Any], name: str) -> tuple[Any, psutil.Process] | None:
    """Returns a process of that name, with its node; gives up after a minute."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for node in nodes:
            for raylet in node.all_processes["raylet"]:
                for child in psutil.Process(raylet.process.pid).children(recursive=True):
                    try:
                        if child.cmdline() and name in child.cmdline()[0]:
                            return node, child
                    except psutil.Error:
                        continue
        time.sleep(0.01)
    return None


def kill(cluster: Cluster, nodes: list[Any], name: str) -> str:
    """Kills a raylet and its processes."""
    if (found := running(nodes, name)) is None:
        return f"no node runs {name}"
    cluster.remove_node(found[0], allow_graceful=False)
    nodes.remove(found[0])
    return f"killed a node that ran {name}"


def exhaust(nodes: list[Any], name: str) -> str:
    """Seems to use all memory until a process of that name has ended."""
    if (found := running(nodes, name)) is None:
        return f"no node runs {name}"
    use(0.99)
    try:
        found[1].wait(PATIENCE_S)
    except psutil.TimeoutExpired:
        return f"{name} runs on"
    finally:
        use(0.1)
    return f"no memory was left for {name}"


def use(share: float) -> None:
    """Sets how much of the memory seems to be used."""
    for file, text in (
        ("memory.max", f"{MEMORY}"),
        ("memory.stat", "anon 0\ninactive_file 0\nactive_file 0"),
        ("memory.current", f"{int(share * MEMORY)}"),
    ):
        with open(f"{CGROUP}/.part", "w") as out:
            out.write(f"{text}\n")
        os.replace(f"{CGROUP}/.part", f"{CGROUP}/{file}")


def add(cluster: Cluster, number: int, **options: Any) -> Any:
    """Starts a raylet with its own folder, as on its own machine."""
    if HIDDEN is not None:
        options["env_vars"] = {"RAYDIST_CACHE": f"{HIDDEN}/cache-{number}"}
    return cluster.add_node(
        **{"num_cpus": 2, "temp_dir": f"{FOLDER}/{number}", **options}, object_store_memory=STORE
    )


def hide(folder: str) -> None:
    """Gives this process a mount name space of its own, with an empty folder in place of one."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, private = 0x20000, (1 << 14) | (1 << 18)  # CLONE_NEWNS; MS_REC, MS_PRIVATE
    done = (
        libc.unshare(new_mounts),
        libc.mount(b"none", b"/", None, private, None),
        libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, None),
    )
    assert done == (0, 0, 0), os.strerror(ctypes.get_errno())


def main() -> None:
    os.environ.pop("RAY_ADDRESS", None)
    if HIDDEN is not None:
        hide(HIDDEN)
    if MEMORY:  # in the files by which Ray's memory monitor looks at a container
        hide(CGROUP)
        use(0.1)
        os.environ.pop("RAY_memory_monitor_refresh_ms", None)
    os.makedirs(f"{FOLDER}/ray", exist_ok=True)
    os.environ["RAY_TMPDIR"] = FOLDER
    head = {
        # A killed raylet refuses connections: three refusals show it in seconds, not in a quarter
        # of a minute. A busy one is slow to answer, for which the time stays ten seconds each.
        "_system_config": {
            "health_check_initial_delay_ms": 1000,
            "health_check_period_ms": 1000,
            "health_check_failure_threshold": 3,
        },
        "num_cpus": 1,
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": free_port(),
        "dashboard_agent_listen_port": free_port(),
    }
    cluster = Cluster()
    add(cluster, 0, **head)
    # Where a job looks for its cluster's address; otherwise it takes that of any other one.
    write_ray_address(cluster.address, f"{FOLDER}/0")
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
            elif order == "wait":
                seen = running(nodes[-1:], name) is not None
                print(f"the node {'runs' if seen else 'does not run'} {name}", flush=True)
            elif order == "exhaust":
                print(exhaust(nodes, name), flush=True)
            else:
                break
    finally:
        cluster.shutdown()
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
