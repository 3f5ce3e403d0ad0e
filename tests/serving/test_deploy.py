"""`serve deploy` and `serve run` with the files of cluster/serve."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

import raydist
from tests.serving.test_live import free_port
from tests.serving.test_rolling import BODY, Stream

pytestmark = pytest.mark.ray
ROOT = Path(raydist.__file__).parents[1]
SERVE = [sys.executable, "-m", "ray.serve.scripts"]
AUTH = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
HEAD = """
import json, os, sys
from ray.cluster_utils import Cluster
from tests.serving.test_live import free_port
cluster = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 4, "include_dashboard": True, "dashboard_host": "127.0.0.1",
    "dashboard_port": free_port(), "dashboard_agent_listen_port": free_port(),
    "temp_dir": f"/tmp/rds-{os.getpid()}", "object_store_memory": 200 << 20})
print(json.dumps(f"http://{cluster.webui_url}"), flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    environment = {**os.environ, **AUTH, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    with subprocess.Popen(
        [sys.executable, "-c", HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    ) as head:
        assert head.stdout is not None and head.stdin is not None
        line = next(line for line in head.stdout if line.startswith('"http'))
        yield json.loads(line)
        head.stdin.close()
        head.wait(60)


def serve(dashboard: str, *words: str) -> str:
    environment = {**os.environ, **AUTH, "RAY_DASHBOARD_ADDRESS": dashboard}
    done = subprocess.run(
        [*SERVE, *words], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until_running(dashboard: str, url: str) -> None:
    """`serve deploy` returns before the replicas are up: asks until they are."""
    ends = time.monotonic() + 180
    text = ""
    while time.monotonic() < ends:
        try:
            text = httpx.get(f"{url}/readyz", timeout=30).text
            if json.loads(text) == {"status": "ready"}:
                return
        except (httpx.HTTPError, ValueError):
            pass
        time.sleep(0.5)
    raise AssertionError(f"not ready: {text} {serve(dashboard, 'status')}")


def test_deploy_and_redeploy_under_load(dashboard: str, tmp_path: Path) -> None:
    port = free_port()
    settings = yaml.safe_load((ROOT / "cluster/serve/rerank.yaml").read_text())
    settings["http_options"]["port"] = port
    file = tmp_path / "rerank.yaml"
    file.write_text(yaml.safe_dump(settings))
    serve(dashboard, "deploy", str(file))
    url = f"http://127.0.0.1:{port}"
    wait_until_running(dashboard, url)
    with Stream(port, "bm25") as stream:
        (application,) = settings["applications"]
        application["args"]["limits"]["max_documents"] = 2
        file.write_text(yaml.safe_dump(settings))
        stream.body = BODY | {"documents": ["rain", "snow"]}
        time.sleep(1)
        serve(dashboard, "deploy", str(file))
        ends = time.monotonic() + 180
        while httpx.post(f"{url}/v1/rerank", json=BODY, timeout=30).status_code != 413:
            assert time.monotonic() < ends, stream.statuses
            time.sleep(0.2)
        time.sleep(2)
    assert set(stream.statuses) == {200}, stream.statuses
    assert stream.statuses[200] > 50
    assert "status: RUNNING" in serve(dashboard, "status")


def test_run_serves_the_file_on_a_ray_of_its_own(tmp_path: Path) -> None:
    port = free_port()
    settings = yaml.safe_load((ROOT / "cluster/serve/rerank.yaml").read_text())
    settings["http_options"]["port"] = port
    file = tmp_path / "rerank.yaml"
    file.write_text(yaml.safe_dump(settings))
    place = Path(tempfile.mkdtemp(prefix="rds-", dir="/tmp"))  # sockets need a short path
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(place)}
    environment.pop("RAY_ADDRESS", None)
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [*SERVE, "run", str(file)], env=environment, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            ends = time.monotonic() + 180
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{url}/readyz", timeout=30).status_code == 200:
                        break
                assert process.poll() is None and time.monotonic() < ends, (
                    tmp_path / "log"
                ).read_text()
                time.sleep(0.5)
            answer = httpx.post(f"{url}/v1/rerank", json=BODY, timeout=30)
            assert answer.status_code == 200 and len(answer.json()["results"]) == 3
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            finally:
                process.kill()
                shutil.rmtree(place, ignore_errors=True)
