from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from raydist.errors import ArtifactError, DataError, JobError
from raydist.shard_files import publish, shard_path
from raydist.shards import _Actor, sharded_map

SPLITS = [{"value": i, "size": i + 1} for i in range(5)]


def square(split: Mapping[str, Any], target: Path) -> dict[str, Any]:
    target.mkdir()
    (target / "square").write_text(str(split["value"] ** 2))
    return {"documents": split["value"]}


def make_square() -> Any:
    return square


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


class Failing:
    """Counts its calls in a file; fails at one split in the way of `how`."""

    def __init__(self, log: Path, how: str, times: int) -> None:
        self.log, self.how, self.times = log, how, times

    def __call__(self) -> Any:
        return self.work

    def work(self, split: Mapping[str, Any], target: Path) -> dict[str, Any]:
        with open(self.log, "a") as out:
            out.write(f"{split['value']}\n")
        begun = self.log.read_text().split().count(str(split["value"]))
        if split["value"] == 2 and begun <= self.times:
            target.mkdir()
            (target / "half").write_text("written")
            if self.how == "die":
                os.kill(os.getpid(), 9)
            if self.how == "user":
                raise DataError("corpus.jsonl, line 7: bad")
            if self.how == "full":
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
            raise RuntimeError("broken")
        return square(split, target)


def test_shards_appear_with_their_markers_and_stats_in_order(tmp_path: Path) -> None:
    stats = sharded_map(SPLITS, make_square, tmp_path / "s")
    assert [s["documents"] for s in stats] == list(range(5))
    assert (shard_path(tmp_path / "s", 3) / "square").read_text() == "9"


def test_a_restart_redoes_only_what_has_no_marker(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(RuntimeError):
        sharded_map(SPLITS, Failing(log, "raise", 1), tmp_path / "s")
    sharded_map(SPLITS, Failing(log, "raise", 1), tmp_path / "s")
    assert log.read_text().split() == ["0", "1", "2", "2", "3", "4"]
    undisturbed = tmp_path / "t"
    sharded_map(SPLITS, make_square, undisturbed)
    assert contents(tmp_path / "s") == contents(undisturbed)


def test_other_splits_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    sharded_map(SPLITS, make_square, tmp_path)
    with pytest.raises(ArtifactError, match="other splits"):
        sharded_map(SPLITS[:3], make_square, tmp_path)


def test_a_corrupted_marker_is_an_error(tmp_path: Path) -> None:
    sharded_map(SPLITS, make_square, tmp_path)
    marker = tmp_path / "00001.done"
    data = json.loads(marker.read_text())
    data["stats"]["documents"] = 99
    marker.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=r"00001\.done is corrupted"):
        sharded_map(SPLITS, make_square, tmp_path)


def test_a_damaged_record_of_the_splits_is_named(tmp_path: Path) -> None:
    sharded_map(SPLITS, make_square, tmp_path)
    (tmp_path / ".splits.json").write_bytes(b'{"count": 5, \xff')
    with pytest.raises(ArtifactError, match=r"\.splits\.json is corrupted"):
        sharded_map(SPLITS, make_square, tmp_path)


def test_a_marker_whose_shard_is_gone_counts_for_nothing(tmp_path: Path) -> None:
    sharded_map(SPLITS, make_square, tmp_path / "a")
    shutil.rmtree(shard_path(tmp_path / "a", 3))
    sharded_map(SPLITS, make_square, tmp_path / "a")
    sharded_map(SPLITS, make_square, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_worker_that_was_thought_dead_leaves_the_published_shard_alone(tmp_path: Path) -> None:
    def slow(split: Mapping[str, Any], target: Path) -> dict[str, Any]:
        publish(square, split, 1, tmp_path)  # another worker is quicker
        return square({"value": 99}, target)

    assert publish(slow, SPLITS[1], 1, tmp_path) == {"documents": 1}
    assert (tmp_path / "00001/square").read_text() == "1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00001", "00001.done"]


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    actor = _Actor(pickle.dumps(make_square), f"{tmp_path}/elsewhere", 3, f"{tmp_path}", None)
    batch = {"number": [0], "split": [json.dumps(SPLITS[0])]}
    (answer,) = actor(batch)["answer"]
    assert "does not see this folder; out=" in json.loads(answer)["error"][1]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="disk is full"):
        sharded_map(SPLITS, Failing(tmp_path / "log", "full", 9), tmp_path / "s")


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_shards_as_this_process(
    tmp_path: Path, ray_cluster: None, workers: int
) -> None:
    sharded_map(SPLITS, make_square, tmp_path / "a", workers=workers, cpus_per_worker=0.5)
    sharded_map(SPLITS, make_square, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.ray
@pytest.mark.parametrize("how", ["die", "raise"])
def test_a_worker_that_dies_or_raises_once_is_replaced(
    tmp_path: Path, ray_cluster: None, how: str
) -> None:
    failing = Failing(tmp_path / "log", how, 1)
    sharded_map(SPLITS, failing, tmp_path / "a", workers=1, cpus_per_worker=0.5)
    sharded_map(SPLITS, make_square, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.ray
@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("raise", JobError, r"split 2 .*\"value\": 2.* failed 2 times: .*broken"),
        ("die", JobError, "split 2 .* begun 2 times"),
        ("user", DataError, "line 7"),
        ("full", JobError, "disk is full"),
    ],
)
def test_a_split_that_keeps_failing_is_named(
    tmp_path: Path, ray_cluster: None, how: str, error: type[Exception], message: str
) -> None:
    failing = Failing(tmp_path / "log", how, 99)
    with pytest.raises(error, match=message):
        sharded_map(SPLITS, failing, tmp_path / "a", workers=1, cpus_per_worker=0.5, retries=2)


def make_nothing() -> Any:
    raise DataError("model: no such folder")


@pytest.mark.ray
def test_a_worker_that_cannot_begin_says_why(tmp_path: Path, ray_cluster: None) -> None:
    with pytest.raises(DataError, match="no such folder"):
        sharded_map(SPLITS, make_nothing, tmp_path, workers=1, cpus_per_worker=0.5)


class Strange:
    """Cannot be read by another process, as where a program is not installed on a node."""

    def __init__(self, home: int) -> None:
        if os.getpid() != home:
            raise ModuleNotFoundError("No module named 'strange'")

    def __reduce__(self) -> Any:
        return Strange, (os.getpid(),)

    def __call__(self) -> Any:
        return square


@pytest.mark.ray
def test_workers_that_never_come_up_are_an_error(tmp_path: Path, ray_cluster: None) -> None:
    with pytest.raises(JobError, match=r"failed 2 times: .*No module named 'strange'"):
        sharded_map(
            SPLITS, Strange(os.getpid()), tmp_path, workers=1, cpus_per_worker=0.5, retries=2
        )


@pytest.mark.ray
def test_relative_paths_are_the_users(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sharded_map(SPLITS, make_square, Path("shards"), workers=1, cpus_per_worker=0.5)
    assert (tmp_path / "shards/00003/square").read_text() == "9"


@pytest.mark.ray
def test_more_workers_than_the_cluster_has_is_an_error(tmp_path: Path, ray_cluster: None) -> None:
    with pytest.raises(JobError, match="the cluster has"):
        sharded_map(SPLITS, make_square, tmp_path, workers=5, gpus_per_worker=1)
