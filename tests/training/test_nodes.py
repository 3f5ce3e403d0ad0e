"""Ranks that share no folder: checkpoints lie on the object store, and any node continues."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from raydist.disk import write_json
from raydist.errors import ArtifactError, JobError
from raydist.stores.nodes import Area, remember
from raydist.stores.objects import Objects
from raydist.training.checkpoint import FINAL, STATE, Checkpoints
from raydist.training.nodes import MARK, RunFolder, area_of, complete, reached
from raydist.training.run import run
from raydist.training.uploads import AreaCheckpoints
from raydist.training.worker import Place
from tests.training.jobs import lines, tiny_job, weights
from tests.training.spawn import spawn

RESULT = ".result.json"


def driver(root: Path, uri: str) -> Path:
    """The folder of a run that goes to `uri`, as the driver has it."""
    folder = root / "outputs" / "run-on-its-way" / "run"
    folder.mkdir(parents=True, exist_ok=True)
    remember(folder.parent, uri)
    (folder / ".job.json").write_text(json.dumps({"kind": "training-run", "config": {}}))
    return folder


def alone(rank: int, world: int, folder: Path) -> None:
    run(tiny_job(folder), Place(rank, world, torch.device("cpu")))


def apart(area: Area, steps: int, rank: int, world: int, folder: Path) -> None:
    os.environ["RAYDIST_CACHE"] = str(folder.parents[3] / f"node-{rank}")
    job = tiny_job(folder.parents[3] / "sketch", steps=steps)
    sets = tuple(replace(each, folder=folder / "data/train") for each in job.sets)
    job = replace(job, folder=folder, sets=sets, area=area, keep=2)
    result = run(job, Place(rank, world, torch.device("cpu")))
    assert result["resumed_at"] == (4 if steps == 6 else 0)
    if rank == 0:  # as a worker ends
        of_rank = RunFolder(area, folder)
        write_json(of_rank.here / RESULT, result)
        of_rank.put_record(FINAL, RESULT)


def train_apart(folder: Path, steps: int) -> RunFolder:
    """Trains on two ranks, neither of which sees the driver's folder; returns the driver's."""
    area = area_of(folder)
    assert area is not None
    of_driver = RunFolder(area, folder)
    of_driver.offer()
    (area.root / area.token).unlink()
    spawn(partial(apart, area, steps), 2, folder)
    (area.root / area.token).touch()
    return of_driver


def test_ranks_without_a_shared_folder_continue_on_other_nodes_as_if_undisturbed(
    s3: str, tmp_path: Path
) -> None:
    whole, folder = tmp_path / "whole", driver(tmp_path / "cache", f"{s3}/run")
    tiny_job(whole)
    spawn(alone, 2, whole)
    shutil.copytree(whole / "data", folder / "data/train")
    tiny_job(tmp_path / "sketch")
    shutil.rmtree(tmp_path / "sketch" / "model")
    shutil.copytree(whole / "model", tmp_path / "sketch" / "model")
    first = train_apart(folder, 4)
    names = first.objects.names("checkpoints")
    assert {name.split("/")[1] for name in names} == {"step-00000002", "step-00000004"}
    assert {"rng-00000.pt", "rng-00001.pt", "engine.pt", STATE} <= {n.split("/")[-1] for n in names}
    half = {"checkpoints/step-00000005/engine.pt": whole / "train.jsonl"}
    first.objects.upload(half)  # whose ranks died while they put it
    assert reached(first.area, folder) == 4
    for node in ("node-0", "node-1"):
        shutil.rmtree(tmp_path / node)
    second = train_apart(folder, 6)
    steps = {name.split("/")[1] for name in second.objects.names("checkpoints")}
    assert steps == {"step-00000004", "step-00000006"}
    second.fetch_result(RESULT)
    assert lines(folder) == lines(whole)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(folder)[name]), name
    assert (folder / "checkpoints" / "step-00000006" / STATE).exists()


def writing(*names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)

    return write


ALONE = f"{MARK}00000-of-1"


def test_a_state_that_is_being_replaced_is_no_checkpoint(s3: str, tmp_path: Path) -> None:
    """An attempt that died left more files than the next one writes, and none of them stays."""
    area = area_of(driver(tmp_path / "cache", f"{s3}/run"))
    assert area is not None
    of_run = RunFolder(area, area.root / "run")
    checkpoints = AreaCheckpoints(of_run, keep=1)
    checkpoints.save(3, writing("a", "b"), {"step": 3})
    checkpoints.save(3, writing("a"), {"step": 3})
    checkpoints.finish()
    latest = AreaCheckpoints(of_run).latest()
    assert latest is not None and {p.name for p in latest.iterdir()} == {"a", STATE, ALONE}
    checkpoints.save(4, writing("c"), {"step": 4})
    checkpoints.finish()
    assert set(Objects(of_run.objects.uri).names("checkpoints")) == {
        f"checkpoints/step-00000004/{name}" for name in ("c", STATE, ALONE)
    }
    newest = AreaCheckpoints(of_run).latest()
    assert newest is not None and newest.name.startswith("step-00000004")
    assert not list(area.root.glob("run/.step-*")), "what was put is removed"


def test_a_checkpoint_is_put_beside_training_and_counts_once_all_ranks_have_put_it(
    s3: str, tmp_path: Path
) -> None:
    area = area_of(driver(tmp_path / "cache", f"{s3}/run"))
    assert area is not None
    of_run = RunFolder(area, area.root / "run")
    other = AreaCheckpoints(of_run, rank=1, world_size=2)
    waits: list[None] = []

    def wait() -> None:
        waits.append(None)
        if len(waits) == 2:  # after rank 0 has put its part
            assert AreaCheckpoints(of_run).latest() is None and reached(area, of_run.here) == 0
            other.save(2, writing("b"), {})
            other.finish()

    first = AreaCheckpoints(of_run, world_size=2, barrier=wait)
    (of_run.here / "metrics.jsonl").write_text("first\n")
    first.save(2, writing("a"), {"step": 2})
    with open(of_run.here / "metrics.jsonl", "a") as file:  # training goes on
        file.write("second\n")
    first.finish()
    assert (of_run.objects.read("metrics.jsonl") or [b""])[0] == b"first\n"
    assert reached(area, of_run.here) == 2
    of_run.fetch_result()
    kept = {path.name for path in (of_run.here / "checkpoints/step-00000002").iterdir()}
    assert {"a", "b", STATE} < kept
    driver_s = {name for name in of_run.objects.names("checkpoints") if MARK not in name}
    assert complete(driver_s) == ["step-00000002"], "a driver's has no marks"


def test_a_checkpoint_that_could_not_be_put_is_an_error_at_the_end(s3: str, tmp_path: Path) -> None:
    area = area_of(driver(tmp_path / "cache", f"{s3}/run"))
    assert area is not None
    elsewhere = RunFolder(area, area.root / "run")
    elsewhere.objects = Objects(f"{s3}-that-is-missing/run")
    checkpoints = AreaCheckpoints(elsewhere, rank=1, world_size=2)
    checkpoints.save(2, writing("a"), {"step": 2})
    with pytest.raises(JobError, match="that-is-missing"):
        checkpoints.finish()


def test_every_rank_resumes_from_rank_0s_choice(tmp_path: Path) -> None:
    """A network file system shows a rank another newest checkpoint, or not yet rank 0's."""

    def write(folder: Path) -> None:
        folder.mkdir(exist_ok=True)

    for step in (1, 2):
        Checkpoints(tmp_path).save(step, write, {"step": step})
    chosen = tmp_path / "step-00000001"
    other = Checkpoints(tmp_path, rank=1, broadcast=lambda value: chosen)
    assert other.latest() == chosen
    shutil.rmtree(chosen)
    with pytest.raises(ArtifactError, match="another rank has it not"):
        other.latest()
