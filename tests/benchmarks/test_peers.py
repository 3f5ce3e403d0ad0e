"""Peers of the benchmarks: what is asked of them, and what is said where they are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.comparison import PEERS, Comparison
from benchmarks.peers.environment import ENVIRONMENTS, HERE, Unavailable, environment
from benchmarks.peers.peer import PeerSpec, running
from benchmarks.peers.protocol import Settings
from raydist.models.biencoder import BiEncoder
from raydist.models.scratch import create

_CHECKOUT = str(HERE.parents[1])


def test_every_peer_has_an_environment_and_a_program() -> None:
    for spec in PEERS.values():
        assert spec.environment in ENVIRONMENTS
        assert (HERE / f"with_{spec.program}.py").is_file()


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_packages_of_an_environment_have_versions(name: str) -> None:
    lines = (HERE / f"{name}.txt").read_text().split()
    assert lines and all("==" in line for line in lines)


def test_an_environment_whose_packages_cannot_be_had_is_named_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(Unavailable, match=r"fastembed: ERROR: No matching distribution"):
        environment("fastembed", tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_checkout_answers_with_its_vectors(tmp_path: Path) -> None:
    texts = ["one two three", "two"]
    folder = create(texts * 4, tmp_path / "model", hidden=32, vocab=64)
    spec = PeerSpec("", "raydist", "float32", checkout=_CHECKOUT)
    settings = Settings("embed", str(folder), "float32", "", 256, 1)
    with running(spec, settings, tmp_path) as peer:
        answer = peer.work(texts)
    expected = BiEncoder.load(folder, device="cpu").encode_documents(texts)
    np.testing.assert_allclose(answer.values, expected, atol=1e-6)
    assert answer.cpu > 0 and answer.wall > 0


def test_a_peer_that_ends_says_why(tmp_path: Path) -> None:
    spec = PeerSpec("", "fastembed", "float32", checkout=_CHECKOUT)  # it is not installed here
    with (
        pytest.raises(Unavailable, match="No module named 'fastembed'"),
        running(spec, Settings("embed", "", "float32", "", 256, 1), tmp_path),
    ):
        pass


def test_ratios_are_to_the_best_peer_of_the_precision() -> None:
    cpu = {"raydist": 2.0, "raydist before": 1.0, "slow": 8.0, "quick": 3.0, "quick int8": 1.0}
    precision = dict.fromkeys(cpu, "float32") | {"quick int8": "int8"}
    result = Comparison(precision=precision, cpu=cpu)
    assert result.ratio("raydist", "float32") == 1.5
    assert result.ratio("raydist", "bfloat16") is None
    assert result.ratio("raydist bf16", "float32") is None
    assert result.versus("raydist", "raydist before") == 0.5


def test_scores_of_numpy_are_numbers_of_an_answer(tmp_path: Path) -> None:
    program = tmp_path / "with_scalars.py"
    program.write_text(
        "import numpy as np\nfrom protocol import serve\n"
        "serve(lambda settings: lambda query, texts: [np.float32(0.5) for _ in texts])\n"
    )
    settings = Settings("rerank", "", "float32", "", 256, 1)
    lines = [json.dumps(each) for each in (asdict(settings), {"query": "q", "texts": ["a", "b"]})]
    result = subprocess.run(
        [sys.executable, str(program)],
        input="".join(f"{line}\n" for line in lines),
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
    )
    assert json.loads(result.stdout.splitlines()[1])["values"] == [0.5, 0.5], result.stderr
