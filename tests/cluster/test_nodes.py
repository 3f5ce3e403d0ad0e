"""A real cluster of three raylets on one machine: a node's sudden death changes no result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from raydist.cli import main
from raydist.manifest import read_manifest
from tests.outputs import results

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PIPELINE = ["jobs/pipeline.py", "jobs/quickstart/pipeline.yaml"]
SMALL = [
    *("tracking=none", "stages.index.split_bytes=8000", "stages.embed.split_bytes=16000"),
    *("stages.index.workers=3", "stages.embed.workers=3", "stages.train.workers=3"),
    *("stages.train.steps=12", "stages.train.batch_size=12", "stages.train.checkpoint.every=3"),
    *("stages.train.validation.dev.interval=12", "stages.distill.steps=4"),
]
TOLERANCE = 1e-6  # absolute, of a final weight; so far all were equal to the bit


@dataclass(frozen=True, slots=True)
class Nodes:
    """Three raylets with token authentication, in a process of their own."""

    process: subprocess.Popen[str]
    dashboard: str
    environment: Mapping[str, str]

    def order(self, line: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=ROOT, env=dict(self.environment), stderr=sys.stderr)

    def kill_one(
        self, program: subprocess.Popen[bytes], folder: Path, mark: str, name: str
    ) -> None:
        """Kills a raylet that runs `name` once the folder has two files that match `mark`."""
        self.kill_once(program, lambda: len(list(folder.glob(mark))) >= 2, name)

    def kill_once(
        self, program: subprocess.Popen[bytes], begun: Callable[[], bool], name: str
    ) -> None:
        """Kills a raylet that runs `name` once work has begun."""
        while not begun():
            assert program.poll() is None, "it ended too soon"
            time.sleep(0.003)
        assert self.order(f"kill {name}") == f"killed a node that ran {name}"
        assert self.order("add") == "added a node"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    yield from cluster()


def cluster(*words: str) -> Iterator[Nodes]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{BIN}:{os.environ.get('PATH', '')}"  # a job's `python`
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.nodes", *words],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    assert facts["nodes"] == 3
    yield Nodes(process, facts["dashboard"], environment | {"RAY_ADDRESS": facts["address"]})
    process.communicate("quit\n", timeout=120)


@pytest.mark.ray
def test_a_node_that_dies_while_indexing_leaves_the_same_bytes(
    nodes: Nodes, tmp_path: Path
) -> None:
    rows = [
        {"id": f"d{i}", "text": " ".join(f"w{i * j % 997}" for j in range(80))} for i in range(2500)
    ]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["index", f"corpus={corpus}", "split_bytes=8kB"]
    assert main([*words, f"out={tmp_path}/alone"]) == 0
    command = [sys.executable, "-m", "raydist", *words, f"out={tmp_path}/nodes", "workers=3"]
    with nodes.start(*command) as program:
        nodes.kill_one(program, tmp_path / "nodes/.work/splits", "*.done", "MapWorker")
        assert program.wait(300) == 0
    assert results(tmp_path / "nodes") == results(tmp_path / "alone")


@pytest.mark.ray
def test_doctor_checks_every_node(nodes: Nodes, tmp_path: Path) -> None:
    command = [str(BIN / "raydist"), "doctor", f"storage={tmp_path}"]
    done = subprocess.run(
        [*command, f"address={nodes.environment['RAY_ADDRESS']}"],
        cwd=ROOT,
        env=dict(nodes.environment),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 nodes, Ray" in done.stdout and "Ray auth               token" in done.stdout
    assert "writable from here and from 3 nodes, which see the same" in done.stdout


@pytest.mark.ray
def test_a_jobs_log_need_not_be_utf8(nodes: Nodes, tmp_path: Path) -> None:
    script = "import sys; sys.stdout.buffer.write(b'a b\\xe9c\\n' * 3 + 'ü'.encode())"
    (tmp_path / "job.py").write_text(script)
    done = subprocess.run(
        [str(BIN / "raydist"), "submit", "job.py", f"address={nodes.dashboard}"],
        cwd=tmp_path,
        env=dict(nodes.environment),
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().endswith("a b\ufffdc\n" * 3 + "ü")


PLAN = """
out: ranked
tracking: none
stages:
  index: {corpus: corpus.jsonl, out: "{out}/index", workers: 2}
  search: {index: "{out}/index", queries: queries.tsv, out: "{out}/run.txt"}
"""


@pytest.mark.ray
def test_a_submitted_pipeline_takes_its_files_along(nodes: Nodes, tmp_path: Path) -> None:
    work, storage = tmp_path / "work", tmp_path / "storage"
    work.mkdir()
    (work / "plan.yaml").write_text(PLAN)
    (work / "corpus.jsonl").write_text(
        '{"id": "a", "text": "heron"}\n{"id": "b", "text": "boat"}\n'
    )
    (work / "queries.tsv").write_text("q1\tboats\n")
    submit = [str(BIN / "raydist"), "submit", "pipeline", "plan.yaml", f"storage={storage}"]
    done = subprocess.run(
        [*submit, "stages.search.k=1", f"address={nodes.dashboard}"],
        cwd=work,
        env=dict(nodes.environment),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" done ") == 2, "the table that ends the pipeline is streamed"
    assert (storage / "ranked/run.txt").read_text().split()[:3] == ["q1", "Q0", "b"]


@pytest.fixture(scope="module")
def undisturbed(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart pipeline's output, by `raydist submit`."""
    storage = tmp_path_factory.mktemp("storage")
    submit = [str(BIN / "raydist"), "submit", *PIPELINE, f"address={nodes.dashboard}"]
    done = subprocess.run(
        [*submit, f"storage={storage}", *SMALL],
        cwd=ROOT,
        env=dict(nodes.environment),
        capture_output=True,
        text=True,
        timeout=1500,
    )
    print(done.stdout[-6000:], done.stderr[-2000:])
    assert done.returncode == 0
    assert done.stdout.count(" done ") == 12, "the table that ends the pipeline is streamed"
    return storage / "quickstart-pipeline"


@pytest.mark.ray
@pytest.mark.slow
def test_a_pipeline_that_loses_a_node_in_three_stages_gives_the_same_results(
    nodes: Nodes, undisturbed: Path, tmp_path: Path
) -> None:
    submit = ["job", "submit", "--working-dir", ".", "--runtime-env", "jobs/runtime_env.yaml"]
    options = [f"storage={tmp_path}", *SMALL]
    out = tmp_path / "quickstart-pipeline"
    environment = {**nodes.environment, "RAY_API_SERVER_ADDRESS": nodes.dashboard}
    ray = shutil.which("ray", path=str(BIN))
    assert ray is not None
    with subprocess.Popen(
        [ray, *submit, "--", "python", *PIPELINE, *options], cwd=ROOT, env=environment
    ) as program:
        nodes.kill_one(program, out / "index/.work/splits", "*.done", "MapWorker")
        nodes.kill_one(program, out / "encoder/checkpoints", "*/loop.json", "TrainWorker")
        nodes.kill_one(program, out / "vectors/shards", "*.done", "MapWorker")
        assert program.wait(1500) == 0
    assert results(out / "index") == results(undisturbed / "index")
    trained = read_manifest(out / "encoder")["outcome"]
    assert trained["step"] == 12 and trained["resumed_at"] >= 3, "training was not interrupted"
    assert differing_weights(out / "encoder", undisturbed / "encoder") == {}
    assert results(out / "vectors") == results(undisturbed / "vectors")


def differing_weights(one: Path, other: Path) -> dict[str, float]:
    from safetensors.torch import load_file

    a, b = (load_file(run / "checkpoint-final/model.safetensors") for run in (one, other))
    assert a.keys() == b.keys()
    difference = {name: float((a[name] - b[name]).abs().max()) for name in a}
    print(f"largest difference of a weight: {max(difference.values())}")
    return {name: each for name, each in difference.items() if not each <= TOLERANCE}


@pytest.mark.ray
@pytest.mark.slow
def test_a_submitted_mistake_returns_its_exit_code(nodes: Nodes, tmp_path: Path) -> None:
    submit = [str(BIN / "raydist"), "submit", "index", f"address={nodes.dashboard}"]
    words = [f"corpus={tmp_path}/nowhere.jsonl", f"out={tmp_path}/index"]
    with nodes.start(*submit, *words) as program:
        assert program.wait(300) == 2
