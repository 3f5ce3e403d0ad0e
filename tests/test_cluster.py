from __future__ import annotations

import os
import subprocess
import sys

import pytest
import ray

from raydist import cluster
from raydist.errors import JobError


@pytest.mark.parametrize("address", [None, "127.0.0.1:6379"])
def test_what_this_machine_cannot_have_is_said_before_a_cluster_is_started(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[bool] = []
    for name in ("RAY_ADDRESS", "RAY_JOB_ID", "RAYDIST_AUTOSCALING"):
        monkeypatch.delenv(name, raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "connect", lambda: connected.append(True))
    monkeypatch.setattr(cluster, "available", lambda: {"CPU": 8.0, "GPU": 0.0})
    workers = (os.cpu_count() or 1) + 8
    with pytest.raises(JobError, match=rf"workers = {workers} with 1 CPU each need {workers} CPU"):
        cluster.require(workers, 1, 0)
    assert connected == ([True] if address else []), "a named cluster says what it has"


def test_gpus_are_required_and_a_growing_cluster_is_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "connect", lambda: None)
    monkeypatch.setattr(cluster, "available", lambda: {"CPU": 1.0, "GPU": 1.0})
    monkeypatch.delenv("RAYDIST_AUTOSCALING", raising=False)
    with pytest.raises(JobError, match=r"need 2 GPU, the cluster has 1; lower workers= or gpus_"):
        cluster.require(1, 1, 2)
    cluster.require(1, 1, 0.5, beside=0.5)
    with pytest.raises(JobError, match=r"beside training take 0.75 GPU, the workers leave 0.5"):
        cluster.require(1, 1, 0.5, beside=0.75)
    monkeypatch.setenv("RAYDIST_AUTOSCALING", "1")
    cluster.require(512, 8, 8)


_LISTENING = """
import os, subprocess
from pathlib import Path
from raydist import cluster

def children(pid):
    yield pid
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in listed.read_text().split():
            yield from children(int(child))

cluster.require(1, 1, 0)
import ray
assert ray.get(ray.remote(lambda: os.getpid()).remote()) != os.getpid()  # there is a worker, too
own = set()
for pid in children(os.getpid()):
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(handle))
        except OSError:
            pass
for table in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and f"socket:[{words[9]}]" in own:
            print(words[1])
"""


@pytest.mark.ray
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_cluster_of_our_own_listens_on_loopback_only() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", _LISTENING],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    addresses = {line.split(":")[0] for line in done.stdout.split()}
    assert len(done.stdout.split()) > 3, done.stdout
    # 127.0.0.1 as the kernel writes it, in both families
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}, done.stdout
