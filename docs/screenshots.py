"""Takes the pictures of MLflow and of the service's page: `python -m docs.screenshots [FOLDER]`.

The quickstart's pipeline, a search for its rate and a registered model are made in a temporary
folder, or in `work=FOLDER`, where what is complete is not made again. Needs Chromium and Ray, no
network; takes some minutes.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.models import minilm
from docs.browser import Browser

IMAGES = Path(__file__).parent / "how-to/images"
ROOT = Path(__file__).resolve().parents[1]

SEARCH = """
data: "docstrings:/train"
model:
  scratch: {layers: 1, hidden: 128, heads: 2, vocab: 4096, max_length: 64}
  pooling: mean
  normalize: true
  query_max_length: 24
  document_max_length: 48
loss: {kind: infonce, temperature: 0.05}
batch_size: 64
train_group_size: 1
steps: 20
validation:
  dev:
    corpus: {kind: docstrings}
    queries: "docstrings:/test"
    qrels: "docstrings:/test"
    metrics: {nDCG@10: true}
    interval: 10
space: {optim.lr: "log(1e-3, 1e-2)"}
trials: 3
scheduler: none
concurrent: 1
"""
BEST = "quickstart-pipeline/encoder/listeners/dev/best/nDCG@10"
LINES = (
    "pipeline pipeline.yaml tracking=sqlite:///mlflow.db"
    " stages.train.validation.dev.interval=10 stages.train.tracking.system=1",
    "tune search.yaml out=search tracking=sqlite:///mlflow.db",
    f"export checkpoint={BEST} out=hf name=docstrings-encoder alias=champion"
    " tracking=sqlite:///mlflow.db",
)
MLFLOW = ".modebar { display: none !important }"
"""Hides the buttons that MLflow shows over a chart while somebody points at it."""
NO_PATHS = """[...document.querySelectorAll("body *")]
.filter(each => each.childElementCount < 2 && each.textContent.startsWith("Path: "))
.forEach(each => each.style.visibility = "hidden")"""
"""Hides where artifacts lie on this machine."""
WIDTH = 1760
PAGE = slice(196, WIDTH - 454)
"""Columns of pixels between MLflow's navigation and its assistant."""


def main(*words: str) -> None:
    """Writes all screenshots into a folder."""
    work = next((word.removeprefix("work=") for word in words if word.startswith("work=")), None)
    images = next((Path(word) for word in words if "=" not in word), IMAGES)
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(work or place)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "search.yaml").write_text(SEARCH, encoding="utf-8")
        shutil.copy(ROOT / "jobs/quickstart/pipeline.yaml", folder)
        for line in LINES:
            command = [sys.executable, "-m", "raydist", *line.split()]
            subprocess.run(command, cwd=folder, env=_environment(), check=True, stdout=sys.stderr)
        mlflow(folder, images)
        playground(folder, images)


def mlflow(folder: Path, images: Path) -> None:
    """The experiment, the training run's pages, the comparison's figures, and the registry."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("raydist").experiment_id
    runs = client.search_runs([experiment])
    verbs = {run.info.run_id: run.data.tags.get("raydist.verb") for run in runs}
    stages = {
        verbs[run.info.run_id]: run.info.run_id
        for run in runs
        if verbs.get(run.data.tags.get("mlflow.parentRunId", "")) == "pipeline"
    }
    trained, compared = stages["train"], stages["evaluate"]
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--port"]
    with _running(command, folder, "/health") as url, Browser(WIDTH) as browser:
        of = f"{url}/#/experiments/{experiment}/runs"
        pages = {
            "runs": (of, 760),
            "run": (f"{of}/{trained}", 1000),
            "curves": (f"{of}/{trained}/model-metrics", 660),
            "changed": (f"{of}/{trained}/artifacts/validation/dev/changed.json", 620),
            "figures": (f"{of}/{compared}/artifacts/figures/box.png", 740),
            "system": (f"{of}/{trained}/system-metrics", 600),
            "model": (f"{url}/#/models/docstrings-encoder/versions/1", 900),
        }
        for name, (page, height) in pages.items():
            browser.open(page, height, MLFLOW)
            browser.run(NO_PATHS)
            _shoot(browser, images / f"mlflow-{name}.png", PAGE)


def playground(folder: Path, images: Path) -> None:
    """The service's page with a search, reranked by a published model."""
    command = [sys.executable, "-m", "raydist", "serve", "index=quickstart-pipeline/index"]
    command += [f"rerankers.minilm={{kind: biencoder, model: {minilm()}}}", "port="]
    with _running(command, folder, "/readyz") as url, Browser() as browser:
        query = urlencode({"query": "temporary file deleted when closed"})
        browser.open(f"{url}/?{query}", 760)
        ends = time.monotonic() + 60
        while not browser.run("/[0-9]+ results ·/.test(document.body.innerText)"):
            assert time.monotonic() < ends, "the search has no results"
            time.sleep(0.25)
        _shoot(browser, images / "playground.png")


def _shoot(browser: Browser, target: Path, columns: slice = slice(None)) -> None:
    browser.shoot(target, columns)
    print(target, f"{target.stat().st_size // 1000} kB", flush=True)


def _environment() -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": ""}
    environment.pop("RAY_ADDRESS", None)
    return environment


@contextmanager
def _running(command: list[str], folder: Path, health: str) -> Iterator[str]:
    """Runs a server on a free port, which is the command's last word, until it is not needed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    last = command[-1]
    command = [*command[:-1], f"{last}{port}"] if last.endswith("=") else [*command, port]
    server = subprocess.Popen(command, cwd=folder, env=_environment())
    url, ends = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while not _answers(url + health):
            assert server.poll() is None and time.monotonic() < ends, command
            time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
