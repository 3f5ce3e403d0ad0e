"""Learning is real: what the recipes promise, on real text. The same functions make the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.training import nfcorpus, quickstart

pytestmark = pytest.mark.slow


def test_hard_negatives_raise_minilm_on_the_test_queries_of_nfcorpus(
    collections: Path, tmp_path: Path, minilm: Path
) -> None:
    figures = nfcorpus(collections / "nfcorpus", tmp_path / "out", "tracking=none")
    assert figures["nfcorpus_ndcg10_trained"] > figures["nfcorpus_ndcg10_start"], figures


def test_a_small_encoder_from_nothing_learns_the_documentation_of_python(tmp_path: Path) -> None:
    figures = quickstart(tmp_path / "out")
    assert figures["quickstart_ndcg10_trained"] > figures["quickstart_ndcg10_start"] + 0.2, figures
