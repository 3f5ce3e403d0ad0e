"""Ten times what the service can do, as the benchmark puts it on, for seconds or for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.models import minilm_with_head, mixed_documents
from benchmarks.servers import raydist_server
from benchmarks.serving import overload
from raydist.serving.load import rerank_bodies, run_load
from raydist.serving.spec import LoadSpec

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(
    ("seconds", "grown_mb"),
    [
        (8.0, 200.0),  # in seconds a process has not had all its buffers yet
        pytest.param(300.0, 50.0, marks=pytest.mark.slow),
    ],
)
def test_overload_is_answered_and_memory_stays_flat(
    seconds: float, grown_mb: float, minilm: Path, tmp_path: Path
) -> None:
    folder = minilm_with_head(tmp_path / "model")
    query, texts = mixed_documents(500)
    bodies = rerank_bodies([query], texts, 20)
    with raydist_server(folder, 1) as (url, process):
        calm = run_load(url, bodies, LoadSpec(clients=4, seconds=5))
        assert set(calm.statuses) == {"200"}, calm.statuses
        rate = 10 * calm.statuses["200"] / calm.seconds
        statuses, grown = overload(url, process, bodies, rate, seconds)  # it recovers, too
    assert set(statuses) <= {"200", "429", "503"}, statuses
    assert statuses["200"] > 0 and statuses["429"] > statuses["200"], statuses
    assert grown < grown_mb
