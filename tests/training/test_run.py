from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydist import cluster
from raydist.errors import ArtifactError, DataError, JobError
from raydist.models.biencoder import BiEncoder
from raydist.models.spec import Lora
from raydist.training.run import run
from raydist.training.spec import DeepSpeed, Resources
from raydist.training.worker import Place, _idle_gpus, _trainer, fit
from tests.training.jobs import lines, tiny_job, weights
from tests.training.spawn import spawn

HERE = Place(0, 1, torch.device("cpu"))


def train(options: dict[str, Any], rank: int, world: int, folder: Path) -> None:
    run(tiny_job(folder, **options), Place(rank, world, torch.device("cpu")))


def train_on_two(folder: Path, **options: Any) -> None:
    tiny_job(folder, **options)  # prepares the data once
    spawn(partial(train, options), 2, folder)


def test_the_final_model_is_read_again_and_loads_in_sentence_transformers(tmp_path: Path) -> None:
    result = run(tiny_job(tmp_path), HERE)
    assert result["step"] == 6 and result["samples"] == 42
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
    from sentence_transformers import SentenceTransformer

    ours = BiEncoder.load(tmp_path, device="cpu").encode_queries(["river stone lamp", "bread"])
    expected = SentenceTransformer(str(tmp_path / "checkpoint-final"), device="cpu")
    np.testing.assert_allclose(ours, expected.encode(["river stone lamp", "bread"]), atol=1e-5)
    start = BiEncoder.load(tmp_path / "model", device="cpu", pooling="mean", normalize=True)
    assert np.abs(ours - start.encode_queries(["river stone lamp", "bread"])).max() > 1e-3


def test_a_model_that_reads_back_differently_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = BiEncoder.save

    def broken(self: BiEncoder, folder: Path, **options: Any) -> None:
        with torch.no_grad():
            next(self.parameters()).mul_(1.5)
        save(self, folder, **options)

    monkeypatch.setattr(BiEncoder, "save", broken)
    with pytest.raises(ArtifactError, match="differs from the trained one"):
        run(tiny_job(tmp_path, steps=2), HERE)
    assert not (tmp_path / "checkpoint-final").exists()


def test_two_ranks_resume_bit_for_bit_and_another_number_of_ranks_continues(tmp_path: Path) -> None:
    whole, halves, alone = tmp_path / "whole", tmp_path / "halves", tmp_path / "alone"
    train_on_two(whole)
    train_on_two(halves, steps=4)
    train_on_two(halves, steps=6)
    assert lines(halves) == lines(whole)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(halves)[name]), name
    train_on_two(alone, steps=4, dropout=0.0)
    run(tiny_job(alone, dropout=0.0), HERE)
    run(tiny_job(tmp_path / "one", dropout=0.0), HERE)
    for ours, expected in zip(lines(alone), lines(tmp_path / "one"), strict=True):
        assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert ours["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)


def test_gradient_caching_and_accumulation_leave_the_run_as_it_is(tmp_path: Path) -> None:
    run(tiny_job(tmp_path / "a", dropout=0.0), HERE)
    run(tiny_job(tmp_path / "b", chunk_size=3, dropout=0.0), HERE)
    for ours, expected in zip(lines(tmp_path / "b"), lines(tmp_path / "a"), strict=True):
        assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)


@pytest.mark.slow
def test_zero_3_trains_adapters_of_a_model_that_rank_0_alone_has_loaded(tmp_path: Path) -> None:
    parts, plain = tmp_path / "parts", tmp_path / "plain"
    options: dict[str, Any] = {"dropout": 0.0, "lora": Lora(r=4), "checkpointing": True}
    train_on_two(parts, steps=3, **options, deepspeed=DeepSpeed(zero=3))
    states = [*(parts / "checkpoints").rglob("*model_states.pt")]
    saved = [torch.load(file, weights_only=False)["module"] for file in states]
    assert len(saved) == 4 and all("lora_" in name for state in saved for name in state)
    train_on_two(parts, **options, deepspeed=DeepSpeed(zero=3))
    run(tiny_job(plain, **options), HERE)
    for ours, expected in zip(lines(parts), lines(plain), strict=True):
        assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert ours["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(parts)[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.ray
def test_a_killed_worker_is_replaced_and_the_weights_are_those_of_an_undisturbed_run(
    tmp_path: Path, ray_cluster: None
) -> None:
    marker = tmp_path / "killed"
    disturbed, whole = tmp_path / "disturbed", tmp_path / "whole"
    job = tiny_job(disturbed, deadly=marker)
    result = fit(partial(run, job), disturbed, Resources(workers=2))
    assert marker.exists(), "no worker was killed"
    assert result["step"] == 6 and result["resumed_at"] == 4
    train_on_two(whole)
    assert lines(disturbed) == lines(whole)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(disturbed)[name]), name


def test_waiting_for_another_rank_has_the_limit_that_is_set(tmp_path: Path) -> None:
    trainer = _trainer(partial(run), tmp_path, Resources(workers=2, timeout=77), None, ())
    assert trainer.backend_config.timeout_s == 77 and trainer.backend_config.backend == "gloo"
    trainer = _trainer(partial(run), tmp_path, Resources(workers=1, gpus_per_worker=0.5), None, ())
    assert trainer.backend_config.backend == "nccl"
    assert trainer.scaling_config.resources_per_worker["GPU"] == 0.5


def test_workers_that_would_share_a_gpu_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 workers could share a GPU, which NCCL refuses; gpus"):
        Resources(workers=2, gpus_per_worker=0.5)
    assert Resources(workers=1, gpus_per_worker=0.5).gpus_per_worker == 0.5


def test_unused_gpus_are_noted() -> None:
    assert "the cluster has 8 GPU: gpus_per_worker=1" in _idle_gpus(2, 0.0, 8.0)
    assert not _idle_gpus(2, 1.0, 8.0) and not _idle_gpus(2, 0.0, 0.0)


def test_the_threads_of_a_run_are_no_longer_set_after_it(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run_with = fit(
        lambda place: {"threads": torch.get_num_threads()}, tmp_path, Resources(threads=3)
    )
    assert run_with == {"threads": 3} and torch.get_num_threads() == before


def here(place: Place) -> dict[str, Any]:
    return {"folder": os.getcwd(), "rank": place.rank}


@pytest.mark.ray
def test_relative_paths_mean_to_workers_what_they_mean_to_the_driver(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever folder their Ray was started in."""
    monkeypatch.chdir(tmp_path)
    assert fit(here, tmp_path, Resources(workers=1)) == {"folder": str(tmp_path), "rank": 0}


@pytest.mark.ray
def test_workers_that_wait_for_others_say_so(ray_cluster: None) -> None:
    assert cluster.taken(1, 0.5, 0.0) == ""
    assert "waiting for the cluster: 5 workers take 5 CPU, " in cluster.taken(5, 1.0, 0.0)
    assert cluster.taken(5, 1.0, 0.0).endswith(" of 4 are free")


def mistaken(place: Place) -> dict[str, Any]:
    if place.rank == 1:
        raise DataError("train.jsonl, line 7: unreadable")
    place.barrier()
    return {}


@pytest.mark.ray
@pytest.mark.slow
def test_a_mistake_of_the_user_ends_the_run_with_its_own_words(
    tmp_path: Path, ray_cluster: None
) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl, line 7"):
        fit(mistaken, tmp_path, Resources(workers=2))


@pytest.mark.ray
def test_more_workers_than_resources_is_an_error_within_seconds(
    tmp_path: Path, ray_cluster: None
) -> None:
    with pytest.raises(JobError, match=r"workers = 64 with 1 CPU each need 64 CPU"):
        fit(mistaken, tmp_path, Resources(workers=64))
