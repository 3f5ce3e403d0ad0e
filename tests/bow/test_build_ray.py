"""Building on Ray: any number of actors, and actors that die, leave the bytes of one process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from raydist.bow.build import merge
from raydist.bow.build.create import build_index
from raydist.bow.build.delete import delete_from_index
from raydist.bow.build.segments import merge_segments
from raydist.bow.spec import IndexSpec, MergeSpec
from raydist.disk import remove
from raydist.generations import WORK
from raydist.manifest import read_manifest
from tests.bow.answers import make_index
from tests.bow.documents import contents, read, splits_of

pytestmark = pytest.mark.ray

ROWS = [(f"d{i}", "", " ".join(f"w{i * j % 97}" for j in range(20))) for i in range(300)]
CUTS = [40, 80, 130, 200, 260]


def read_and_die_once(place, split, rejects):
    """Kills the actor in the middle of split 3, the first time only."""
    for number, table in enumerate(read(split, rejects)):
        if split["number"] == 3 and number == 2:
            try:
                Path(place).touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        yield table


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    build_index(splits_of(ROWS, CUTS), read, folder, IndexSpec(positions=True))
    remove(folder / WORK)
    return contents(folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_actors_write_the_bytes_of_one_process(ray_cluster, tmp_path, whole, workers, monkeypatch):
    monkeypatch.setattr(merge, "_WORTH_SHARING", 0 if workers == 2 else 1 << 40)
    build_index(splits_of(ROWS, CUTS), read, tmp_path, IndexSpec(workers=workers, positions=True))
    remove(tmp_path / WORK)
    assert contents(tmp_path) == whole


def test_an_actor_that_is_killed_is_replaced(ray_cluster, tmp_path, whole):
    from functools import partial

    place = tmp_path / "killed"
    build_index(
        splits_of(ROWS, CUTS),
        partial(read_and_die_once, str(place)),
        tmp_path / "index",
        IndexSpec(workers=2, positions=True),
    )
    assert place.exists()
    remove(tmp_path / "index" / WORK)
    assert contents(tmp_path / "index") == whole


def test_actors_merge_segments_to_the_bytes_of_one_process(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "_WORTH_SHARING", 0)
    monkeypatch.setattr(merge, "_LEAST", 700)
    written = []
    for workers in (0, 2):
        index = make_index(ROWS, tmp_path / f"index{workers}", CUTS, merge=False, positions=True)
        delete_from_index(index, ["d7", "d90", "d299"])
        merge_segments(index, MergeSpec(segments=2, workers=workers, memory_per_worker=0))
        assert not (index / WORK).exists()
        written.append([contents(index / name) for name in read_manifest(index)["segments"]])
    assert written[0] == written[1] and len(written[0]) == 2
