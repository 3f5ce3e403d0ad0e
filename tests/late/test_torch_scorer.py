"""Multi-vector search by torch against machine code: the same rankings, and no early reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from raydist.late import torch_scorer
from raydist.late.search import LateIndex
from raydist.late.spec import LateSearchSpec
from raydist.late.torch_scorer import TorchScorer
from tests.late.tokens import build, documents, queries_of

CPU = torch.device("cpu")
SPECS = [LateSearchSpec(exact=True), LateSearchSpec(), LateSearchSpec(probes=2, candidates=30)]


def with_torch(folder: Path, device: torch.device = CPU, **options: int | bool) -> LateIndex:
    docs = documents(300)
    index = LateIndex.open(folder, build(docs, folder, **options))
    index.scorer = TorchScorer(index.codec, index.segments, device)
    return index


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("bits", "unit", "at_once"), [(8, True, 100), (2, False, 1 << 18)])
def test_torch_finds_what_machine_code_finds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: LateSearchSpec,
    bits: int,
    unit: bool,
    at_once: int,
) -> None:
    monkeypatch.setattr(torch_scorer, "_VECTORS", at_once)
    index = with_torch(tmp_path, bits=bits, unit=unit)
    compiled = LateIndex(index.codec, index.segments)
    barred = (np.arange(300) % 3 == 0).astype(np.uint8)
    queries = queries_of(documents(300))
    for flags in (None, barred):
        own = index.search(queries, 20, spec, barred_N=flags, threads=2)
        expected = compiled.search(queries, 20, spec, barred_N=flags)
        for (scores, numbers), (others, same) in zip(own, expected, strict=True):
            np.testing.assert_allclose(scores, others, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(numbers, same)
            assert 0 < len(numbers) <= 20


def test_documents_without_vectors_are_not_found(tmp_path: Path) -> None:
    docs = [*documents(20), np.zeros((0, 32), np.float32)]
    index = LateIndex.open(tmp_path, build(docs, tmp_path, bits=8))
    index.scorer = TorchScorer(index.codec, index.segments, CPU)
    ((_, numbers),) = index.search(queries_of(docs[:20], 1), 30, LateSearchSpec(exact=True))
    assert sorted(numbers.tolist()) == list(range(20))


def test_scores_read_nothing_from_the_device_before_they_are_complete(tmp_path: Path) -> None:
    """On torch's meta device, where there is nothing to be read."""
    index = with_torch(tmp_path, torch.device("meta"), bits=4)
    assert isinstance(index.scorer, TorchScorer)
    query = index.scorer.query(queries_of(documents(300))[0])
    assert index.scorer.scores(0, np.arange(5, 95), query).shape == (90,)
    with pytest.raises(NotImplementedError):  # only the scores themselves
        index.scorer.exact(0, np.arange(5, 95), query)


def test_an_index_stays_on_the_cpu_where_there_is_no_gpu_or_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = LateIndex.open(tmp_path, build(documents(30), tmp_path))
    compiled = index.scorer
    index.on(CPU)
    assert index.scorer is compiled
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 1 << 30))
    index.on(torch.device("cuda"))
    assert index.scorer is compiled
    assert "does not fit into the 1.0 kB that are free on cuda" in capsys.readouterr().err
