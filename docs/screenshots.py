"""Takes the pictures of MLflow and of the service's page: `python -m docs.screenshots [FOLDER]`.

A small model is trained, tuned runs are measured and a service is started in a temporary folder.
Needs Chromium, no network; takes some minutes.
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

IMAGES = Path(__file__).parent / "images"
ROOT = Path(__file__).resolve().parents[1]

TRAINING = """
data: "docstrings:/train"
model:
  scratch: {layers: 1, hidden: 128, heads: 2, vocab: 4096, max_length: 64}
  pooling: mean
  normalize: true
  query_max_length: 24
  document_max_length: 48
  dropout: 0
loss: {kind: infonce, temperature: 0.05}
optim: {lr: 3e-3}
batch_size: 64
train_group_size: 1
steps: 60
log_every: 2
validation:
  dev:
    corpus: {kind: docstrings}
    queries: "docstrings:/test"
    qrels: "docstrings:/test"
    metrics: {nDCG@10: true, R@100: false}
    interval: 10
"""


def main(images: Path = IMAGES) -> None:
    """Writes all screenshots into a folder."""
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "train.yaml").write_text(TRAINING, encoding="utf-8")
        for line in (
            "index corpus.kind=docstrings out=idx workers=0",
            "train train.yaml out=encoder tracking=sqlite:///mlflow.db",
            "embed corpus.kind=docstrings model=encoder out=vec workers=0",
            "search index=idx queries=docstrings:/test k=100 out=bm25.txt",
            "search index=idx,vec queries=docstrings:/test k=100 out=hybrid.txt"
            " fusion.kind=interpolate fusion.weights=0.8,0.2",
            "evaluate run=bm25.txt,hybrid.txt qrels=docstrings:/test baseline=bm25.txt"
            " measures=nDCG@10,R@100 tracking=sqlite:///mlflow.db",
        ):
            _raydist(line, folder)
        mlflow(folder, images)
        playground(folder, images)


def mlflow(folder: Path, images: Path) -> None:
    """The runs of an experiment, and the curves of the training run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    (trained,) = (
        run.info
        for run in runs
        if "nDCG@10" in str(run.data.metrics.keys()) and "loss" in str(run.data.metrics.keys())
    )
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--port"]
    with _running(command, folder, "/health") as url:
        experiment = f"{url}/#/experiments/{trained.experiment_id}"
        _shoot(f"{experiment}/runs", images / "mlflow-runs.png", 620)
        run = f"{experiment}/runs/{trained.run_id}"
        _shoot(f"{run}/model-metrics", images / "mlflow-curves.png", 900)


def playground(folder: Path, images: Path) -> None:
    """The service's page with a search."""
    command = [sys.executable, "-m", "raydist", "serve", "index=idx", "reranker=encoder", "port="]
    with _running(command, folder, "/readyz") as url:
        query = urlencode({"query": "temporary file deleted when closed"})
        _shoot(f"{url}/?{query}", images / "playground.png", 760)


def _raydist(line: str, folder: Path) -> None:
    command = [sys.executable, "-m", "raydist", *line.split()]
    subprocess.run(command, cwd=folder, env=_environment(), check=True, stdout=sys.stderr)


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


def _shoot(url: str, target: Path, height: int) -> None:
    """Writes what Chromium shows of a page, as a picture of few colours."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))))
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--disable-dev-shm-usage", f"--user-data-dir={profile}"),
                *(f"--window-size=1280,{height}", "--virtual-time-budget=20000"),
                *(f"--screenshot={target}", url),
            ],
            check=True,
            capture_output=True,
            timeout=180,
        )
    from PIL import Image

    with Image.open(target) as picture:
        small = picture.convert("RGB").quantize(64)
    small.save(target, optimize=True)
    print(target, f"{target.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
